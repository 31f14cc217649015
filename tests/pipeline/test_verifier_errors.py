"""How often a check errs: counted by hand, with Wilson's intervals, and what "Inference Scaling FLaws" makes of it."""

import pytest

from pipeline import verifier_errors
from pipeline.verifier_errors import Errors, Rate

LABELLED = [("CORRECT", True)] * 6 + [("CORRECT", False)] * 2 + [("WRONG", False)] * 7 + [("PARTIAL", True)] * 1
LABELLED += [("UNPARSABLE", False)] * 1 + [("TIMEOUT", True)] * 3 + [("INFRA_ERROR", False)] * 4


def counted(pairs):
    errors = Errors()
    for outcome, right in pairs:
        errors.add(outcome, right)
    return errors


def test_wrong_answers_accepted_and_right_ones_rejected_are_shares_of_the_wrong_and_of_the_right():
    errors = counted(LABELLED)
    assert errors.false_positive_rate == Rate(2, 10)
    assert errors.false_negative_rate == Rate(1, 7)
    assert (errors.decided, errors.accepted) == (17, Rate(8, 17))


def test_a_timeout_and_the_checkers_own_failure_are_apart_and_in_no_rate():
    errors = counted(LABELLED)
    assert errors.apart == {"TIMEOUT": 3, "INFRA_ERROR": 4}
    assert errors.false_positive_rate == counted(LABELLED[:17]).false_positive_rate


def test_the_interval_is_wilsons():
    assert Rate(45, 60).interval() == (pytest.approx(0.6277, abs=1e-4), pytest.approx(0.8422, abs=1e-4))
    # z^2 / (n + z^2) with z^2 = 3.84146: the upper end of 0 of 10, and its mirror.
    assert Rate(0, 10).interval() == (0.0, pytest.approx(3.84146 / 13.84146, abs=1e-5))
    assert Rate(10, 10).interval() == (pytest.approx(10 / 13.84146, abs=1e-5), 1.0)


def test_a_rate_of_nothing_is_unknown():
    assert Rate(0, 0).value is None
    assert Rate(0, 0).interval() == (0.0, 1.0)


@pytest.mark.parametrize(
    ("outcome", "hidden", "said"),
    [
        ("CORRECT", "CORRECT", "true_positive"),
        ("CORRECT", "PARTIAL", "false_positive"),
        ("VIOLATION", "WRONG", "true_negative"),
        ("UNPARSABLE", "CORRECT", "false_negative"),
        ("CORRECT", "INFRA_ERROR", "apart"),
        ("TIMEOUT", "CORRECT", "apart"),
    ],
)
def test_a_verdict_beside_the_stronger_checks(outcome, hidden, said):
    assert verifier_errors.second_look(outcome, hidden) == said


def test_ten_tries_against_a_check_with_five_percent_false_positives_as_the_paper_has_it():
    assert verifier_errors.right_of_accepted(0.3, f=0.05, m=0.0) == pytest.approx(0.89552, abs=1e-5)
    found = verifier_errors.after(10, 0.3, f=0.05, m=0.0)
    assert found == pytest.approx((0.88038, 0.10271, 0.01691), abs=1e-5)
    assert sum(found) == pytest.approx(1)


def test_the_share_of_right_answers_among_accepted_ones_does_not_depend_on_the_number_of_tries():
    for tries in (1, 3, 50):
        right, wrong, _ = verifier_errors.after(tries, 0.2, f=0.1, m=0.3)
        assert right / (right + wrong) == pytest.approx(verifier_errors.right_of_accepted(0.2, f=0.1, m=0.3))


def test_the_true_pass_rate_undoes_the_apparent_one():
    seen = verifier_errors.apparent(0.4, f=0.1, m=0.2)
    assert seen == pytest.approx(0.8 * 0.4 + 0.1 * 0.6)
    assert verifier_errors.true_pass_rate(seen, f=0.1, m=0.2) == pytest.approx(0.4)


def test_a_check_that_accepts_less_than_its_false_positives_alone_would_has_seen_nothing_right():
    assert verifier_errors.true_pass_rate(0.02, f=0.05, m=0.0) == 0
    assert verifier_errors.true_pass_rate(0.3, f=0.4, m=0.6) is None
    assert verifier_errors.after(10, 0.0, f=0.0, m=0.0) == (0.0, 0.0, 1.0)
