"""Stage data: csv files of a data set, findings and label policies, splits by patient, boxes, synthetic data."""
