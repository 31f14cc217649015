"""Kill anything: the real run, its services SIGKILLed while it works; it finishes, and the audit is clean."""

from __future__ import annotations

import random
import signal
import sqlite3
from pathlib import Path

import pytest

from pipeline import records
from pipeline.log.api import read_all
from pipeline.log.embedded_records import row_id
from pipeline.rundir import RunDir
from tests.chaos.beliefs import folded, followed
from tests.journey.harness import Running, audit, summary

KAFKA = pytest.mark.kafka
STEPS = 24
SETS = {
    "learning.steps": STEPS,
    "evaluate.prompts": 0,
    "learning.checkpoint_every": 5,
    "generation.request_deadline_s": 60,
}
FAILPOINTS = (
    "learning.after_step:step=4",
    "learning.after_chunks:step=7",
    "learning.after_publish:step=12",
    "learning.before_checkpoint_named:step=15",
    "learning.after_checkpoint:step=20",
)


@pytest.fixture
def sets(log, request):
    """The run's settings on the log that the test names; on Kafka a run of its own name."""
    if log == "embedded":
        return dict(SETS)
    address = request.getfixturevalue("kafka")
    return SETS | {"log": address, "run": f"kill-{random.randrange(10**8)}"}


def conserved(directory, steps: int = STEPS) -> dict:
    """The account of a run that has drained: nothing lost, nothing twice, nothing in flight."""
    account = audit(directory)
    assert account["lost"] == 0 and account["trained_twice"] == 0 and account["in_flight"] == 0
    assert summary(directory)["steps"] == steps
    return account


@pytest.mark.parametrize(
    ("log", "points"),
    [
        ("embedded", FAILPOINTS[::3]),
        pytest.param("embedded", FAILPOINTS, marks=pytest.mark.long),
        pytest.param("kafka", FAILPOINTS, marks=[KAFKA, pytest.mark.long]),
    ],
    ids=["embedded", "embedded, every point", "kafka, every point"],
)
def test_every_service_killed_at_a_random_moment_and_the_learner_between_its_transactions(sets, points, tmp_path):
    rng = random.Random(7)
    with Running(tmp_path / "run", sets, {"SLUICE_FAILPOINT": ";".join(points)}) as run:
        for worker in ("generation-0", "verification-0", "difficulty"):
            step = rng.randrange(1, 4)
            start = run.until(lambda view: view.step >= 1, "the first step").step
            run.until(lambda view, wanted=start + step: view.step >= min(wanted, STEPS - 6), f"{step} steps more")
            run.kill(worker)
        assert run.wait() == 0, run.said() + run.logs()
        said = run.said()
    account = conserved(tmp_path / "run")
    assert account["epochs"] == 1 + len(points) and account["voided_steps"] > 0
    for worker in ("generation-0", "verification-0", "difficulty", "learning"):
        assert f"{worker} died (signal 9)" in said


@pytest.mark.parametrize("log", ["embedded"])
def test_a_learner_that_is_told_to_leave_saves_its_last_step_and_the_next_one_goes_on(sets, tmp_path):
    with Running(tmp_path / "run", sets | {"learning.checkpoint_every": 1000}) as run:
        run.until(lambda view: view.step >= 4, "step 4")
        run.kill("learning", signal.SIGTERM)
        assert run.wait() == 0, run.said() + run.logs()
    account = conserved(tmp_path / "run")
    assert (account["epochs"], account["voided_steps"]) == (2, 0)


@pytest.mark.parametrize("log", [pytest.param("embedded", marks=pytest.mark.long), pytest.param("kafka", marks=KAFKA)])
def test_workers_join_in_mid_run_and_leave_by_drain_and_by_kill(sets, tmp_path):
    directory = tmp_path / "run"
    with Running(directory, sets | {"verification.delay_s": 1.0, "learning.steps": 100_000}) as run:
        run.until(lambda view: view.step >= 1, "the first step")
        with run.joined("generation", "generation-1") as first, run.joined("generation", "generation-2") as second:
            run.until(
                lambda view: sum(status.counters["rollouts"] > 0 for status in view.of("generation")) == 3,
                "work of three workers",
            )
            first.send_signal(signal.SIGTERM)
            second.send_signal(signal.SIGKILL)
            assert first.wait(60) == 0, run.logs()
        left_at = run.look().step
        run.until(lambda view: view.step >= left_at + 5, "five steps without them")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 0, run.said() + run.logs()
    conserved(directory, summary(directory)["steps"])


