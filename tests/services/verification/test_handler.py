import hashlib
import json
import time

import pytest

from services.verification.checker import Checker, Question, Remembered
from services.verification.finding import correct, infra_error, timeout
from services.verification.handler import VerificationHandler
from services.verification.pool import Pool
from sluice.v1 import prompt_pb2, rollout_pb2


@pytest.fixture(scope="module")
def pool():
    pool = Pool(workers=2)
    yield pool
    pool.close()


def prompt(name="p", check="exact", answer="42", **spec):
    return prompt_pb2.Prompt(
        prompt_id=name,
        digest=hashlib.sha256(name.encode()).digest(),
        check=prompt_pb2.CheckSpec(check=check, answer=answer, **spec),
        domain="math",
        family="sums",
    )


def rollout(text="42", name="p", index=0, versions=(3, 5), **fields):
    spans = [rollout_pb2.Span(first_token=at, version=version) for at, version in enumerate(versions)]
    call = rollout_pb2.Call(tokens=[1, 2, 3], text=text, spans=spans)
    given = {
        "key": rollout_pb2.RolloutKey(request_id="r", index=index, attempt=1),
        "sha256": hashlib.sha256(f"{text}{index}".encode()).digest(),
        "prompt_id": name,
        "prompt_digest": hashlib.sha256(name.encode()).digest(),
        "group_id": "g",
        "calls": [call],
        "ending": rollout_pb2.ENDING_STOP,
        "purpose": prompt_pb2.PURPOSE_TRAIN,
    }
    return rollout_pb2.Rollout(**(given | fields))


def handler(pool, *prompts, **knobs):
    known = {one.prompt_id: one for one in prompts}
    return VerificationHandler(Checker(pool, knobs.pop("checks", {})), known.get, **knobs)


def test_a_verdict_carries_what_it_is_about(pool):
    (verdict,) = handler(pool, prompt())([rollout()]).verdicts
    assert verdict.outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT
    assert verdict.accuracy == 1
    assert verdict.key == rollout().key
    assert verdict.rollout_sha256 == rollout().sha256
    assert (verdict.prompt_id, verdict.group_id) == ("p", "g")
    assert (verdict.min_version, verdict.max_version, verdict.tokens) == (3, 5, 3)
    assert (verdict.domain, verdict.family, verdict.purpose) == ("math", "sums", prompt_pb2.PURPOSE_TRAIN)
    assert (verdict.checker, verdict.checker_version, verdict.attempt) == ("exact", "1", 1)


def test_verdicts_come_in_the_order_of_the_rollouts_whichever_way_they_were_checked(pool):
    entry = {"question": "?", "answer": "ba", "metadata": {}}
    spell = prompt("s", "reasoning_gym", spec_json=json.dumps({"dataset": "spell_backward", "entry": entry}))
    texts = [("42", "p"), ("ba", "s"), ("x", "p"), ("ab", "s"), ("42", "p")]
    done = handler(pool, prompt(), spell)([rollout(text, name, at) for at, (text, name) in enumerate(texts)])
    assert [verdict.key.index for verdict in done.verdicts] == [0, 1, 2, 3, 4]
    assert [verdict.accuracy for verdict in done.verdicts] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("ending", "reason", "said"),
    [
        (rollout_pb2.ENDING_EXPIRED, "", "expired"),
        (rollout_pb2.ENDING_FAILED, "context_too_long", "context_too_long"),
        (rollout_pb2.ENDING_ABORTED, "drain", "drain"),
    ],
)
def test_a_rollout_that_ended_without_an_answer_is_not_run(pool, ending, reason, said):
    (verdict,) = handler(pool)([rollout(ending=ending, reason=reason)]).verdicts
    assert verdict.outcome == rollout_pb2.VERDICT_OUTCOME_NOT_RUN
    assert (verdict.reason, verdict.checker, verdict.accuracy) == (said, "", 0)


def test_an_unknown_prompt_is_tried_again_and_then_is_our_failure(pool):
    handle = handler(pool, attempts=3)
    for _ in range(2):
        done = handle([rollout()])
        assert (done.verdicts, [reason for _, reason in done.retries]) == ([], ["unknown_prompt"])
    (verdict,) = handle([rollout()]).verdicts
    assert verdict.outcome == rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR
    assert (verdict.reason, verdict.attempt) == ("unknown_prompt", 3)


