"""One rollout all the way round: the real run, four real processes, on the embedded log."""

from __future__ import annotations

import json
import urllib.request

import grpc
import pytest

from pipeline.client import Client
from pipeline.topics import SERVICES
from sluice.v1 import control_pb2, generation_pb2, learning_pb2, learning_pb2_grpc, prompt_pb2, verification_pb2
from tests.journey.harness import Running, audit, sluice, summary


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that has finished, and what was seen of it while it went on."""
    directory = tmp_path_factory.mktemp("journey") / "small"
    seen = {}
    with Running(directory) as run:
        view = run.until(lambda view: view.step >= 2 and len(view.workers) == 4, "the second step")
        seen["statuses"] = {status.service: status for status in view.workers.values()}
        seen["answers"] = ask(seen["statuses"])
        assert run.wait() == 0, run.said() + run.logs()
        seen["said"] = run.said()
    return directory, seen


def ask(statuses) -> dict:
    """What the doors and the metrics say while the run goes on."""
    found = {}
    for service, status in statuses.items():
        client = Client(status.address)
        found[service] = client.status()
        port = int(status.gauges["metrics_port"])
        found[f"{service} metrics"] = (
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        )
        client.close()
    generation = Client(statuses["generation"].address)
    request = prompt_pb2.RolloutRequest(
        n=2,
        messages=[prompt_pb2.Message(role="user", parts=[prompt_pb2.Part(text="abc")])],
        sampling=prompt_pb2.SamplingParams(temperature=0.5, top_p=0.9, max_tokens=4),
        purpose=prompt_pb2.PURPOSE_EVALUATE,
    )
    found["rollouts"] = generation.generation.Generate(
        generation_pb2.GenerateRequest(request=request), timeout=30
    ).rollouts
    request.purpose = prompt_pb2.PURPOSE_TRAIN
    with pytest.raises(grpc.RpcError) as refused:
        generation.generation.Generate(generation_pb2.GenerateRequest(request=request), timeout=30)
    found["refusal"] = refused.value.details()
    verification = Client(statuses["verification"].address)
    check = prompt_pb2.CheckSpec(check="exact", answer="cba")
    found["verdict"] = verification.verification.Verify(
        verification_pb2.VerifyRequest(answer="cba", check=check), timeout=30
    )
    learning = learning_pb2_grpc.LearningServiceStub(grpc.insecure_channel(statuses["learning"].address))
    found["progress"] = learning.Progress(learning_pb2.ProgressRequest(), timeout=5)
    found["checkpoint"] = learning.SaveCheckpoint(learning_pb2.SaveCheckpointRequest(), timeout=60)
    return found


def test_every_requested_rollout_has_one_outcome(finished):
    account = audit(finished[0])
    assert account["lost"] == 0 and account["trained_twice"] == 0 and account["in_flight"] == 0
    assert account["trained"] == 12 * 4 * 4
    assert account["requested"] == account["trained"] + sum(account["dropped"].values()) + account["expired"]


def test_the_summary_says_what_the_run_did(finished):
    said = summary(finished[0])
    wanted = (
        "eval_before eval_after steps rollouts_trained prompts_seen wall_s rollouts_per_s tokens_per_s lag_mean lag_max"
    )
    assert set(wanted.split()) | {"overlap", "busy", "waits", "drops", "audit"} <= set(said)
    assert said["steps"] == 12 and said["rollouts_trained"] == 192 and 0 <= said["lag_max"] <= 2
    assert said["eval_after"]["prompts"] == 8 and "greedy" in said["eval_after"]


def test_the_trained_model_loads_with_plain_transformers(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished[0] / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished[0] / "model")
    assert model.config.vocab_size >= len(tokenizer)


def test_the_report_is_one_file_with_pictures(finished):
    text = (finished[0] / "report.html").read_text()
    assert text.count("<svg") >= 4 and "http://" not in text.replace("http://www.w3.org", "")


def test_every_service_serves_its_doors_and_metrics(finished):
    answers = finished[1]["answers"]
    for service in SERVICES:
        assert answers[service].state == control_pb2.WORKER_STATE_SERVING
        assert f"sluice_{service}_" in answers[f"{service} metrics"]
    assert len(answers["rollouts"]) == 2 and answers["verdict"].accuracy == 1
    assert "top_p" in answers["refusal"]
    assert answers["progress"].steps == 12 and answers["checkpoint"].step >= answers["progress"].step


def test_what_was_said_can_be_shown_and_exported(finished, tmp_path):
    directory = finished[0]
    assert sluice("rollouts", str(directory), "--limit", "3").returncode == 0
    file = tmp_path / "rollouts.jsonl"
    assert sluice("rollouts", str(directory), "--export", str(file)).returncode == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == audit(directory)["rollouts"]


def test_a_finished_run_can_be_evaluated_again(finished):
    done = sluice("eval", str(finished[0]), "--prompts", "4", "--samples", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prompts"] == 4 and "mean@2" in found["metrics"]


def test_commands_that_only_look_work_on_it(finished):
    directory = str(finished[0])
    for command in (["topics", directory], ["dead-letters", directory], ["report", directory], ["methods", "--json"]):
        done = sluice(*command)
        assert done.returncode == 0, done.stderr
    rights = sluice("topics", "--acls").stdout
    assert [line.split()[0] for line in rights.splitlines() if line.endswith(" write topic sluice.demo.rollouts")] == [
        "generation",
        "operator",  # puts dead letters back
    ]


def test_an_archive_is_looked_at_as_the_run_is(finished, tmp_path):
    directory, archived = finished[0], tmp_path / "archive"
    assert sluice("archive", str(directory), str(archived)).returncode == 0
    assert audit(archived) == audit(directory)
    for command in (["report"], ["rollouts", "--limit", "3"], ["topics"]):
        done = sluice(command[0], str(archived), *command[1:])
        assert done.returncode == 0, done.stderr