def test_a_stopped_run_resumes_where_it_was(tmp_path):
    directory = tmp_path / "run"
    with Running(directory, SETS) as run:
        run.until(lambda view: view.step >= 3, "the third step")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 0, run.said() + run.logs()
        assert "draining" in run.said()
    before = audit(directory)
    assert before["in_flight"] == 0 and before["lost"] == 0
    assert summary(directory)["steps"] < STEPS
    with Running(directory, SETS) as run:
        assert run.wait() == 0, run.said() + run.logs()
    conserved(directory)


@pytest.mark.long
def test_a_run_whose_supervisor_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    directory = tmp_path / "run"
    with Running(directory, SETS) as run:
        run.until(lambda view: view.step >= 7, "the seventh step")
        run.process.kill()
        run.process.wait(10)
    with Running(directory, SETS) as run:
        assert run.wait() == 0, run.said() + run.logs()
    account = conserved(directory)
    assert account["epochs"] >= 2


@pytest.mark.parametrize("estimate", ["beta", "spo_tracker"])
def test_every_posterior_that_a_killed_service_committed_is_the_fold_of_its_inputs_bit_for_bit(estimate, tmp_path):
    directory = tmp_path / "run"
    sets = SETS | {"recipe.estimate": {"name": estimate}}
    failpoint = {"SLUICE_FAILPOINT": "learning.after_publish:step=12"}
    with Running(directory, sets, failpoint) as run, followed(directory) as beliefs:
        for step in (4, 8, 16):
            run.until(lambda view, wanted=step: view.step >= wanted, f"step {step}")
            run.kill("difficulty")
        assert run.wait() == 0, run.said() + run.logs()
        assert run.said().count("difficulty died (signal 9)") == 3
    account = conserved(directory)
    assert account["epochs"] == 2
    assert folded(beliefs, tmp_path) > STEPS * 4


def spoil_weights(directory: Path) -> int:
    """Change one byte of every chunk of weights that the run's log holds; returns how many there were."""
    run = RunDir.of(directory)
    topic, log = run.names().topic("weights"), run.open_log()
    changed = []
    for record in read_all(log, topic):
        chunk = records.decode(record)
        chunk.data = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
        changed.append((chunk.SerializeToString(), record.partition, record.offset))
    log.close()
    with sqlite3.connect(directory / "log.db", timeout=60.0) as connection:
        select = "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ? AND p.partition = ?"
        for value, partition, offset in changed:
            (partition_id,) = connection.execute(select, (topic, partition)).fetchone()
            connection.execute("UPDATE records SET value = ? WHERE id = ?", (value, row_id(partition_id, offset)))
    connection.close()
    return len(changed)


@pytest.mark.long
def test_a_worker_killed_as_it_applies_weights_and_then_a_chain_of_which_every_chunk_is_corrupt(tmp_path):
    """The worker that starts again finds nothing that it could serve, asks for an anchor, and the run goes on."""
    directory = tmp_path / "run"
    deltas = SETS | {"weights.anchor_every": 1000}
    with Running(directory, deltas, {"SLUICE_FAILPOINT": "generation.before_apply:version=4"}) as run:
        run.until(lambda view: view.step >= 8, "the eighth step")
        assert spoil_weights(directory) > 8
        run.kill("generation-0")
        run.until(
            lambda view: any(status.counters["anchors_wanted"] for status in view.of("generation")),
            "the wish for an anchor",
        )
        assert run.wait() == 0, run.said() + run.logs()
        assert run.said().count("generation-0 died (signal 9)") == 2
    conserved(directory)
