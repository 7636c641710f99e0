"""What predictions are worth: AUROC, intervals, comparison of resolutions."""
