"""The report says how often a check errs, what that bounds, and whether the reward rises without the hidden check."""

from collections import Counter

import pytest

from pipeline.report import RunData, render
from pipeline.report.data import Looked
from pipeline.report.second_looks import bound, second_looks
from pipeline.verifier_errors import Errors


def looked(outcome, hidden, count):
    return [Looked("regex", outcome, "exact", hidden)] * count


HONEST = looked("CORRECT", "CORRECT", 30) + looked("WRONG", "WRONG", 95) + looked("CORRECT", "WRONG", 5)
HONEST += looked("TIMEOUT", "CORRECT", 2) + looked("CORRECT", "INFRA_ERROR", 1)
SPREAD = [one for n in range(130) for one in [HONEST[n * 37 % 130]]] + HONEST[130:]
VERDICTS = {"regex": Counter(CORRECT=335, WRONG=665, INFRA_ERROR=50)}


def test_nothing_is_said_where_nothing_was_looked_at():
    assert second_looks(RunData({})) is None
    assert "How often the check errs" not in render(RunData({"run": "r"}))


def test_rates_are_of_what_both_decided():
    (row,) = second_looks(RunData({}, verdicts=VERDICTS, looked=SPREAD)).checks
    assert (row.check, row.hidden, row.apart) == ("regex", "exact", 3)
    assert row.false_positives.startswith("5.0% (")
    assert row.false_positives.endswith("5 of 100")
    assert row.false_negatives.startswith("0.0% (0.0% to 11.4%), 0 of 30")


def test_what_the_rates_bound_is_the_papers_number():
    errors = Errors(true_positives=30, false_positives=5, true_negatives=95)
    said = bound(errors, VERDICTS["regex"])
    # 0.335 = 0.3 + 0.05 * 0.7; 0.3 / 0.335 = 0.8955; ten tries: 0.88038 and 0.10271.
    assert "accepts 33.5% of all answers, which makes 30.0% right" in said
    assert "Of accepted answers 89.6% are right" in said
    assert "within 10 tries a right one is accepted with probability 0.88, a wrong one with 0.10" in said


@pytest.mark.parametrize("errors", [Errors(true_positives=3), Errors(true_negatives=3), Errors()])
def test_an_unknown_rate_bounds_nothing(errors):
    assert bound(errors, VERDICTS["regex"]) == ""


def test_a_check_no_better_than_a_coin_is_called_that():
    errors = Errors(true_positives=5, false_negatives=5, true_negatives=5, false_positives=5)
    assert "says nothing of how many are right" in bound(errors, VERDICTS["regex"])


def test_a_gamed_reward_is_said_and_marked():
    first = looked("CORRECT", "CORRECT", 50) + looked("WRONG", "WRONG", 50)
    newest = looked("CORRECT", "CORRECT", 50) + looked("CORRECT", "WRONG", 40) + looked("WRONG", "WRONG", 10)
    run = RunData({"run": "r"}, verdicts=VERDICTS, looked=first * 3 + newest)
    assert second_looks(run).alarm
    page = render(run)
    assert "does not keep up with it: from the first to the last quarter" in page
    assert "changed by +40.0% (standard error 6.0%), that of the hidden check by +0.0%" in page
    assert "here 6.7" in page
    assert "reward without the hidden check" in page
    assert "<h2>Reward and hidden check" in page


def test_an_honest_run_and_a_short_one_are_no_alarm():
    honest = second_looks(RunData({}, verdicts=VERDICTS, looked=SPREAD))
    assert not honest.alarm
    assert honest.drift.startswith("No sign of a gamed reward")
    short = second_looks(RunData({}, verdicts=VERDICTS, looked=HONEST[:79]))
    assert not short.alarm
    assert "cannot be told from 79 second looks" in short.drift
