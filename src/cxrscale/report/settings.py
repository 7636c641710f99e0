"""Settings of stage report."""

from dataclasses import dataclass
from typing import Annotated

from cxrscale.common.settings import Distinct, Section, Text, not_empty
from cxrscale.data.findings import Finding


@dataclass(frozen=True)
class ReportSection(Section):
    """report: the page."""

    title: Text = "Effect of image resolution on automated classification of chest X-rays"
    """of the page"""
    findings: (
        Annotated[
            list[Finding],
            Distinct,
            not_empty("so nothing would be shown; expected findings of the study, or null for all"),
        ]
        | None
    ) = None
    """null: all of the study"""
    patient_pictures: bool = False
    """true puts CAM panels and image ids into the shareable page; false: a separate local file"""
