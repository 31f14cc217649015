"""What a user can get wrong: one sentence with the value and what is accepted, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import yaml

from pipeline import config, doctor
from pipeline.errors import UserError
from pipeline.rundir import RunDir
from tests.journey.harness import SMALL, sluice

WORDS = [{"question": word, "answer": word[::-1]} for word in ("abc", "bcd", "cde", "def", "efg")]


def refused(done, *said: str) -> str:
    """Exit code 2 and one sentence that says these things."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("sluice: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    for one in said:
        assert one in lines[0], lines[0]
    assert "accepted" in lines[0]
    return lines[0]


def run(tmp_path: Path, *sets: str, file: Path = SMALL):
    arguments = [argument for one in sets for argument in ("--set", one)]
    return sluice("run", str(file), "--dir", str(tmp_path / "run"), "--plain", *arguments)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("recipe=grop", ("'grop'", "grpo")),
        ("recipe.advantage=group_nrom", ("group_nrom", "group_norm")),
        ("recipe.advantage={name: group_norm, epz: 1}", ("epz", "eps")),
        ("recipe.advantage={name: group_norm, ddof: 7}", ("7",)),
        ("learning.stepz=3", ("learning.stepz", "steps")),
        ("learning.steps=many", ("learning.steps", "'many'", "a whole number")),
        ("max_lag=-1", ("max_lag", "-1", "0")),
        ("learning.steps=[", ("'learning.steps=['", "no YAML", "field.field=value")),
        ("log=redis://x", ("redis://x", "kafka://")),
        ("generation.engine=sglang", ("sglang", "vllm")),
        ("generation.tensor_parallel=2", ("is 2", "1 with engine: transformers")),
        ('data.sources=[{"kind": "reasoning_gym", "name": "spell_forward"}]', ("spell_forward", "spell_backward")),
        ('data.sources=[{"kind": "csv"}]', ("csv", "jsonl")),
        ("data.held_out=5000", ("5000", "held_out")),
        ("run=No Spaces", ("No Spaces",)),
    ],
)
def test_a_wrong_value_is_named_and_the_right_call_is_not_refused_for_it(tmp_path, change, said):
    refused(run(tmp_path, change), *said)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("log", ["localhost:9092", "kafka", "runs/x/log.db", "kafka://", "kafka://host", "kafka://h:p"])
def test_a_log_that_is_neither_embedded_nor_a_kafka_address_is_no_file_name(log):
    with pytest.raises(UserError) as error:
        config.parse({"log": log})
    assert str(error.value) == f"log is {log!r}; accepted: embedded, or kafka://host:port"


def test_a_log_may_be_several_brokers():
    assert config.parse({"log": "kafka://a:9092,b:9093"}).log == "kafka://a:9092,b:9093"
    assert config.parse({"log": "embedded"}).log == "embedded"


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ("difficulty.sampler=vade_thompson", "a mapping such as {name: vade_thompson}"),
        ("verification.second_look.check=7", "a mapping such as {name: math, ...}"),
        ("model=tiny", "a mapping with source, dtype, device, context, tiny, warm_start, ..."),
        ("model.tiny.layers=x", "a whole number"),
        ("model.source=''", "a text that is not empty"),
        ("data.sources=[]", "at least one"),
        ("data.sources=words.jsonl", "a list"),
        ("learning.steps=2.5", "a whole number"),
        ("learning.lr=fast", "a number"),
        ("learning.gradient_checkpointing=maybe", "true or false"),
        ("recipe=7", "a text or a mapping"),
    ],
)
def test_what_is_accepted_is_said_in_the_words_of_a_run_file(change, accepted):
    with pytest.raises(UserError) as error:
        config.parse({}, [change])
    name, _, value = change.partition("=")
    assert str(error.value) == f"run file: {name} is {yaml.safe_load(value)!r}; accepted: {accepted}"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("doctor", str(SMALL), "--set", "learning.steps=["), ("'learning.steps=['", "field.field=value")),
        (("eval", "{run}", "--source", "xx"), ("--source is 'xx'", '{"kind": "jsonl", ...}')),
        (("eval", "{run}", "--source", "[1]"), ("--source is '[1]'", "a JSON object")),
        (("eval", "{run}", "--source", '{"kind": "josnl"}'), ("'josnl'", "jsonl")),
        (("verify", "math", "--answer", "1", "--spec", "@missing"), ("--spec file 'missing'", "@FILE")),
        (("verify", "math", "--answer", "1", "--set", "x=["), ("--set 'x=['", "KNOB=VALUE")),
        (("init", "/nonexistent/run.yaml"), ("folder '/nonexistent' does not exist", "an existing folder")),
        (("init", "{run}", "--force"), ("is a folder", "a file's name")),
        (("rollouts", "{run}", "--limit", "-1"), ("--limit is -1", "0 or more")),
    ],
)
def test_a_wrong_argument_is_one_sentence(tmp_path, command, said):
    directory = str(made(tmp_path))
    refused(sluice(*(word.replace("{run}", directory) for word in command)), *said)


