"""Ground floor: what every stage stands on (tables, whole files, errors, provenance, jobs); knows no stage."""
