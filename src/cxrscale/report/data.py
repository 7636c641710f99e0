"""The data: images, patients and labels by split, and what the image store holds."""

from cxrscale.data.contracts import SPLITS
from cxrscale.report.cells import DASH, Cell, PageTable, missing
from cxrscale.report.inputs import ReportSettings, Results, single_findings
from cxrscale.report.sections import Paragraph, Section
from cxrscale.store.bits import pictures_by_bits


def section(results: Results, settings: ReportSettings) -> Section:
    n = len(results["quarantine"])
    images, are = ("image", "is") if n == 1 else ("images", "are")
    lost = f"{n} {images} could not be read or used and {are} missing at every resolution (“quarantined”)."
    elsewhere = (
        " Pictures and image ids are not in this page; they are in cam_local.html beside it, which is not meant to be "
        "shared."
    )
    return Section(
        "data",
        "Data",
        [
            Paragraph(lost + ("" if settings.patient_pictures else elsewhere)),
            images_table(results, settings),
            store_table(results),
            bits_table(results),
            findings_table(results, settings),
        ],
        link="Data",
    )


def images_of(results: Results, settings: ReportSettings) -> set[str]:
    """The images of the store that the study uses."""
    return set(results["index"].loc[results["index"]["native_px"] >= settings.native_at_least_px, "image_id"])


def images_table(results: Results, settings: ReportSettings) -> PageTable:
    """Images and patients of each split, as they are in the store."""
    stored = images_of(results, settings)
    rows: list[list[Cell | str]] = []
    for fold, targets in results.targets.items():
        row: list[Cell | str] = [str(fold)]
        present = targets[targets["image_id"].isin(stored)]
        for split in SPLITS:
            part = present[present["split"] == split]
            note = f"{part['subject_id'].nunique():,} patients"
            if split == "combine" and part.empty:
                note = "validate serves as combine"
            row.append(Cell(f"{len(part):,} images", note))
        row.append(f"{len(targets) - len(present):,}")
        rows.append(row)
    return PageTable("Images and patients of each split.", ["Fold", *SPLITS, "Left out"], rows)


def store_table(results: Results) -> PageTable:
    """What the store holds at each resolution and what it lost on the way."""
    rows: list[list[Cell | str]] = []
    for row in results["summary"].to_dict("records"):
        share = f"{row['enlarged'] / row['images']:.1%} of the images" if row["images"] else ""
        loss = [
            DASH if missing(row[way]) else Cell(f"{row[way]:.1f} dB", f"least {row[f'{way}_least']:.1f}")
            for way in ("jpeg_db", "direct_db")
        ]
        rows.append(
            [
                f"{row['resolution_px']} px",
                Cell(f"{row['images']:,}", f"{row['sampled']} of them measured"),
                f"{row['bytes'] / 1e9:,.3f} GB",
                Cell(f"{row['enlarged']:,}", share),
                *loss,
            ]
        )
    head = ["Resolution", "Images", "Size", "Enlarged", "PSNR: JPEG alone", "PSNR: against one step from native"]
    caption = (
        "The image store. Enlarged: the native file is smaller than the resolution. PSNR is measured on a sample "
        "against lossless ways from the native file."
    )
    return PageTable(caption, head, rows)


def bits_table(results: Results) -> PageTable:
    """How many pictures of the store fill how many bits a sample in their native files."""
    counts = pictures_by_bits(results["index"])
    rows = [[str(bits), f"{count:,}", f"{count / len(results['index']):.1%}"] for bits, count in counts.items()]
    return PageTable(
        "Pictures by bits a sample that their native files fill; each was scaled to 8 bits by its own.",
        ["Bits", "Pictures", "Share"],
        rows,
    )


def findings_table(results: Results, settings: ReportSettings) -> PageTable:
    """Positives and negatives of each finding in each split."""
    stored = images_of(results, settings)
    rows: list[list[Cell | str]] = []
    for fold, targets in results.targets.items():
        present = targets[targets["image_id"].isin(stored)]
        for finding in single_findings(results, settings):
            row: list[Cell | str] = [str(fold), finding]
            for split in SPLITS:
                part = present[present["split"] == split]
                counted = part[f"mask:{finding}"] == 1
                positive = int((counted & (part[f"target:{finding}"] == 1)).sum())
                ignored = int((~counted).sum())
                note = f"{ignored:,} ignored" if ignored else ""
                row.append(Cell(f"{positive:,} / {int(counted.sum()) - positive:,}", note))
            rows.append(row)
    return PageTable("Images with / without each finding, by split.", ["Fold", "Finding", *SPLITS], rows)
