"""A stronger check sees a share of the rollouts: the same ones everywhere, on the verdict, counted, no reward."""

import hashlib
import random

import pytest

from pipeline.errors import UserError
from pipeline.metrics import Meter
from services.verification.checker import Checker, Question
from services.verification.handler import VerificationHandler
from services.verification.pool import Pool
from services.verification.second_look import SecondLook, SecondLooks
from sluice.v1 import prompt_pb2, rollout_pb2

Outcome = rollout_pb2.VerdictOutcome


@pytest.fixture(scope="module")
def pool():
    pool = Pool(workers=1)
    yield pool
    pool.close()


def prompt(**fields):
    """A check that accepts whatever holds a 4; the answer is 42."""
    check = prompt_pb2.CheckSpec(check="regex", answer=".*4.*")
    return prompt_pb2.Prompt(prompt_id="p", check=check, hidden=prompt_pb2.CheckSpec(answer="42", **fields))


def rollout(text, number=0, **fields):
    key = rollout_pb2.RolloutKey(request_id=f"r{number}", index=0, attempt=1)
    given = {
        "key": key,
        "sha256": hashlib.sha256(str(number).encode()).digest(),
        "prompt_id": "p",
        "calls": [rollout_pb2.Call(tokens=[1], text=text)],
        "ending": rollout_pb2.ENDING_STOP,
        "purpose": prompt_pb2.PURPOSE_TRAIN,
    }
    return rollout_pb2.Rollout(**(given | fields))


def handler(pool, look, known=None, told=None):
    told = [] if told is None else told
    return VerificationHandler(
        Checker(pool), {"p": known or prompt()}.get, second_look=look, on_second_look=told.append
    )


EXACT = SecondLook(1.0, "exact")


def test_the_same_rollouts_are_looked_at_in_any_order_and_by_any_worker():
    keys = [rollout_pb2.RolloutKey(request_id=f"r{n // 4}", index=n % 4, attempt=1) for n in range(4000)]
    look = SecondLook(0.05, "exact", seed=7)
    chosen = [look.chosen(key) for key in keys]
    shuffled = list(enumerate(keys))
    random.Random(1).shuffle(shuffled)
    assert all(SecondLook(0.05, "math", seed=7).chosen(key) == chosen[place] for place, key in shuffled)
    assert 150 < sum(chosen) < 250
    assert [SecondLook(0.05, "exact", seed=8).chosen(key) for key in keys] != chosen


def test_a_larger_share_looks_at_the_same_ones_and_more():
    keys = [rollout_pb2.RolloutKey(request_id=f"r{n}") for n in range(500)]
    few, many = ({n for n, key in enumerate(keys) if SecondLook(share, "exact").chosen(key)} for share in (0.1, 0.4))
    assert few < many
    assert not any(SecondLook(0.0, "exact").chosen(key) for key in keys)
    assert all(SecondLook(1.0, "exact").chosen(key) for key in keys)


def test_what_the_stronger_check_says_is_on_the_verdict_and_changes_nothing_else_of_it(pool):
    answers = [rollout("42", 0), rollout("14", 1), rollout("7", 2)]
    seen = handler(pool, EXACT)(answers).verdicts
    alone = handler(pool, None)(answers).verdicts
    assert [one.outcome for one in seen] == [Outcome.VERDICT_OUTCOME_CORRECT] * 2 + [Outcome.VERDICT_OUTCOME_WRONG]
    assert [one.hidden_outcome for one in seen] == [
        Outcome.VERDICT_OUTCOME_CORRECT,
        Outcome.VERDICT_OUTCOME_WRONG,
        Outcome.VERDICT_OUTCOME_WRONG,
    ]
    assert {one.hidden_checker for one in seen} == {"exact"}
    assert "14" in seen[1].hidden_evidence
    for one, other in zip(seen, alone, strict=True):
        for name in ("hidden_outcome", "hidden_checker", "hidden_evidence"):
            one.ClearField(name)
        one.wall_s = other.wall_s = one.cpu_s = other.cpu_s = 0
        assert one == other


def test_only_the_chosen_share_is_looked_at(pool):
    look = SecondLook(0.3, "exact")
    answers = [rollout("42", n) for n in range(60)]
    seen = handler(pool, look)(answers).verdicts
    assert [bool(one.hidden_checker) for one in seen] == [look.chosen(one.key) for one in answers]
    assert 5 < sum(bool(one.hidden_outcome) for one in seen) < 35


