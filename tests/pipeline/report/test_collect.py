"""What a report shows is read from the run's log."""

from pipeline import config, records, topics
from pipeline.data.prompt import build
from pipeline.digest import rollout_sha256
from pipeline.log.open import open_log
from pipeline.report import collect, render
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2, training_pb2

NAMES = topics.Names("sluice", "t")


def test_a_runs_log_becomes_a_report(tmp_path):
    prompt = build([("user", "tab")], prompt_pb2.CheckSpec(check="exact", answer="bat"), "p")
    said = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id="r", attempt=1),
        prompt_id="p",
        calls=[rollout_pb2.Call(tokens=[5, 6, 7], text="bat")],
        timings=rollout_pb2.Timings(ended_ms=5000),
    )
    said.sha256 = rollout_sha256(said)
    nouns = {
        "prompts": [prompt],
        "rollouts": [said],
        "verdicts": [
            rollout_pb2.Verdict(
                key=said.key,
                prompt_id="p",
                rollout_sha256=said.sha256,
                outcome=rollout_pb2.VERDICT_OUTCOME_CORRECT,
                checker="exact",
                hidden_outcome=rollout_pb2.VERDICT_OUTCOME_WRONG,
                hidden_checker="math",
                accuracy=1.0,
            )
        ],
        "steps": [
            training_pb2.TrainStep(epoch=1, step=1, uses=[training_pb2.Use(key=said.key, lag=1.0)]),
            training_pb2.TrainStep(epoch=1, step=2),
            training_pb2.Rewind(epoch=2, to_step=1),
        ],
        "workers": [control_pb2.WorkerStatus(worker_id="w", service="generation", busy_s=1.0) for _ in range(2)],
        "evals": [control_pb2.Evaluation(name="before", temperature=1.0, metrics={"mean@4": 0.25})],
        "requests": [prompt_pb2.RolloutRequest(request_id="r", belief=prompt_pb2.Belief(mean=0.5))],
    }
    log = open_log(str(tmp_path / "log.db"))
    topics.create(log, NAMES, local=True)
    writer = log.writer("w")
    with writer.transaction() as transaction:
        for topic, found in nouns.items():
            transaction.sends += [records.encode(NAMES.topic(topic), "k", noun) for noun in found]
    writer.close()
    data = collect(log, NAMES, config.Run(), {"audit": {"requested": 1}})
    log.close()
    assert [step.step for step in data.steps] == [1]
    assert (data.accuracy, data.sampled, data.audit) == ([(1, 1.0)], [(5.0, 3)], {"requested": 1})
    assert [row["text"] for row in data.samples] == ["bat"]
    assert len(data.workers) == len(data.evals) == 1
    assert data.landscape == [(1, [0.0, 0.0, 0.0, 1.0, 0.0])] and data.predictions == [(0.5, 1.0)]
    assert (data.verdicts, data.looked) == ({"exact": {"CORRECT": 1}}, [("exact", "CORRECT", "math", "WRONG")])
    assert "<h1>demo</h1>" in render(data)
