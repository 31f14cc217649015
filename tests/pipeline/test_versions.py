"""`sluice weights`: what a run's log holds of its policy, exported and verified."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from pipeline import cli, config, records, topics
from pipeline.rundir import RunDir
from services.learning.publish import Plan, Publisher
from sluice.v1 import control_pb2


@pytest.fixture(scope="module")
def announced(tmp_path_factory):
    """A run directory with four versions of a tiny tied model in bfloat16, the third an anchor too; and these."""
    path = tmp_path_factory.mktemp("weights") / "run"
    directory = RunDir.make(path, config.Run(run="weighed"))
    log, names = directory.open_log(), directory.names()
    topics.create(log, names, local=True)
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=60, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(shape)
    model.save_pretrained(directory.folder("base"))
    writer = log.writer("test")
    publisher = Publisher(names.topic("weights"), "main", Plan(anchor_every=2))
    versions = {}
    for step in range(1, 5):
        with torch.no_grad():
            model.model.embed_tokens.weight[step] += 1
        cast = {name: parameter.detach().to(torch.bfloat16) for name, parameter in model.named_parameters()}
        publication = publisher.begin(1)
        transactions = publication.write(cast.items())
        sends = next(transactions)
        while sends is not None:
            with writer.transaction() as transaction:
                transaction.sends += sends
            sends = following(transactions, transaction.written)
        manifest = publication.manifest(step, 1000 * step)
        with writer.transaction() as transaction:
            transaction.sends.append(records.encode(names.topic("weights-manifest"), "main", manifest))
        publisher.announced(manifest)
        versions[step] = cast
    status = control_pb2.WorkerStatus(worker_id="generation-0", service="generation", version=3)
    status.gauges["applied_at"] = 1000.0
    with writer.transaction() as transaction:
        transaction.sends.append(records.encode(names.topic("workers"), "generation-0", status))
    writer.close()
    log.close()
    return path, versions


def following(transactions, written):
    try:
        return transactions.send(written)
    except StopIteration:
        return None


def test_it_lists_versions_and_who_has_applied_what_and_when(announced, capsys):
    assert cli.main(["weights", str(announced[0]), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    kinds = [(one["version"], one["kind"], one["where"]) for one in said["versions"]]
    assert kinds == [
        (1, "anchor", "log"),
        (2, "delta", "log"),
        (3, "delta", "log"),
        (3, "anchor", "log"),
        (4, "delta", "log"),
    ]
    assert said["workers"] == [{"worker": "generation-0", "version": 3, "applied_at": 1000.0, "trouble": ""}]
    values = sum(tensor.numel() for tensor in announced[1][1].values())
    assert said["dense_bytes"] == 2 * values and said["versions"][1]["density"] == 32 / values
    assert cli.main(["weights", "list", str(announced[0])]) == 0
    assert "generation-0: version 3, applied" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["2", "3", "newest"])
def test_a_version_is_exported_as_a_folder_that_loads(announced, tmp_path, version):
    path, versions = announced
    assert cli.main(["weights", "export", str(path), version, str(tmp_path / "out")]) == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    wanted = versions[4 if version == "newest" else int(version)]
    assert {name: tensor.dtype for name, tensor in loaded.named_parameters()} == dict.fromkeys(wanted, torch.bfloat16)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.named_parameters())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_every_version_is_verified_in_every_way_that_leads_to_it(announced, capsys):
    assert cli.main(["weights", "verify", str(announced[0]), "--json"]) == 0
    said = [(one["version"], one["by"], one["wrong"]) for one in json.loads(capsys.readouterr().out)]
    ways = [(1, "chain"), (2, "chain"), (3, "chain"), (3, "anchor"), (4, "chain")]
    assert said == [(version, by, "") for version, by in ways]


def test_a_chunk_that_is_gone_makes_the_verification_fail(announced, tmp_path, capsys):
    shutil.copytree(announced[0], tmp_path / "run")
    directory = RunDir.of(tmp_path / "run")
    log = directory.open_log()
    log.trim(directory.names().topic("weights"), 0, 1)
    log.close()
    assert cli.main(["weights", "verify", str(tmp_path / "run"), "--json"]) == 1
    wrong = {(one["version"], one["by"]): bool(one["wrong"]) for one in json.loads(capsys.readouterr().out)}
    assert wrong == {
        (1, "chain"): True,
        (2, "chain"): True,
        (3, "chain"): False,
        (3, "anchor"): False,
        (4, "chain"): False,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "{run}", "9", "{out}"], "version is '9'; accepted: newest, or what the log still holds (1 to 4)"),
        (["export", "{run}", "-1x", "{out}"], "version is '-1x'"),
        (["export", "{run}", "2", "{run}"], "exists; accepted: a folder that does not"),
        (["export", "{run}", "2", "{out}/a/b"], "is in no folder"),
        (["export", "{run}", "2"], "weights export has 2 arguments; accepted: RUN VERSION DIR"),
        (["verify", "{out}"], "is no run directory"),
        (["{out}"], "is no run directory"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(announced, tmp_path, capsys, arguments, said):
    filled = [one.format(run=announced[0], out=tmp_path / "out") for one in arguments]
    if "-1x" in filled:
        filled.insert(0, "--")
    assert cli.main(["weights", *filled]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_weights_says_so(tmp_path, capsys):
    directory = RunDir.make(tmp_path / "run", config.Run(run="empty"))
    log = directory.open_log()
    topics.create(log, directory.names(), local=True)
    log.close()
    assert cli.main(["weights", str(tmp_path / "run")]) == 2
    assert "has announced no weights" in capsys.readouterr().err
