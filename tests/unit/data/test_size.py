"""The number of images is that of the index, before it is made that of the csv file."""

import gzip

import pandas as pd

from cxrscale.data.formats import Chosen, manifest, named
from cxrscale.data.size import count_images

OWN, MIMIC = Chosen(manifest.Options(), "manifest", "same"), Chosen(None, "chexpert", "same")


def test_rows_of_the_manifest_until_there_is_an_index(tmp_path):
    (tmp_path / "manifest.csv").write_text("image_id,path\na,a.jpg\nb,b.jpg\n")
    index = tmp_path / "images.parquet"
    assert count_images(index, named("manifest"), tmp_path, OWN) == 2
    pd.DataFrame({"image_id": ["a", "b", "c"]}).to_parquet(index)
    assert count_images(index, named("manifest"), tmp_path, OWN) == 3


def test_zipped_csv_of_mimic(tmp_path):
    for name in ("metadata", "split", "chexpert"):
        with gzip.open(tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write("dicom_id,study_id\n1,1\n2,1\n3,2\n4,2\n")
    assert count_images(tmp_path / "images.parquet", named("mimic-cxr-jpg"), tmp_path, MIMIC) == 4
