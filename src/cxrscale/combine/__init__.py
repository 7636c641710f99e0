"""Stage combine: ensembles over resolutions, their scale weights, gains and control (docs/stacking.md)."""
