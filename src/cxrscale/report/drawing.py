"""One look for all figures: a resolution is a colour (dark is low), a model is a marker and a line style.

The colours are viridis, which keeps its order for colour-blind readers and in grey print. A figure is made by a
function that takes frames, beside the section that shows it; nothing is read, written or kept there.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")

GREY = "0.35"

#: Longest side to which maps and pictures are brought for drawing: more than a panel can show.
DRAWN_PX = 256


def png_of(figure: Figure) -> bytes:
    """A figure as PNG at 110 dots an inch; the same figure gives the same bytes."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110, metadata={"Software": None})
    return written.getvalue()


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


def resolution_axis(axis: Axes, resolutions: Sequence[int], room: float) -> None:
    """Resolutions along x, doublings equally far apart. room: the factor left beyond the first and the last."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(resolutions, [str(r) for r in resolutions])
    axis.set_xticks([], minor=True)
    axis.set_xlim(min(resolutions) / room, max(resolutions) * room)


def beside(resolutions: pd.Series, m: int, n_models: int, step: float) -> np.ndarray:
    """Where model m's values stand at each resolution: beside those of others, so that intervals can be told apart."""
    return resolutions.to_numpy(float) * 2 ** (step * (m - (n_models - 1) / 2))


def line_of_model(
    axis: Axes, x: Iterable[float], rows: pd.DataFrame, m: int, colours: Mapping[int, Any], markersize: float = 5.5
) -> None:
    """The values of model m against x, with their intervals. rows: resolution_px, value, lower, upper."""
    x = list(x)
    axis.plot(x, rows["value"], linestyle=LINES[m % len(LINES)], color=GREY, linewidth=1, zorder=1)
    for at, row in zip(x, rows.to_dict("records"), strict=True):
        colour = colours[int(row["resolution_px"])]
        axis.plot([at, at], [row["lower"], row["upper"]], color=colour, linewidth=1.6, zorder=2)
        axis.plot(at, row["value"], MARKERS[m % len(MARKERS)], color=colour, markersize=markersize, zorder=3)


def say(axis: Axes, text: str) -> None:
    axis.text(
        0.5, 0.5, plain(text), ha="center", va="center", fontsize=8, color=GREY, wrap=True, transform=axis.transAxes
    )


def reasons_of(rows: pd.DataFrame) -> str:
    return "; ".join(dict.fromkeys(rows["reason"].dropna().astype(str))) or "no reason recorded"
