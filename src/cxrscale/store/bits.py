"""How many bits a sample the native files of a store fill, and what a reader must know where they differ."""

import pandas as pd


def pictures_by_bits(manifest: pd.DataFrame) -> dict[int, int]:
    """bits -> number of pictures, ascending. manifest: native_bits of the base store's manifest."""
    counts = manifest["native_bits"].value_counts().sort_index()
    return dict(zip(counts.index.tolist(), counts.tolist(), strict=True))


def notes_on_bits(manifest: pd.DataFrame) -> list[tuple[str, str]]:
    """Notes (about, note) for the table NOTES; none where all pictures fill the same bits.

    manifest: native_bits of the base store's manifest. No image is named, since a report with notes may be passed on.
    """
    counts = pictures_by_bits(manifest)
    if len(counts) < 2:
        return []
    numbers = ", ".join(f"{bits} bits in {count:,}" for bits, count in counts.items())
    return [
        (
            "pictures",
            f"The native files differ in the bits a sample that their values fill: {numbers}. Each was scaled to 8 "
            f"bits by its own, so that equal values may have become different greys. If all files of 16 bits a sample "
            f"come from one kind of detector, set store.bits to its bits. base/manifest.parquet of the store names "
            f"each picture's (native_bits).",
        )
    ]
