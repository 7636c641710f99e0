"""How many bits a sample the native files of a store fill, and what a reader must know where they differ."""

import pandas as pd

from cxrscale.common.notes import Note, examples


def pictures_by_bits(index: pd.DataFrame) -> dict[int, int]:
    """bits -> number of pictures, ascending. index: native_bits of the base store's index."""
    counts = index["native_bits"].value_counts().sort_index()
    return dict(zip(counts.index.tolist(), counts.tolist(), strict=True))


def notes_on_bits(index: pd.DataFrame) -> list[Note]:
    """A note where the pictures do not all fill the same bits.

    index: image_id and native_bits of the base store's index.
    """
    counts = pictures_by_bits(index)
    if len(counts) < 2:
        return []
    rarest = min(counts, key=lambda bits: counts[bits])
    named = examples(index.loc[index["native_bits"] == rarest, "image_id"])
    numbers = ", ".join(f"{bits} bits in {count:,}" for bits, count in counts.items())
    said = (
        f"The native files differ in the bits a sample that their values fill: {numbers}. Each was scaled to 8 bits by "
        f"its own, so that equal values may have become different greys. If all files of 16 bits a sample come from "
        f"one kind of detector, set store.bits to its bits."
    )
    return [Note("pictures", said, f"{rarest} bits: {named}")]
