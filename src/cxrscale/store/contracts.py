"""The tables of stage store."""

from cxrscale.common.places import BASE, RESOLUTION_FOLDER
from cxrscale.common.tables import Column, Table

FINGERPRINT = Table(
    name="fingerprint",
    file="{store}/fingerprint.csv",
    made_by="`store.fingerprint.fingerprint`",
    row="a picture of the data set, chosen by the hash of its image_id",
    columns=(
        Column("image_id", "text", "the image"),
        Column("path", "text", "native file, relative to the data set's root"),
        Column("sha256", "text", "SHA-256 of the file's bytes", null="the file could not be read"),
    ),
    key=("image_id",),
)

INDEX = Table(
    name="index",
    file=f"{RESOLUTION_FOLDER}/index.parquet",
    made_by="`store.shards.index_shards`",
    shown=True,
    row="an image of the store at one resolution, in the order of the shards",
    columns=(
        Column("image_id", "text", "the image"),
        Column("shard", "int32", "number of the shard, and of its file"),
        Column("row_group", "int32", "row group within the shard"),
        Column("offset", "int64", "first byte of the JPEG in the shard's file"),
        Column("length", "int64", "bytes of the JPEG"),
        Column("native_height_px", "int32", "height of the native file after EXIF orientation"),
        Column("native_width_px", "int32", "width of the native file after EXIF orientation"),
        Column(
            "native_bits", "int32", "bits a sample that the native file's values fill; it was scaled to 8 bits by them"
        ),
        Column("scale_y", "float64", "rows of this resolution per native row; above 1 the image was enlarged"),
        Column("scale_x", "float64", "columns of this resolution per native column"),
        Column("native_px", "int32", "largest resolution at which this image is not enlarged"),
        Column("crc32", "int64", "CRC-32 of the JPEG's bytes, as zlib computes it"),
    ),
    key=("image_id",),
)

QUARANTINE = Table(
    name="quarantine",
    file=f"{{store}}/{BASE}/quarantine.csv",
    made_by="`store.shards.ingest_shard`",
    shown=True,
    row="an image that the data set names and the store leaves out",
    columns=(
        Column("image_id", "text", "the image"),
        Column("path", "text", "native file, relative to the data set's root"),
        Column("reason", "text", "why it cannot be used"),
    ),
    key=("image_id",),
)

SHARED = Table(
    name="shared",
    file=f"{{store}}/{BASE}/shared.csv",
    made_by="`store.shared.shared_pictures`",
    row="an image whose file another image has too, byte by byte",
    columns=(
        Column("image_id", "text", "the image"),
        Column("path", "text", "native file, relative to the data set's root"),
        Column("sha256", "text", "SHA-256 of the file, the same on each row of a group"),
    ),
    key=("image_id",),
)

PSNR = Table(
    name="psnr",
    file=f"{RESOLUTION_FOLDER}/psnr.csv",
    made_by="`store.fidelity.measure`",
    row="an image of the sample, at one resolution",
    columns=(
        Column("image_id", "text", "the image"),
        Column(
            "jpeg_db", "float64", "PSNR (dB, peak 255) against the same way from native without any JPEG", null="equal"
        ),
        Column(
            "direct_db", "float64", "PSNR (dB) against one step from native to this resolution, no JPEG", null="equal"
        ),
    ),
    key=("image_id",),
)

SUMMARY = Table(
    name="summary",
    file=f"{RESOLUTION_FOLDER}/summary.csv",
    made_by="`store.fidelity.summary_of`",
    shown=True,
    row="a resolution of the store",
    columns=(
        Column("resolution_px", "int32", "side of the images"),
        Column("images", "int64", "images that the store holds"),
        Column("bytes", "int64", "of their JPEGs"),
        Column("enlarged", "int64", "images that are smaller in their native file than in the store"),
        Column("sampled", "int64", "images that PSNR was measured on"),
        Column("jpeg_db", "float64", "mean of psnr.csv's jpeg_db", null="nothing sampled, or all equal"),
        Column("jpeg_db_least", "float64", "least of them", null="nothing sampled, or all equal"),
        Column("direct_db", "float64", "mean of psnr.csv's direct_db", null="nothing sampled, or all equal"),
        Column("direct_db_least", "float64", "least of them", null="nothing sampled, or all equal"),
    ),
    key=("resolution_px",),
)
