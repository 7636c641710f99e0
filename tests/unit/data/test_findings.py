import pandas as pd
import pytest

from cxrscale.data.contracts import TARGETS
from cxrscale.data.findings import CHEXPERT_FINDINGS, check_finding_name
from cxrscale.data.labels import apply_policy, policies
from cxrscale.data.settings import LabelPolicy

RAW = pd.Series([1, 0, -1, None], dtype="Int8")

#            uncertain  missing     target of 1, 0, -1, blank   mask
BY_HAND = [
    ("zeros", "negative", [1, 0, 0, 0], [1, 1, 1, 1]),
    ("ones", "negative", [1, 0, 1, 0], [1, 1, 1, 1]),
    ("ignore", "negative", [1, 0, 0, 0], [1, 1, 0, 1]),
    ("zeros", "ignore", [1, 0, 0, 0], [1, 1, 1, 0]),
    ("ones", "ignore", [1, 0, 1, 0], [1, 1, 1, 0]),
    ("ignore", "ignore", [1, 0, 0, 0], [1, 1, 0, 0]),
]


@pytest.mark.parametrize(("uncertain", "missing", "target", "mask"), BY_HAND)
def test_policies_by_hand(uncertain, missing, target, mask):
    got = apply_policy(RAW, LabelPolicy(uncertain, missing))
    assert [list(array) for array in got] == [target, mask]
    assert [array.dtype for array in got] == ["int8", "int8"]


def test_a_finding_may_have_a_policy_of_its_own():
    own, default = LabelPolicy("ones"), LabelPolicy()
    assert policies(["Edema", "Fracture"], default, {"Edema": own}) == {"Edema": own, "Fracture": default}


def test_findings_are_fourteen_and_targets_name_them_back():
    assert len(set(CHEXPERT_FINDINGS)) == 14
    names = [c.name for c in TARGETS.expanded(CHEXPERT_FINDINGS)]
    assert len(names) == 5 + 2 * 14
    assert TARGETS.findings(names) == list(CHEXPERT_FINDINGS)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("(mean)", "begins with a bracket"),
        ("(Edema)", "begins with a bracket"),
        ("view", "is a reserved name"),
        ("Split", "is a reserved name"),
        ("ALL", "is a reserved name"),
        ("Mean of all findings", "is a reserved name"),
        ("", "is blank"),
        (" \t", "is blank"),
        (" Edema", "expected 'Edema'"),
        ("Edema\u00a0", "expected 'Edema'"),
        ("Ede\nma", "cannot be printed"),
    ],
)
def test_names_that_mean_something_else_are_refused(name, why):
    reason = check_finding_name(name)
    assert reason is not None
    assert reason.startswith(repr(name))
    assert why in reason


def test_every_name_of_a_row_that_is_no_finding_is_reserved():
    """What stands in a column of findings, of ensembles or of groups beside the findings themselves."""
    from cxrscale.common import rows
    from cxrscale.data.formats import manifest

    declared = [value for name, value in vars(rows).items() if name.isupper() and isinstance(value, str)]
    assert sorted(set(declared)) == sorted(set(rows.SENTINELS))
    columns = [*manifest.COLUMNS, *(c.name for c in TARGETS.columns)]
    assert [name for name in [*declared, *columns] if check_finding_name(name) is None] == []


def test_known_findings_and_those_of_other_languages_may_be_named():
    assert [check_finding_name(name) for name in (*CHEXPERT_FINDINGS, "COVID-19", "Viewing", "Пневмония")] == [
        None
    ] * 17
