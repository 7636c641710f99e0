"""The tables of stage data."""

from cxrscale.common.tables import Column, Table

#: train fits the weights of a network, validate picks the epoch, combine fits what comes after training, test is looked
#: at once.
SPLITS = ("train", "validate", "combine", "test")

IMAGES = Table(
    name="images",
    file="{store}/images.parquet",
    made_by="`data.formats` (`read_images` of the data set's format)",
    row="an image that the data set names",
    columns=(
        Column("image_id", "text", "the image; MIMIC-CXR-JPG: dicom_id"),
        Column("subject_id", "text", "the patient"),
        Column("study_id", "text", "the examination, of one or more images"),
        Column("view", "text", "projection as the data set names it", null="not recorded"),
        Column("path", "text", "native file, relative to the data set's root, with forward slashes"),
        Column("native_height_px", "int32", "height that the data set states", null="not stated"),
        Column("native_width_px", "int32", "width that the data set states", null="not stated"),
        Column("official_split", "text", "train, validate or test, as published", null="none published"),
        Column("shard", "int32", "shard of the store, a hash of image_id"),
        Column("order", "int64", "place within the shard, ascending, a hash of image_id"),
    ),
    key=("image_id",),
)

LABELS = Table(
    name="labels",
    file="{study}/labels.parquet",
    made_by="`data.formats` (`read_labels` of the data set's format)",
    row="an image whose examination (study_id) has a label row",
    columns=(
        Column("image_id", "text", "the image"),
        Column("subject_id", "text", "the patient"),
        Column("study_id", "text", "the examination"),
        Column("source", "text", "whose labels the row holds, e.g. chexpert, negbio, radiologist, manifest"),
    ),
    key=("image_id",),
    per_finding=(
        Column(
            "label:{finding}",
            "int8",
            "raw label: 1 present, 0 absent, -1 uncertain",
            null="not mentioned",
        ),
    ),
)

#: The source of a label that a radiologist gave, in the column source of the labels.
RADIOLOGIST = "radiologist"

TARGETS = Table(
    name="targets",
    file="{study}/targets/fold{fold}.parquet",
    made_by="`data.splits.build_targets`, then `data.splits.keep_together`",
    shown=True,
    row="an image that a fold uses",
    columns=(
        Column("image_id", "text", "the image"),
        Column("subject_id", "text", "the patient; no patient is in two splits"),
        Column("study_id", "text", "the examination, of one or more images"),
        Column("view", "text", "projection as the data set names it", null="not recorded"),
        Column("split", "text", "train, validate, combine or test"),
    ),
    key=("image_id",),
    per_finding=(
        Column("target:{finding}", "int8", "1 present, 0 absent; 0 where the mask is 0"),
        Column("mask:{finding}", "int8", "1 the target counts, 0 it is ignored"),
    ),
)

SIDES = ("x_min", "y_min", "x_max", "y_max")

BOXES = Table(
    name="boxes",
    file="",
    row="a box around a finding in an image; a finding may have several",
    columns=(
        Column("image_id", "text", "the image"),
        Column("finding", "text", "the finding, as the study calls it"),
        Column("x_min", "float64", "left edge, pixels of the native file after EXIF orientation"),
        Column("y_min", "float64", "upper edge"),
        Column("x_max", "float64", "right edge, the first pixel outside"),
        Column("y_max", "float64", "lower edge, the first pixel outside"),
    ),
)
