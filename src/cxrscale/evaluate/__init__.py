"""Stage evaluate: predictions, metrics with intervals, and the comparison of resolutions."""
