"""The tables of stage explain."""

from cxrscale.common.places import LEARNER_FOLDER
from cxrscale.common.rows import ALL_CHANNELS, ALL_FINDINGS, ALL_SIZES
from cxrscale.common.tables import Column, Table

RADII = (0.50, 0.95)

SQUARES = (0.20, 0.30, 0.50, 0.99)


#: The lengths of ERF, each in pixels and as a fraction of the side.
LENGTHS = ("sigma", *(f"radius{r * 100:.0f}" for r in RADII), *(f"square{s * 100:.0f}" for s in SQUARES))
UNITS = ("px", "fraction")
_MEANINGS = {
    "px": "pixels of the input",
    "fraction": "as a fraction of the side",
    "sigma": "standard deviation of an isotropic Gaussian of the same second moments about the centroid",
    **{f"radius{r * 100:.0f}": f"radius about the centroid with {r:.0%} of it" for r in RADII},
    **{f"square{s * 100:.0f}": f"smallest centred square with {s:.0%} of the contribution" for s in SQUARES},
}

ERF = Table(
    name="erf",
    file=f"{LEARNER_FOLDER}/erf.csv",
    made_by="`explain.field_size.field_rows`; the maps by `explain.receptive_field.receptive_fields`",
    shown=True,
    row="the effective receptive field of a learner in one state, for all channels or for the evidence of a finding",
    columns=(
        Column(
            "state",
            "text",
            "random (weights), pretrained (where the model has initial weights) or trained; batch statistics of the "
            "first two are those of the images",
        ),
        Column("finding", "text", f"whose evidence at the centre; {ALL_CHANNELS}: the sum over channels"),
        *(
            Column(f"{name}_{unit}", "float64", f"{_MEANINGS[name]}, {_MEANINGS[unit]}", null="undefined, see reason")
            for name in LENGTHS
            for unit in UNITS
        ),
        Column(
            "edge_ratio",
            "float64",
            "energy per pixel in the outermost 1/16 of the side over that of the whole map; 0: nothing is cut off, "
            "1: as at the border everywhere",
            null="undefined, see reason",
        ),
        Column(
            "cut_share",
            "float64",
            "energy beyond the border, as a share of all, if the map were a Gaussian about the picture's middle that "
            "has within the picture the spread measured; 1: as wide as an even map",
            null="undefined, see reason",
        ),
        Column("centroid_x_px", "float64", "centroid, pixels from the left edge", null="undefined, see reason"),
        Column("centroid_y_px", "float64", "centroid, pixels from the upper edge", null="undefined, see reason"),
        Column("n_images", "int64", "images averaged over"),
        Column("reason", "text", "why values are empty", null="nothing is empty"),
    ),
    key=("state", "finding"),
)  # fmt: skip

FIELD_POINTS = Table(
    name="field_points",
    file="{study}/comparison/field_points.csv",
    made_by="`explain.field_effect.field_points`",
    shown=True,
    row="a finding of a model",
    columns=(
        Column("model", "text", "timm name"),
        Column("finding", "text", "the finding"),
        Column("reference_px", "int32", "the resolution whose learners' fields these are"),
        Column("lowest_px", "int32", "the model's lowest resolution"),
        Column(
            "field_fraction",
            "float64",
            "sigma of the field of the finding's evidence in the trained learner, a fraction of the side, averaged "
            "over folds and seeds",
            null="undefined, see reason",
        ),
        Column(
            "preference",
            "float64",
            "AUROC at lowest_px minus AUROC at reference_px: above 0, low resolution is better",
            null="undefined, see reason",
        ),
        Column("n_fields", "int32", "learners averaged over"),
        Column("reason", "text", "why a value is empty", null="nothing is empty"),
    ),
    key=("model", "finding"),
)

FIELD_EFFECT = Table(
    name="field_effect",
    file="{study}/comparison/field_effect.csv",
    made_by="`explain.field_effect.field_effect`",
    shown=True,
    row="a model: whether wide fields go with a preference for low resolution, over findings",
    columns=(
        Column("model", "text", "timm name"),
        Column(
            "spearman",
            "float64",
            "rank correlation of field_fraction and preference; the claim says it is positive",
            null="undefined, see reason",
        ),
        Column("lower", "float64", "lower end of its interval, findings drawn anew", null="undefined, see reason"),
        Column("upper", "float64", "upper end of its interval", null="undefined, see reason"),
        Column(
            "p",
            "float64",
            "two-sided, by permutation of findings: all orders of up to 8 findings, else 9,999 or as many as "
            "replicates drawn at random",
            null="undefined, see reason",
        ),
        Column("n_findings", "int32", "findings with a field and a preference"),
        Column("reason", "text", "why a value is empty", null="nothing is empty"),
    ),
    key=("model",),
)

SIZES = ("small", "medium", "large")

MEASURES = ("hit", "energy", "iou")

LOCALISATION = Table(
    name="localisation",
    file=f"{LEARNER_FOLDER}/localisation.csv",
    made_by="`explain.localisation.summarise`; the maps by `explain.cam.maps_of_pairs`",
    shown=True,
    row="how well a learner's maps of test images fall into boxes, by one measure",
    columns=(
        Column("finding", "text", f"the finding; {ALL_FINDINGS}: all pairs of image and finding"),
        Column("size", "text", f"share of the picture in boxes: small, medium, large (cam.box_sizes) or {ALL_SIZES}"),
        Column(
            "measure",
            "text",
            "hit: the largest value lies in a box; energy: share of the positive values in boxes; iou: overlap of "
            "what is above the threshold with the boxes",
        ),
        Column("value", "float64", "mean over maps, 0 to 1", null="undefined, see reason"),
        Column("lower", "float64", "lower end of the interval, patients as clusters", null="undefined, see reason"),
        Column("upper", "float64", "upper end of the interval", null="undefined, see reason"),
        Column("best", "float64", "the same of the best map on the learner's own grid", null="undefined, see reason"),
        Column(
            "blind",
            "float64",
            "the same of one map for all images of a finding: the mean of its boxes in combine",
            null="undefined: the finding has no box in combine",
        ),
        Column("chance", "float64", "the same of an even map: the share in boxes", null="undefined, see reason"),
        Column("threshold", "float64", "of iou, as a share of the map's largest value", null="not iou, or undefined"),
        Column("n_maps", "int64", "maps: pairs of an image and a finding"),
        Column("n_patients", "int64", "patients they belong to"),
        Column("n_against", "int64", "maps without a positive value; their energy and iou count as 0"),
        Column("reason", "text", "why a value is empty", null="nothing is empty"),
    ),
    key=("finding", "size", "measure"),
)  # fmt: skip
