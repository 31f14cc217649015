"""`sluice weights`: what a run's log holds of its policy, exported and verified."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from pipeline import cli, config, records, topics
from pipeline.rundir import RunDir
from services.learning import lora
from services.learning.publish import Plan, Publisher
from sluice.v1 import control_pb2


@pytest.fixture(scope="module")
def announced(tmp_path_factory):
    """A run directory with four versions of a tiny tied model in bfloat16, the third an anchor too; and these."""
    path = tmp_path_factory.mktemp("weights") / "run"
    model = made()
    versions = {}
    for step in range(1, 5):
        with torch.no_grad():
            model.model.embed_tokens.weight[step] += 1
        versions[step] = {name: parameter.detach().to(torch.bfloat16) for name, parameter in model.named_parameters()}
    announce(RunDir.make(path, config.Run(run="weighed")), versions)
    return path, versions


def made() -> Qwen2ForCausalLM:
    """One layer, tied."""
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=60, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2ForCausalLM(shape)


def announce(directory: RunDir, versions) -> None:
    """Put these versions of a policy on the run's log; a worker has the third."""
    log, names = directory.open_log(), directory.names()
    topics.create(log, names, local=True)
    made().save_pretrained(directory.folder("base"))
    writer = log.writer("test")
    publisher = Publisher(names.topic("weights"), "main", Plan(anchor_every=2))
    for step, cast in versions.items():
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
    status = control_pb2.WorkerStatus(worker_id="generation-0", service="generation", version=3)
    status.gauges["applied_at"] = 1000.0
    with writer.transaction() as transaction:
        transaction.sends.append(records.encode(names.topic("workers"), "generation-0", status))
    writer.close()
    log.close()


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


@pytest.mark.long
def test_a_version_of_a_lora_run_is_exported_merged_and_with_its_adapter(tmp_path):
    from peft import PeftModel

    knobs = config.parse({"run": "weighed", "model": {"policy": "lora", "lora": {"rank": 2, "alpha": 6}}})
    model = lora.adapted(made(), config.adapter(knobs))
    for parameter in lora.own(model).values():
        torch.nn.init.normal_(parameter, std=0.3)
    directory = RunDir.make(tmp_path / "run", knobs)
    announce(directory, {1: {name: tensor.detach().bfloat16() for name, tensor in lora.travelling(model).items()}})
    assert cli.main(["weights", "export", str(tmp_path / "run"), "1", str(tmp_path / "out")]) == 0
    for parameter in lora.own(model).values():
        parameter.data = parameter.data.bfloat16().float()
    text = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        wanted = model.eval()(text).logits.log_softmax(-1)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        base = AutoModelForCausalLM.from_pretrained(directory.folder("base"))
        beside = PeftModel.from_pretrained(base, tmp_path / "out" / "adapter").eval()
        torch.testing.assert_close(merged(text).logits.log_softmax(-1), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(beside(text).logits.log_softmax(-1), wanted, atol=1e-5, rtol=0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


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
