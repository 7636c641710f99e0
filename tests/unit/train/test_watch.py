import pytest

from cxrscale.train.watch import Patience, Watch

NAMES = ("rank 0 on a", "rank 1 on b", "rank 2 on c")


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr("cxrscale.train.watch.time.monotonic", lambda: 0.0)
    return Watch(1, NAMES, None, Patience(1, 10, 30))


def hear(watch, *seconds_and_words):
    for now, words in seconds_and_words:
        watch._hear(words.split("; "), now)


def test_who_has_not_begun_the_message_that_others_wait_for_is_behind(watch):
    """Waiting begins when another has begun it, however long nobody had anything to say before."""
    hear(watch, (9, "1 0; 1 0; 1 0"), (1000, "2 0; 2 0; 2 0"), (1005, "3 1; 3 1; 3 0"), (1034, "4 1; 4 1; 4 0"))
    assert watch.missing(1030) is None
    assert watch.missing(1031).startswith("rank 2 on c: behind the others for 30 s, before message 1; ")
    hear(watch, (1032, "5 1; 5 1; 5 1"))
    assert watch.missing(1040) is None


def test_nobody_is_behind_where_all_have_begun_as_many(watch):
    """Though this process has heard nothing for longer than it has patience, being short of time itself."""
    watch.patience = Patience(1, 1000, 30)
    hear(watch, (9, "1 1; 1 1; 1 1"))
    assert watch.missing(100) is None


def test_who_says_nothing_is_silent(watch):
    hear(watch, (9, "1 0; 1 0; 1 0"), (19, "2 0; 2 0; 1 0"))
    assert watch.missing(19) is None
    assert watch.missing(20).startswith("rank 2 on c: silent for 10 s; ")


def test_where_the_store_is_away_its_keeper_is_silent(watch):
    hear(watch, (9, "1 0; 1 0; 1 0"))
    assert watch.missing(20).startswith("rank 0 on a: silent for 10 s; ")
