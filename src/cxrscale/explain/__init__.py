"""Stage explain: effective receptive fields, activation maps, and maps against boxes."""
