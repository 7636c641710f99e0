"""Writes docs/contracts.md from the declarations: python -m cxrscale.workflow.contracts_page > docs/contracts.md

No job imports this module: what it says, and how, is no part of any result.
"""

import re

from cxrscale.common.places import LEARNER_FOLDER, RESOLUTION_FOLDER
from cxrscale.common.records import Record
from cxrscale.common.tables import Table
from cxrscale.results import RECORDS, TABLES

HEAD = """# Contracts between stages

Each stage reads the files of the stage before and nothing else. This page is written from the code
(`python -m cxrscale.workflow.contracts_page`), and a table that breaks its declaration is refused when it is written
and when it is read. Each is read by its name: `Study.open("results/demo").table("auroc")` (`cxrscale.results`).
*Made by* names a module or function below `src/cxrscale/`, so that a number can be followed to its formula.
`<learner>` is `results/<study>/learners/<model>/<resolution>px/fold<k>-seed<s>`; a column with `{finding}` stands once
a finding. A csv holds null as an empty field. Records are small JSON files, refused alike; a dot in the name of a field
stands for a mapping within.
"""

FILES = """## Files that are no tables

| file | content |
|---|---|
| `<store>/<base or resolution>/shard-NNNNN.parquet` | `image_id`, `jpeg` (grey, 8 bits), `native_height_px`, \
`native_width_px`, `native_bits`, `native_path`, `native_bytes` (its size), `native_sha256`; uncompressed, plain \
encoding, 32 rows a row group, page checksums |
| `<store>/base/sample/shard-NNNNN.parquet` | `image_id`, `native`: some native files, to measure PSNR |
| `results/<study>/study.json` | where the study's results are: its store, learners, folds and resolutions |
| `results/<study>/targets/drawn/fold<k>.parquet` | `targets` as the csv files alone give them |
| `<learner>/weights.safetensors` | the network's state dict of the best epoch |
| `<learner>/erf.npz` | maps `random`, `pretrained`, `trained` of all channels, float32 (height_px, width_px), sum 1 |
| `<learner>/cam.npz` | `finding`, `image_id`, `maps` (image, row, column), `pictures` (image, y, x) |
| `<learner>/kept/`, `superseded/` | finished learners by digest, see reruns.md |"""


def place_of(pattern: str) -> str:
    """A pattern of `places` as a reader writes it."""
    pattern = pattern.replace(LEARNER_FOLDER, "<learner>").replace(RESOLUTION_FOLDER, "<store>/<base or resolution>")
    pattern = pattern.replace("{study}", "results/<study>").replace("<store>", "{store}")
    return re.sub(r"\{(\w+)\}", r"<\1>", pattern.replace("{store}", "results/stores/<store>"))


def described(table: Table) -> list[str]:
    """A table's declaration, line by line."""
    places = [f"`{place_of(pattern)}`" for pattern in table.files if pattern]
    lines = [f"## {table.name}", "", ", ".join(places) or "A csv file of one's own.", "", f"One row: {table.row}.", ""]
    if table.made_by:
        lines += [f"Made by {table.made_by}.", ""]
    if table.key:
        lines += [f"Unique by: {', '.join(table.key)}.", ""]
    lines += ["| column | type | meaning | null |", "|---|---|---|---|"]
    columns = [*table.columns, *table.per_finding]
    return [*lines, *(f"| `{c.name}` | {c.type} | {c.meaning} | {c.null or 'never'} |" for c in columns), ""]


def described_record(record: Record) -> list[str]:
    """A record's declaration, line by line."""
    lines = [f"## {record.name}", "", f"`{place_of(record.file)}`", "", f"A JSON file: {record.of}.", ""]
    lines += [f"Made by {record.made_by}.", ""] if record.made_by else []
    lines += ["| field | type | meaning | null |", "|---|---|---|---|"]
    return [*lines, *(f"| `{f.name}` | {f.type} | {f.meaning} | {f.null or 'never'} |" for f in record.fields), ""]


def page() -> str:
    """The page as Markdown."""
    declared = [described(table) for table in TABLES.values()] + [described_record(r) for r in RECORDS.values()]
    return "\n".join([HEAD, *(line for lines in declared for line in lines), FILES])


if __name__ == "__main__":
    print(page())