def test_a_prompts_own_hidden_spec_comes_before_the_runs_and_that_before_the_first_checks():
    first = prompt_pb2.CheckSpec(check="length", answer="a", spec_json='{"low": 1}')
    look = SecondLook(1.0, "exact", '{"case": "fold"}', '{"low": 2}')

    def asked(look, **hidden):
        told = prompt_pb2.Prompt(prompt_id="p", check=first, hidden=prompt_pb2.CheckSpec(**hidden))
        found = look.question(Question("text", first), told)
        return found.spec.check, found.spec.answer, found.spec.spec_json, found.knobs_json

    assert asked(SecondLook(1.0, "exact")) == ("exact", "a", '{"low": 1}', "{}")
    assert asked(look) == ("exact", "a", '{"low": 2}', '{"case": "fold"}')
    assert asked(look, answer="b", spec_json="{}") == ("exact", "b", "{}", '{"case": "fold"}')
    assert asked(look, check="math") == ("math", "a", '{"low": 2}', "")


def test_the_stronger_check_has_its_own_knobs_also_where_it_is_the_same_check(pool):
    known = prompt_pb2.Prompt(prompt_id="p", check=prompt_pb2.CheckSpec(check="exact", answer="a"))
    (verdict,) = handler(pool, SecondLook(1.0, "exact", '{"case": "fold"}'), known)([rollout("A")]).verdicts
    assert verdict.outcome == Outcome.VERDICT_OUTCOME_WRONG
    assert verdict.hidden_outcome == Outcome.VERDICT_OUTCOME_CORRECT


def test_a_second_look_that_fails_is_no_retry_and_no_verdict_of_the_first(pool):
    done = handler(pool, SecondLook(1.0, "length", spec_json='{"odd": 1}'))([rollout("42")])
    (verdict,) = done.verdicts
    assert (verdict.outcome, done.retries) == (Outcome.VERDICT_OUTCOME_CORRECT, [])
    assert verdict.hidden_outcome == Outcome.VERDICT_OUTCOME_INFRA_ERROR


def test_a_stronger_check_that_cannot_be_is_refused_at_once():
    with pytest.raises(UserError, match="accepted"):
        SecondLook(0.1, "exact", '{"case": "odd"}')
    with pytest.raises(UserError, match="accepted"):
        SecondLook(0.1, "exakt")


def test_what_was_never_checked_is_not_looked_at(pool):
    told = []
    (verdict,) = handler(pool, EXACT, told=told)([rollout("", ending=rollout_pb2.ENDING_FAILED)]).verdicts
    assert (verdict.outcome, verdict.hidden_outcome, told) == (Outcome.VERDICT_OUTCOME_NOT_RUN, 0, [])


def test_second_looks_are_counted_by_check_and_the_alarms_number_is_that_of_the_formula(pool):
    meter = Meter("verification", "w")
    count = SecondLooks(meter, window=100)
    said = [("42", 50), ("7", 50), ("42", 50), ("14", 40), ("7", 10)]
    texts = [text for text, number in said for _ in range(number)]
    for verdict in handler(pool, EXACT)([rollout(text, n) for n, text in enumerate(texts)]).verdicts:
        count(verdict)
    values = meter.values()
    counted = {
        found: values[f'sluice_verification_second_looks_total{{check="regex",found="{found}"}}']
        for found in ("true_positive", "false_positive", "true_negative", "false_negative", "apart")
    }
    assert list(counted.values()) == [100, 40, 60, 0, 0]
    assert values["sluice_verification_reward_drift_sigmas"] == pytest.approx(0.4 / 0.06)


def test_what_says_nothing_and_evaluations_are_no_part_of_the_alarm():
    meter = Meter("verification", "w")
    count = SecondLooks(meter, window=20)
    right, none = Outcome.VERDICT_OUTCOME_CORRECT, Outcome.VERDICT_OUTCOME_TIMEOUT
    for purpose, hidden in ((prompt_pb2.PURPOSE_EVALUATE, right), (prompt_pb2.PURPOSE_TRAIN, none)):
        for _ in range(100):
            count(rollout_pb2.Verdict(checker="c", outcome=right, hidden_outcome=hidden, purpose=purpose))
    values = meter.values()
    assert "sluice_verification_reward_drift_sigmas" not in values
    assert values['sluice_verification_second_looks_total{check="c",found="apart"}'] == 100
