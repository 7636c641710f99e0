"""What the study was made of: images, labels, stores, settings, costs and versions."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cxrscale.common.rows import MEAN
from cxrscale.data.contracts import SPLITS
from cxrscale.report.cells import DASH, Cell, PageTable, missing, number
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, cost_frame, shown_findings
from cxrscale.store.bits import pictures_by_bits


def cost_table(results: Results) -> PageTable:
    rows: list[list[Cell | str]] = []
    for (model, resolution), group in cost_frame(results).groupby(["model", "resolution_px"], sort=False):
        late = group[~group["converged"].astype(bool)]
        rows.append(
            [
                str(model), f"{resolution} px", number(group["seconds"].mean(), 1),
                number(group["images_per_second"].mean(), 1), number(group["peak_memory_mb"].mean(), 0),
                ", ".join(dict.fromkeys(group["device"].astype(str))),
                Cell(
                    f"{', '.join(map(str, group['best_epoch']))} of {', '.join(map(str, group['epochs'].unique()))}",
                    "not converged" if len(late) == len(group) else f"not converged: {len(late)}" if len(late) else "",
                ),
            ]
        )  # fmt: skip
    head = [
        "Model", "Resolution", "Training [s]", "Throughput [images/s]", "Peak memory [MiB]", "Device", "Best epoch",
    ]  # fmt: skip
    caption = (
        f"Cost of training one learner{averaged_over(results, intervals=False)}. Peak memory is that of the GPU, or "
        "on a CPU that of the process. Times compare only between learners that ran on the same device."
    )
    return PageTable(caption, head, rows)


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
        for finding in [f for f in shown_findings(results, settings) if f != MEAN]:
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


def protocol_table(settings: ReportSettings) -> PageTable:
    rows: list[list[Cell | str]] = [
        [str(name), shown(value), "as here" if value == default else shown(default)]
        for name, value, default in settings.settings
    ]
    marked = frozenset(i for i, (_, value, default) in enumerate(settings.settings) if value != default)
    return PageTable(
        f"The study's settings. {len(marked)} of {len(rows)} deviate from the default protocol; these are marked.",
        ["Setting", "This study", "Default protocol"], rows, marked,
    )  # fmt: skip


def shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "run from its checkout, not installed"


def provenance_tables(results: Results) -> list[PageTable]:
    rows: list[list[Cell | str]] = []
    made_with = []
    for learner, cost in zip(results.learners.itertuples(), results.costs, strict=True):
        identity = cost.get("identity", {})
        where = f"fold {learner.fold}, seed {learner.seed}"
        rows.append(
            [str(learner.model), f"{learner.resolution_px} px", where, str(identity.get("inputs", "not recorded"))]
        )
        made_with.append(shown(cost.get("versions", {})))
    packages = ("cxrscale", "numpy", "pandas", "matplotlib", "jinja2")
    here = ", ".join(
        [f"python: {platform.python_version()}", *(f"{name}: {installed_version(name)}" for name in packages)]
    )
    versions: list[list[Cell | str]] = [["learners", v] for v in dict.fromkeys(made_with)]
    return [
        PageTable("Versions.", ["Made by", "With"], [*versions, ["this report", here]]),
        PageTable(
            "Learners. The digest names code, targets, images and initial weights together: equal digests, equal "
            "inputs.",
            ["Model", "Resolution", "Learner", "Digest of code and data"],
            rows,
        ),
    ]
