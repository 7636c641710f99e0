import pandas as pd
import pytest

from cxrscale.findings import CHEXPERT_FINDINGS, TARGETS, LabelPolicy, apply_policy, policies

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