@pytest.mark.parametrize(
    ("change", "row", "said"),
    [
        ("model.source=/no/such/dir", "model", "'/no/such/dir' does not exist"),
        ("model.source=./no/such/dir", "model", "'./no/such/dir' does not exist"),
        ('data.sources=[{"kind": "jsonl", "path": "/no/such.jsonl"}]', "data", "'/no/such.jsonl' does not exist"),
        ('data.sources=[{"kind": "josnl"}]', "data", "'josnl'; accepted: entry_point, huggingface, jsonl"),
        ('data.sources=[{"path": "/no/such.jsonl"}]', "data", "kind is None; accepted: entry_point"),
    ],
)
def test_data_and_model_are_looked_at_before_a_run_begins_and_by_the_doctor(tmp_path, change, row, said):
    refused(run(tmp_path, change), said.partition(";")[0])
    assert not (tmp_path / "run").exists()
    found = {one.what: one for one in doctor.examine(config.load(SMALL, [change]))}
    assert found[row].good is False and said in found[row].found


def test_a_run_file_that_is_missing_or_no_yaml_is_named(tmp_path):
    refused(sluice("run", str(tmp_path / "none.yaml")), "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("run: [")
    refused(sluice("run", str(broken)), "broken.yaml", "YAML")


def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(tmp_path):
    """A module of its name stands before the real one, which fails as a package does that is not there."""
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError(\"No module named 'pyarrow'\", name='pyarrow')")
    (tmp_path / "sums.parquet").write_bytes(b"")
    sources = json.dumps([{"kind": "jsonl", "path": str(tmp_path / "sums.parquet")}])
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    arguments = ["--dir", str(tmp_path / "run"), "--plain", "--set", f"data.sources={sources}"]
    refused(sluice("run", str(SMALL), *arguments, env={"PYTHONPATH": path}), "pyarrow", "pip install 'sluice[data]'")


def test_a_prompt_longer_than_the_context_is_named(tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [*WORDS, {"question": "x" * 40, "answer": "x"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    source = {"kind": "jsonl", "path": str(file), "prompt": "question", "answer": "answer", "check": "exact"}
    done = run(tmp_path, f"data.sources={json.dumps([source])}", "data.held_out=1")
    refused(done, "41 tokens", "model.context is 32")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"q": "abc", "answer": "cba"}', ("question",)),
        ('{"question": "", "answer": "cba"}', ("line 6", "question")),
        ('{"question": "abc", ', ("6",)),
    ],
)
def test_a_data_set_with_a_bad_row_is_refused_by_row_and_column(tmp_path, line, said):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join([*map(json.dumps, WORDS), line]))
    source = {"kind": "jsonl", "path": str(file), "prompt": "question", "answer": "answer", "check": "exact"}
    refused(run(tmp_path, f"data.sources={json.dumps([source])}", "data.held_out=1"), str(file), *said)


def test_a_broker_that_does_not_answer_is_named(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = run(tmp_path, f"log=kafka://{address}")
    assert done.returncode in (1, 2) and address in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def made(tmp_path: Path) -> Path:
    """A run directory as `sluice run` begins it."""
    directory = RunDir.make(tmp_path / "run", config.parse(yaml.safe_load(SMALL.read_text())))
    (directory.path / "base").mkdir()
    return directory.path


def test_prepare_of_an_embedded_log_refuses_bad_prompts_before_anything_is_written(tmp_path):
    file, data = tmp_path / "run.yaml", tmp_path / "data.jsonl"
    data.write_text('{"question": "abc"}')
    file.write_text(f"data: {{sources: [{{kind: jsonl, path: {data}, prompt: question}}], held_out: 0}}")
    refused(sluice("prepare", str(file), "--dir", str(tmp_path / "run")), "the column is 'answer'")
    assert not (tmp_path / "run").exists()


def test_an_identity_field_cannot_change_on_an_existing_run(tmp_path):
    made(tmp_path)
    said = refused(run(tmp_path, "seed=9", "model.context=64"), "seed was 3, is 9")
    assert "model.context" not in said


def test_a_run_directory_of_a_newer_major_version_is_refused(tmp_path):
    (made(tmp_path) / "format.json").write_text('{"major": 2}')
    refused(run(tmp_path), "format 2", "1 or older")
    refused(sluice("audit", str(tmp_path / "run")), "format 2")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for command in ("audit", "report", "rollouts", "dead-letters", "stop", "eval"):
        refused(sluice(command, str(tmp_path)), str(tmp_path))


def test_a_port_in_use_is_named(tmp_path):
    directory = made(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(sluice("serve", "difficulty", str(directory), "--address", address), address)


def test_an_unknown_service_recipe_or_topic_is_named(tmp_path):
    refused(sluice("serve", "teaching", str(made(tmp_path))), "teaching", "learning")
    refused(sluice("methods", "ppo9"), "ppo9", "grpo")


def test_nothing_is_half_written_by_a_refused_run(tmp_path):
    refused(run(tmp_path, "recipe=grop"))
    assert not (tmp_path / "run").exists()
