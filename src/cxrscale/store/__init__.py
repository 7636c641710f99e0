"""The image store: sharded Parquet files of grey JPEGs, one folder a resolution, all made from the base."""
