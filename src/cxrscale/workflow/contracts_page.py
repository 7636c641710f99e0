"""Writes docs/contracts.md from the declarations: python -m cxrscale.workflow.contracts_page > docs/contracts.md"""

from cxrscale.combine.contracts import COEFFICIENTS, CONTROL, GAINS, STACKED, WEIGHTS
from cxrscale.common import tables
from cxrscale.common.notes import NOTES
from cxrscale.data.boxes import BOXES
from cxrscale.data.csv_files import IMAGES, LABELS
from cxrscale.data.findings import TARGETS
from cxrscale.evaluate.comparison import AVERAGES, DIFFERENCES, LEVELS, SUFFICIENT
from cxrscale.evaluate.metrics import METRICS
from cxrscale.evaluate.predictions import PREDICTIONS
from cxrscale.explain.field_effect import FIELD_EFFECT, FIELD_POINTS
from cxrscale.explain.field_size import FIELDS
from cxrscale.explain.localisation import LOCALISATION
from cxrscale.store.fidelity import PSNR, SUMMARY
from cxrscale.store.fingerprint import FINGERPRINT
from cxrscale.store.quarantine import QUARANTINE
from cxrscale.store.shards import MANIFEST
from cxrscale.store.shared import SHARED

#: Every table between stages, with where it lies.
TABLES = {
    "results/stores/<store>/images.parquet": IMAGES,
    "<dataset.root>/<cam.boxes>": BOXES,
    "results/<study>/labels.parquet": LABELS,
    "results/<study>/targets/fold<k>.parquet; in drawn/ as the csv files alone give them": TARGETS,
    "results/<study>/notes/*.csv, results/stores/<store>/notes.csv": NOTES,
    "results/stores/<store>/fingerprint.csv": FINGERPRINT,
    "results/stores/<store>/base/shared.csv": SHARED,
    "results/stores/<store>/<base or resolution>/manifest.parquet": MANIFEST,
    "results/stores/<store>/base/quarantine.csv": QUARANTINE,
    "results/stores/<store>/<base or resolution>/psnr.csv": PSNR,
    "results/stores/<store>/<base or resolution>/summary.csv": SUMMARY,
    "<learner>/predictions.parquet": PREDICTIONS,
    "<learner>/metrics.csv": METRICS,
    "<learner>/erf.csv": FIELDS,
    "<learner>/localisation.csv": LOCALISATION,
    "results/<study>/comparison/auroc.csv": LEVELS,
    "results/<study>/comparison/averages.csv": AVERAGES,
    "results/<study>/comparison/differences.csv": DIFFERENCES,
    "results/<study>/comparison/sufficient.csv": SUFFICIENT,
    "results/<study>/comparison/field_points.csv": FIELD_POINTS,
    "results/<study>/comparison/field_effect.csv": FIELD_EFFECT,
    "results/<study>/stacking/weights.csv": WEIGHTS,
    "results/<study>/stacking/coefficients.csv": COEFFICIENTS,
    "results/<study>/stacking/stacked.csv": STACKED,
    "results/<study>/stacking/gains.csv": GAINS,
    "results/<study>/stacking/control.csv": CONTROL,
}


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Contracts between stages",
        "",
        "Each stage reads the files of the stage before and nothing else. This page is written from the code",
        "(`python -m cxrscale.workflow.contracts_page`), and a table that breaks its declaration is refused when it is",
        "written and when it is read. `<learner>` is `results/<study>/learners/<model>/<resolution>px/fold<k>-seed<s>`;",
        "a column with `{finding}` stands once a finding.",
        "A csv holds null as an empty field.",
        "",
    ]
    for path, table in TABLES.items():
        title, rest = tables.describe([table]).split("\n", 1)
        lines += [title, "", f"`{path}`", rest]
    lines += [
        "## Files that are no tables",
        "",
        "| file | content |",
        "|---|---|",
        "| `<store>/<base or resolution>/shard-NNNNN.parquet` | `image_id`, `jpeg` (grey, 8 bits), `native_height_px`,"
        " `native_width_px`, `native_bits`, `native_path`, `native_bytes` (its size), `native_sha256`;"
        " uncompressed, plain encoding, 32 rows a row group, page checksums |",
        "| `<store>/base/sample/shard-NNNNN.parquet` | `image_id`, `native`: some native files, to measure PSNR |",
        "| `<learner>/weights.safetensors` | the state dict of the best epoch |",
        "| `<learner>/learner.json` | what is needed to use the weights: model, findings, resolution, seed, mean,"
        " standard deviation, precision, images left out, images of a group |",
        "| `<learner>/history.csv` | a row an epoch: losses, validation AUROC, learning rate, images/s, loader wait |",
        "| `<learner>/cost.json` | seconds, images/s, peak memory, device, best epoch, settings, versions |",
        "| `<learner>/erf.npz` |"
        " maps `random`, `pretrained`, `trained` of all channels, float32 (height_px, width_px), sum 1 |",
        "| `<learner>/cam.npz` | `finding`, `image_id`, `maps` (image, row, column), `pictures` (image, y, x) |",
        "| `<learner>/kept/`, `superseded/` | finished learners by digest, see reruns.md |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
