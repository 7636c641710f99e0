"""What the page is made of: sections, and the blocks that stand in them. A table (`cells.PageTable`) is a block too."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from matplotlib.figure import Figure

from cxrscale.report.cells import PageTable
from cxrscale.report.drawing import png_of


@dataclass(frozen=True)
class Paragraph:
    """Prose. Text is escaped, markupsafe.Markup is not. soft: stands back."""

    kind: ClassVar[str] = "paragraph"
    text: str
    soft: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list; items as the text of a paragraph."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure. name: of its file, without ending. private: it shows pictures of patients."""

    kind: ClassVar[str] = "drawn"
    name: str
    figure: Figure
    caption: str
    private: bool = False

    @cached_property
    def png(self) -> bytes:
        return png_of(self.figure)

    @property
    def data(self) -> str:
        """The PNG as it stands within the page."""
        return base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away behind a line."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Framed:
    """Blocks that stand out."""

    kind: ClassVar[str] = "framed"
    blocks: Sequence["Block"]


Block = Paragraph | Bullets | PageTable | Drawn | Details | Framed


@dataclass(frozen=True)
class Section:
    """anchor: what links point to. link: what the navigation calls it; None: it is not there."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    link: str | None = None

    def shared(self) -> "Section":
        """What may be seen by everybody."""
        return replace(self, blocks=_shared(self.blocks))

    def private(self) -> "Section":
        """What may not."""
        return replace(self, blocks=[b for b in single(self.blocks) if _is_private(b)])


def single(blocks: Sequence[Block]) -> Iterator[Block]:
    """The blocks, those within others one by one."""
    for block in blocks:
        if isinstance(block, Details | Framed):
            yield from single(block.blocks)
        else:
            yield block


def _is_private(block: Block) -> bool:
    return isinstance(block, PageTable | Drawn) and block.private


def _shared(blocks: Sequence[Block]) -> list[Block]:
    return [
        replace(b, blocks=_shared(b.blocks)) if isinstance(b, Details | Framed) else b
        for b in blocks
        if not _is_private(b)
    ]
