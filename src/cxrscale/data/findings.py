"""The names of findings: those that data sets label, and which a finding may not have."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.rows import SENTINELS
from cxrscale.common.settings import Check

#: In the order of MIMIC-CXR-JPG's label files (Johnson et al. 2019, arXiv:1901.07042).
CHEXPERT_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)


#: Names that mean something else where a finding's name may stand: columns of csv files and rows of results (`rows`).
#: Nor may a name begin with "(": so do most of the rows that stand for no finding, as "(mean)".
RESERVED_COLUMNS = ("image_id", "path", "split", "study_id", "subject_id", "view")
RESERVED_NAMES = tuple(sorted({*RESERVED_COLUMNS, *(row.casefold() for row in SENTINELS if not row.startswith("("))}))


def check_finding_name(name: str) -> str | None:
    """Why a finding may not have this name, with what to do; None if it may.

    The sentence names the name and no key: who asks puts the key, or the file and the column, before it.
    """
    if not name.strip():
        return f"{name!r} is blank; a finding needs a name"
    if name != name.strip():
        return f"{name!r} begins or ends with a blank; expected {name.strip()!r}"
    if not name.isprintable():
        return f"{name!r} holds a character that cannot be printed; remove it"
    if name.startswith("("):
        return f"{name!r} begins with a bracket, as rows do that stand for no finding; give the finding another name"
    if name.casefold() in RESERVED_NAMES:
        return f"{name!r} is a reserved name ({', '.join(RESERVED_NAMES)}); give the finding another one"
    return None


def _checked(value: str) -> str:
    if why := check_finding_name(value):
        raise ValueError(why)
    return value


#: The type of a setting that names a finding.
Finding = Annotated[str, Check(_checked)]


def check_named(named: Iterable[str], findings: Sequence[str], key: str) -> None:
    """Raise StudyError if a finding that a setting names is none of the study's. key: the setting."""
    for name in named:
        if name not in findings:
            hint = nearest(name, findings)
            raise StudyError(f"{key} names {name!r}{hint}, which is no finding of the study; it has {list(findings)}.")
