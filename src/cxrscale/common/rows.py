"""Names of rows that stand for no finding, no learner and no value, declared once; a finding may bear none of them."""

#: The mean over the findings that have a value.
MEAN = "(mean)"
#: All pairs of an image and a finding together, in the table of localisation.
ALL_FINDINGS = "(all)"
#: The network itself: all channels of the feature map together, as in the paper.
ALL_CHANNELS = "(all channels)"
#: The ensemble of the learners of all models.
ALL_LEARNERS = "(all learners)"
#: The control that does best on test among those of single resolutions.
STRONGEST = "(strongest)"
#: A group's value where the data set has none.
NOT_RECORDED = "(not recorded)"
#: All images (or examinations) of a split, beside its groups.
ALL_IMAGES = "all"
#: Boxes of every size.
ALL_SIZES = "all"

#: What the report calls the mean.
MEAN_LABEL = "Mean of all findings"

SENTINELS = (MEAN, ALL_FINDINGS, ALL_CHANNELS, ALL_LEARNERS, STRONGEST, NOT_RECORDED, ALL_IMAGES, ALL_SIZES, MEAN_LABEL)
