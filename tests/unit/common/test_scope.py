from cxrscale.common.scope import scope_of


def test_scope_follows_the_seeds():
    assert [scope_of(n) for n in (1, 2, 3, 5)] == ["these learners", "between", "resolution", "resolution"]
