"""What a statement about resolutions speaks of, by how many seeds it was seen with."""

from cxrscale.common.tables import Column

LEARNERS = "these learners"

BETWEEN = "between"

RESOLUTION = "resolution"

SCOPE = Column("scope", "text", f"what it speaks of: {LEARNERS} (one seed), {BETWEEN} (two), {RESOLUTION} (more)")


def scope_of(n_seeds: int) -> str:
    """What a statement is about: with one seed these learners; with two the spread of training enters, but from a
    single difference; with three or more resolution, for this model, data set and way of training.
    """
    return LEARNERS if n_seeds < 2 else BETWEEN if n_seeds == 2 else RESOLUTION
