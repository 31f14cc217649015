"""Rollouts as rows: joined by digest, filtered, and exported whole."""

import json

import pytest
from pyarrow import parquet

from pipeline import records, rollouts, topics
from pipeline.data.prompt import build
from pipeline.digest import rollout_sha256
from pipeline.errors import UserError
from pipeline.log.open import open_log
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

NAMES = topics.Names("sluice", "t")
PROMPT = build([("user", "tab")], prompt_pb2.CheckSpec(check="exact", answer="bat"), "p1")


def rollout(index: int, text: str, version: int = 3) -> rollout_pb2.Rollout:
    said = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id="r", index=index, attempt=1),
        prompt_id="p1",
        ending=rollout_pb2.ENDING_STOP,
        worker_id="generation-0",
        calls=[rollout_pb2.Call(tokens=range(len(text)), text=text, spans=[rollout_pb2.Span(version=version)])],
    )
    said.sha256 = rollout_sha256(said)
    return said


def verdict(of: rollout_pb2.Rollout, right: bool) -> rollout_pb2.Verdict:
    outcome = rollout_pb2.VERDICT_OUTCOME_CORRECT if right else rollout_pb2.VERDICT_OUTCOME_WRONG
    return rollout_pb2.Verdict(key=of.key, rollout_sha256=of.sha256, outcome=outcome, accuracy=float(right))


def step(number: int, epoch: int, *uses: training_pb2.Use) -> training_pb2.TrainStep:
    return training_pb2.TrainStep(epoch=epoch, step=number, uses=uses)


def use(of: rollout_pb2.Rollout, lag: float, advantage: float) -> training_pb2.Use:
    return training_pb2.Use(key=of.key, use=1, lag=lag, advantage=advantage, weight=1.0)


@pytest.fixture
def log(tmp_path):
    log = open_log(str(tmp_path / "log.db"))
    topics.create(log, NAMES, local=True)
    right, wrong, unread, resampled = rollout(0, "bat"), rollout(1, "tab"), rollout(2, "bta"), rollout(3, "batt")
    other = verdict(rollout(3, "bat"), True)
    nouns = [("prompts", PROMPT)]
    nouns += [("rollouts", said) for said in (right, wrong, unread, resampled)]
    nouns += [("verdicts", verdict(right, True)), ("verdicts", verdict(wrong, False)), ("verdicts", other)]
    nouns += [
        ("steps", step(1, 1, use(right, 0, 1))),
        ("steps", step(2, 1, use(unread, 0, 1))),
        ("steps", training_pb2.Rewind(epoch=2, to_step=1)),
        ("steps", step(2, 2, use(wrong, 2, -1))),
    ]
    writer = log.writer("w")
    with writer.transaction() as transaction:
        for topic, noun in nouns:
            transaction.sends.append(records.encode(NAMES.topic(topic), "p1", noun))
        transaction.send(NAMES.topic("rollouts"), b"p1", b"\xff", (("schema", b"Rollout/1.0"),))
    writer.close()
    yield log
    log.close()


def test_a_row_holds_the_prompt_the_text_the_verdict_and_the_step(log):
    first = next(rollouts.rows(log, NAMES))
    assert list(first) == list(rollouts.COLUMNS)
    assert (first["prompt"], first["expected"], first["text"], first["outcome"]) == ("tab", "bat", "bat", "CORRECT")
    assert (first["step"], first["lag"], first["advantage"], first["versions"]) == (1, 0.0, 1.0, [3])
    assert (first["ending"], first["tokens"], first["worker"]) == ("STOP", 3, "generation-0")


def test_a_voided_step_joins_nothing_and_the_step_that_replaced_it_does(log):
    steps = {row["text"]: row["step"] for row in rollouts.rows(log, NAMES)}
    assert steps == {"bat": 1, "tab": 2, "bta": None, "batt": None}


def test_a_verdict_on_other_tokens_joins_nothing(log):
    outcomes = {row["text"]: row["outcome"] for row in rollouts.rows(log, NAMES)}
    assert outcomes == {"bat": "CORRECT", "tab": "WRONG", "bta": None, "batt": None}


@pytest.mark.parametrize(
    ("knobs", "texts"),
    [
        ({"outcome": "wrong"}, ["tab"]),
        ({"step": 1}, ["bat"]),
        ({"prompt_id": "p2"}, []),
        ({"prompt_id": "p1", "outcome": "CORRECT", "step": 1}, ["bat"]),
    ],
)
def test_rows_are_filtered_by_outcome_prompt_and_step(log, knobs, texts):
    assert [row["text"] for row in rollouts.rows(log, NAMES, **knobs)] == texts


def test_an_unknown_outcome_is_refused(log):
    with pytest.raises(UserError, match="the outcome is 'RIGHT'; accepted: CORRECT, INFRA_ERROR"):
        rollouts.rows(log, NAMES, outcome="RIGHT")


def test_json_lines_and_parquet_hold_the_same_rows(log, tmp_path):
    wanted = list(rollouts.rows(log, NAMES))
    assert rollouts.export(iter(wanted), tmp_path / "said.jsonl") == 4
    assert rollouts.export(iter(wanted), tmp_path / "said.parquet") == 4
    assert [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()] == wanted
    assert parquet.read_table(tmp_path / "said.parquet").to_pylist() == wanted


def test_an_export_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield {"request_id": "r"}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        rollouts.export(broken(), tmp_path / "said.jsonl")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="ends in .jsonl or .parquet"):
        rollouts.export([], tmp_path / "said.csv")


def test_a_table_shows_text_as_it_is_also_where_it_looks_like_markup(log, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = list(rollouts.rows(log, NAMES))
    found[0]["text"] = "[bold]bat"
    rollouts.show(found)
    assert "[bold]bat" in capsys.readouterr().out
