import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from pipeline import cli, config, doctor
from pipeline.errors import UserError
from services.verification.sandbox import walls
from sluice.v1 import control_pb2, control_pb2_grpc


def of_the_sandbox() -> dict[str, doctor.Finding]:
    findings = doctor.examine(config.load("pipeline/jobs/spell.yaml", []))
    return {one.what.removeprefix("sandbox: "): one for one in findings if one.what.startswith("sandbox: ")}


@pytest.mark.sandbox
def test_every_wall_of_the_sandbox_is_named_and_stands():
    found = of_the_sandbox()
    names = {"bubblewrap", "system-call filter", "interpreter", "unprivileged user", "cgroup", "namespaces"}
    assert set(found) == names
    assert all(one.good for one in found.values())


def test_a_missing_wall_is_named_with_its_cure_and_fails_no_run_that_needs_none(monkeypatch):
    monkeypatch.setattr(walls.shutil, "which", lambda name: None)
    missing = of_the_sandbox()["bubblewrap"]
    assert missing.good is None
    assert "install bubblewrap" in missing.found


def test_data_and_model_that_are_there_are_rows_that_are_ok():
    found = {one.what: one for one in doctor.examine(config.load("pipeline/jobs/spell.yaml", []))}
    assert (found["data"].good, found["data"].found) == (True, "reasoning_gym")
    assert found["model"].good is not False


def test_a_missing_vllm_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = {one.what: one.found for one in doctor.examine(config.parse({"generation": {"engine": "vllm"}}))}
    assert found["vllm"] == f"missing: `{doctor.VLLM}` installs it"
    assert doctor.VLLM in Path("README.md").read_text()
    assert found["torch"] == "missing: `make setup` installs it"


def test_every_rank_of_the_learner_takes_its_own_memory():
    def learning(ranks: int) -> doctor.Finding:
        run = config.parse({"model": {"source": "builtin:tiny"}, "learning": {"ranks": ranks}})
        return next(finding for finding in doctor.examine(run) if "learning" in finding.what)

    assert learning(1).what == "memory of learning"
    assert learning(4).what == "memory of each of 4 learning ranks"
    assert learning(1).found == learning(4).found


@pytest.mark.parametrize(
    ("name", "knobs", "n"), [("fixed", {}, 8), ("knapsack", {"n": 4}, 4), ("single_stream", {}, 1)]
)
def test_rollouts_are_counted_by_the_budget_also_where_it_leaves_n_out(name, knobs, n):
    run = config.parse(
        {"difficulty": {"budget": {"name": name, **knobs}}, "learning": {"steps": 10, "batch_groups": 4}}
    )
    found = {one.what: one.found for one in doctor.examine(run)}
    assert found["rollouts"] == f"{40 * n}: 10 steps of 4 groups of {n}"


class Operator(control_pb2_grpc.OperatorServiceServicer):
    """Says that it loads, and after so many questions that it serves."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def Status(self, request, context):
        self.left -= 1
        state = control_pb2.WORKER_STATE_LOADING if self.left > 0 else control_pb2.WORKER_STATE_SERVING
        return control_pb2.WorkerStatus(worker_id="w", state=state)


@pytest.fixture
def opened():
    """Opens a door on a free port, after some seconds."""
    made, timers = [], []

    def make(seconds: float, questions: int = 1) -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        control_pb2_grpc.add_OperatorServiceServicer_to_server(Operator(questions), server)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        made.append(server)
        timers.append(threading.Timer(seconds, lambda: server.start() if server.add_insecure_port(address) else None))
        timers[-1].start()
        return address

    yield make
    for timer, server in zip(timers, made, strict=True):
        timer.cancel()
        server.stop(0)


def asked(*addresses: str, wait_s: float) -> list[doctor.Finding]:
    doors = [f"generation={address}" for address in addresses]
    return [one for one in doctor.reach(config.parse({}), doors, wait_s) if one.what == "generation"]


def test_a_door_that_opens_and_serves_within_the_wait_is_well(monkeypatch, opened):
    monkeypatch.setattr(doctor, "POLL_S", 0.1)
    late, loading = opened(1.0), opened(0.0, questions=4)
    found = asked(late, loading, wait_s=30.0)
    assert [one.good for one in found] == [True, True]
    assert [one.found for one in found] == [f"{late}: w is serving", f"{loading}: w is serving"]


def test_without_a_wait_a_door_that_is_shut_is_asked_once(opened):
    address = opened(60.0)
    begun = time.monotonic()
    (found,) = asked(address, wait_s=0.0)
    assert (found.good, found.found) == (False, f"{address} does not answer")
    assert time.monotonic() - begun < doctor.DOOR_S


def test_all_doors_that_stay_shut_take_one_wait_together(monkeypatch, opened):
    monkeypatch.setattr(doctor, "POLL_S", 0.1)
    begun = time.monotonic()
    found = asked(opened(60.0), opened(60.0), opened(60.0), wait_s=2.0)
    assert [one.good for one in found] == [False, False, False]
    assert time.monotonic() - begun < 5.0


def test_a_door_that_names_no_service_is_refused_before_anything_is_waited_for():
    with pytest.raises(UserError, match="--door is 'generatoin=x:1'; accepted: .*generation"):
        doctor.reach(config.parse({}), ["generation=127.0.0.1:1", "generatoin=x:1"], 600.0)


def test_the_command_hands_its_wait_on(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(doctor, "reach", lambda run, doors, wait_s: given.append((doors, wait_s)) or [])
    (tmp_path / "run.yaml").write_text("run: demo\n")
    door = "generation=x:1"
    assert cli.main(["doctor", str(tmp_path / "run.yaml"), "--door", door]) == 0
    assert cli.main(["doctor", str(tmp_path / "run.yaml"), "--door", door, "--wait", "300"]) == 0
    assert given == [([door], 0.0), ([door], 300.0)]
