"""One look for all figures: a resolution is a colour (dark is low), a model is a marker and a line style.

The colours are viridis, which keeps its order for colour-blind readers and in grey print. A figure is made by a
function that takes frames, beside the section that shows it; nothing is read, written or kept there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxrscale.common.atomic import replacing

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")

GREY = "0.35"

#: Longest side to which maps and pictures are brought for drawing: more than a panel can show.
DRAWN_PX = 256


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG at 110 dots an inch; the same figure gives the same bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def resolution_colours(resolutions: Sequence[int]) -> dict[int, Any]:
    """A colour for each resolution, from dark (low) to light."""
    ordered = sorted(set(resolutions))
    shades = np.linspace(0.0, 0.88, len(ordered))
    return {r: matplotlib.colormaps["viridis"](shade) for r, shade in zip(ordered, shades, strict=True)}


def plain(text: object) -> str:
    """Text that matplotlib draws as it stands, not as mathematics."""
    return str(text).replace("$", r"\$")


def shrink(map_: np.ndarray, longest_px: int = DRAWN_PX) -> np.ndarray:
    """Average blocks of a picture (height_px, width_px) so that no side is above longest_px; float64."""
    step = int(np.ceil(max(map_.shape) / longest_px))
    rows, columns = (-(-side // step) for side in map_.shape)
    padded = np.pad(map_, ((0, rows * step - map_.shape[0]), (0, columns * step - map_.shape[1])), mode="edge")
    return padded.reshape(rows, step, columns, step).mean(axis=(1, 3), dtype=np.float64)


def legend(
    figure: Figure,
    models: Sequence[str],
    resolutions: Sequence[tuple[int, Any]],
    note: str,
    marks: Sequence[Line2D] = (),
) -> None:
    entries = [
        Line2D(
            [], [], marker=MARKERS[m % len(MARKERS)], linestyle=LINES[m % len(LINES)], color=GREY, label=plain(model)
        )
        for m, model in enumerate(models)
    ]
    entries += [Line2D([], [], marker="o", color=colour, label=f"{r} px") for r, colour in resolutions]
    entries += marks
    figure.legend(
        handles=entries, title=note, title_fontsize=8, fontsize=8, loc="outside lower center",
        ncols=min(max(len(entries), 1), 4), frameon=False,
    )  # fmt: skip


def say(axis: Axes, text: str) -> None:
    axis.text(
        0.5, 0.5, plain(text), ha="center", va="center", fontsize=8, color=GREY, wrap=True, transform=axis.transAxes
    )


def reasons_of(rows: pd.DataFrame) -> str:
    return "; ".join(dict.fromkeys(rows["reason"].dropna().astype(str))) or "no reason recorded"