def test_a_prompt_that_arrives_late_is_found_at_the_next_try(pool):
    known = {}
    handle = VerificationHandler(Checker(pool), known.get)
    assert handle([rollout()]).retries
    known["p"] = prompt()
    (verdict,) = handle([rollout()]).verdicts
    assert (verdict.accuracy, verdict.attempt) == (1, 2)


def test_the_caller_may_say_which_try_it_is(pool):
    assert not handler(pool, attempts=3)([rollout()], tries=[3]).retries


def test_a_rollout_of_another_digest_is_never_checked(pool):
    (verdict,) = handler(pool, prompt())([rollout(prompt_digest=b"other")]).verdicts
    assert (verdict.outcome, verdict.reason) == (rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, "prompt_changed")


def test_an_unknown_check_is_our_failure_and_names_the_known_ones(pool):
    (verdict,) = handler(pool, prompt(check="no_such"))([rollout()]).verdicts
    assert (verdict.outcome, verdict.reason) == (rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, "bad_spec")
    assert "exact" in verdict.evidence


def test_every_verdict_is_told_to_whoever_counts(pool):
    told = []
    handle = handler(pool, prompt(), on_verdict=lambda outcome, check, wall_s: told.append((outcome, check)))
    handle([rollout("42"), rollout("x", index=1), rollout(ending=rollout_pb2.ENDING_EXPIRED, index=2)])
    assert told == [("CORRECT", "exact"), ("WRONG", "exact"), ("NOT_RUN", "")]


def test_equal_questions_are_asked_once_and_remembered(pool):
    handle = handler(pool, prompt())
    handle([rollout(index=at) for at in range(8)])
    assert len(handle.checker.remembered) == 1
    (again,) = handle([rollout(index=9)]).verdicts
    assert (again.accuracy, again.wall_s) == (1, 0)


def test_other_knobs_make_another_question(pool):
    spec = prompt_pb2.CheckSpec(check="exact", answer="a")
    plain, fold = Checker(pool), Checker(pool, {"exact": {"case": "fold"}})
    assert plain.findings([Question("A", spec)])[0].name == "WRONG"
    assert fold.findings([Question("A", spec)])[0].name == "CORRECT"


def test_memory_is_bounded_and_keeps_the_newest_and_only_what_lasts():
    remembered = Remembered(2)
    for key in (b"a", b"b", b"c"):
        remembered.put(key, correct(key.decode()))
    assert remembered.get(b"a") is None
    assert remembered.get(b"b").evidence == "b"
    remembered.put(b"d", correct())
    assert remembered.get(b"c") is None
    remembered.put(b"e", timeout("cpu_limit"))
    remembered.put(b"f", infra_error("worker_died"))
    assert len(remembered) == 2


def test_a_stated_delay_holds_a_whole_batch_back_once_and_burns_no_cpu(pool):
    handle = handler(pool, prompt(check="delayed"), checks={"delayed": {"seconds": 0.3, "inner": "exact"}})
    began, cpu = time.monotonic(), time.process_time()
    done = handle([rollout(index=at) for at in range(100)])
    assert [verdict.accuracy for verdict in done.verdicts] == [1] * 100
    assert 0.3 <= time.monotonic() - began < 0.9
    assert time.process_time() - cpu < 0.25


def test_a_delay_counts_from_the_end_of_the_rollout():
    waits = []
    handle = VerificationHandler(
        Checker(None), {"p": prompt()}.get, delay_s=1.0, clock=lambda: 100.0, sleep=waits.append
    )
    ended = rollout_pb2.Timings(ended_ms=99_600)
    handle([rollout(timings=ended), rollout(index=1, timings=rollout_pb2.Timings(ended_ms=99_000))])
    assert waits == [pytest.approx(0.6)]


def test_verification_imports_neither_torch_nor_an_engine():
    import subprocess
    import sys

    code = (
        "import sys, services.verification.handler, services.verification.door; "
        "print([name for name in ('torch', 'transformers', 'vllm', 'sympy', 'reasoning_gym') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
