"""What weakens the numbers is named."""

from cxrscale.report.caveats import scope_sentence, warnings_of
from cxrscale.report.page import summary_lines


def test_notes_stand_first_and_name_no_patient_in_the_page_to_share(make_results, make_settings, make_pages):
    results = make_results()
    for allowed in (False, True):
        page, local = make_pages(results, make_settings(patient_pictures=allowed))
        said = "Ids: f.csv: subject_id is read in another spelling on 3 rows."
        assert page.index("Read first") < page.index(said) < page.index("The answer")
        assert "patient-9" not in page
        assert "patient-9" in local
    assert f"Note: {said}" in summary_lines(results, make_settings(), "report.html")
    nothing = results.having(notes=results["notes"].iloc[:0])
    assert "Read first" not in make_pages(nothing, make_settings())[0]


def test_the_scope_follows_the_seeds(make_results):
    said = [scope_sentence(make_results(seeds=range(n))) for n in (1, 2, 3)]
    assert "about these learners, not about resolution" in said[0]
    assert "in between" in said[1]
    assert "Verdicts are about resolution" in said[2]


def test_warnings_name_what_weakens_the_numbers(make_results, make_settings):
    results = make_results()
    late = results.costs.copy()
    late.loc[0, ["converged", "best_epoch"]] = [False, 2]
    merged = {0: results.targets[0].replace({"split": {"combine": "validate"}})}
    unfitted = results["scale_weights"].assign(reason="no positive image to fit on")
    changed = results.having(costs=late, targets=merged, scale_weights=unfitted)
    warned = " ".join(warnings_of(changed, make_settings()))
    for expected in (
        "m at 32 px, fold 0, seed 0: not converged",
        "fitted on validate",
        "One seed: verdicts are about these learners",
        "A, fold 0: stacking weights are equal, not fitted (no positive image to fit on)",
        "1 images could not be used",
    ):
        assert expected in warned
    several = " ".join(warnings_of(make_results(seeds=(0, 1, 2)), make_settings()))
    for absent in ("converged", "validate", "seed", "stacking"):
        assert absent not in several
