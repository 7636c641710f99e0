"""What the data say of a finding, and how that is put."""

from cxrscale.report.cells import Cell
from cxrscale.report.sufficient import Answer, answer, answer_cell, answer_sentence


def test_answers_are_sorted_into_what_the_data_say(make_results, make_settings):
    results, settings = make_results(models=("m",)), make_settings()
    assert answer(results, settings, "m", "A") == Answer("A", "suffices", 32)
    assert answer(results, settings, "m", "B") == Answer("B", "needed", 64)
    undecided = results["differences"].assign(verdict="undecided")
    changed = results.having(differences=undecided)
    assert answer(changed, settings, "m", "B").kind == "undecided"
    assert answer_sentence([answer(changed, settings, "m", "B")], settings) == (
        "undecided whether less than 64 px, the reference, suffices: B."
    )
    at_chance = results.having(averages=results["averages"].assign(lower=0.5))
    assert answer(at_chance, settings, "m", "A").kind == "chance"
    gone = make_results(models=("m",), undefined=("A",))
    assert answer(gone, settings, "m", "A").reason == "AUROC is undefined in every fold: no positive image"
    single = make_results(models=("m",), resolutions=(64,))
    assert answer(single, settings, "m", "A").kind == "smallest"


def test_what_is_decided_of_a_finding_is_never_called_undecided(make_results, make_settings):
    results, settings = make_results(models=("m",), resolutions=(16, 32, 64)), make_settings()
    lowest = results["differences"]["resolution_px"] == 16
    verdicts = lowest.map({True: "worse than the reference", False: "undecided"})
    changed = results.having(
        differences=results["differences"].assign(verdict=verdicts),
        sufficient=results["sufficient"].assign(sufficient_px=64, beyond_px=None),
    )
    found = answer(changed, settings, "m", "A")
    assert found == Answer("A", "undecided", 64, worse=(16,))
    assert answer_cell(found, settings).note.endswith("nor all to be worse; worse: 16 px")
    assert answer_sentence([found], settings) == (
        "undecided whether less than 64 px, the reference, suffices: A (16 px is worse)."
    )


def test_the_answer_names_resolutions_that_would_be_enough_but_for_one_between(make_results, make_settings):
    results = make_results(models=("m",), resolutions=(16, 32, 64))
    changed = results["sufficient"].assign(sufficient_px=64, beyond_px="16")
    results = results.having(sufficient=changed)
    found = answer(results, make_settings(), "m", "A")
    assert (found.kind, found.px, found.beyond) == ("undecided", 64, (16,))
    assert answer_cell(found, make_settings()).note.endswith("16 px would be enough alone, but not one between")


def test_the_answer_names_resolutions_that_are_better_than_the_reference(make_results, make_settings):
    """Also where the reference itself is at chance, and where one between is not shown to be enough."""
    results, settings = make_results(models=("m",), resolutions=(16, 32, 64)), make_settings()
    lowest = results["differences"]["resolution_px"] == 16
    changed = results.having(
        differences=results["differences"].assign(verdict=lowest.map({True: "better below it", False: "undecided"})),
        sufficient=results["sufficient"].assign(sufficient_px=64, beyond_px="16"),
        averages=results["averages"].assign(lower=0.5),
    )
    found = answer(changed, settings, "m", "A")
    assert found == Answer("A", "better", 64, beyond=(16,), better=(16,))
    assert answer_cell(found, settings) == Cell(
        "64 px", "the reference; not every smaller one was shown to be enough; better than 64 px: 16 px"
    )
    assert answer_sentence([found], settings) == "16 px is better than 64 px, the reference, for A."
    enough = changed.having(sufficient=results["sufficient"].assign(sufficient_px=16))
    found = answer(enough, settings, "m", "A")
    assert (found.kind, found.px, found.better) == ("suffices", 16, (16,))
    assert answer_sentence([found], settings) == (
        "16 px suffices for A; 16 px is better than 64 px, the reference, for A."
    )
