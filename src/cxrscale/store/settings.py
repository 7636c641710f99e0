"""Settings of stage store: what its pictures are, and which native ones it takes."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cxrscale.common.settings import (
    Count,
    Distinct,
    Fraction,
    Pixels,
    Range,
    Real,
    Section,
    Whole,
    chosen,
    names_of,
    not_default,
)

#: How a rectangular picture becomes a square one.
Geometry = Literal["stretch", "pad"]
Filter = Literal["area", "bilinear", "bicubic", "lanczos", "dct"]
#: JPEG quality from 1 to 100, or "lossless", which stores PNG.
Quality = Annotated[Whole, Range(ge=1, le=100)] | Literal["lossless"]


@dataclass(frozen=True)
class PixelSettings(Section):
    """What the base store's pixels depend on beside the native pictures."""

    base_resolution_px: Pixels = 2048
    """native files are decoded once, to this size; others are made from it"""
    geometry: Geometry = "stretch"
    """stretch: aspect ratio not kept (paper) | pad: kept, black borders"""
    filter: Filter = "bilinear"
    """area | bilinear (paper) | bicubic | lanczos, always antialiased; dct: fastest, see docs/store.md"""
    jpeg_quality: Quality = 95
    """1 to 100, or lossless (PNG); the paper's files were saved at 75"""


@dataclass(frozen=True)
class Accepted(Section):
    """Which native pictures are used, and how those of 16 bits a sample become 8: their values go from 0 to
    2**bits - 1, which becomes 255."""

    bits: Annotated[Whole, Range(ge=8, le=16, multiple_of=2)] | Literal["auto"] = "auto"
    """8 to 16 of files of 16 bits a sample; auto: for each the least of 8, 10, 12, 14, 16 that holds its values"""
    least_levels: Annotated[Whole, Range(ge=2, le=256)] = 32
    """distinct greys of a native picture; one with fewer is quarantined"""
    least_side_px: Count = 32
    """of a native picture's shorter side; below it is quarantined"""
    most_aspect: Annotated[Real, Range(ge=1)] = 4.0
    """longer by shorter side of a native picture; above it is quarantined"""


@dataclass(frozen=True)
class BaseSettings(Accepted, PixelSettings):
    """What the base store's shards depend on."""

    def __post_init__(self) -> None:
        if self.filter == "dct" and self.jpeg_quality == "lossless":
            raise ValueError("filter dct decodes JPEG in part: choose another filter for a lossless store")


@dataclass(frozen=True)
class StoreSettings(BaseSettings):
    """store: the pictures at every resolution."""

    shards: Annotated[Whole, Range(ge=1, le=99_999)] = 256
    """files a resolution; fixes how finely the work is divided"""
    together_px: Annotated[list[Pixels], Distinct] | None = None
    """made from one reading of the base, all once one is needed; others are made alone. null: 1024, 512 and 256, those
    below the base; or a list of others below it"""
    upscale: Literal["allow", "exclude"] = "allow"
    """allow | exclude images smaller than the largest of resolutions_px, at all of them"""
    max_unreadable_fraction: Fraction = 0.001
    """of all images; above it the run stops instead of going on without them"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [r for r in self.together_px or [] if r >= self.base_resolution_px]:
            raise ValueError(
                f"store.together_px holds {wrong[0]}, but only resolutions below store.base_resolution_px "
                f"{self.base_resolution_px} are made from the base; remove it, or set together_px to null"
            )

    def of_base(self) -> dict[str, Any]:
        """The fields of BaseSettings."""
        return chosen(self, *names_of(BaseSettings))

    def accepted(self) -> dict[str, Any]:
        """The fields of Accepted."""
        return chosen(self, *names_of(Accepted))

    def named_by(self) -> dict[str, Any]:
        """What names a store: its pixels and shards; settings that came later only where they are not at their default,
        so that stores keep their names."""
        return chosen(self, *names_of(PixelSettings), "shards") | not_default(self, Accepted)
