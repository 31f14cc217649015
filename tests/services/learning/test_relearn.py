"""A recorded stream trained again: the same weights for a seed, an account that adds up, refusals in a sentence."""

from __future__ import annotations

import json

import pytest
import yaml
from safetensors.torch import load_file

from pipeline import cli, records, relearn
from pipeline.errors import UserError
from pipeline.log.api import read_all
from pipeline.rundir import RunDir
from services.learning.relearn import train
from sluice.v1 import control_pb2, training_pb2
from tests.services.learning.recorded import record


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recorded") / "run")


def weights(directory):
    return load_file(directory.folder("model") / "model.safetensors")


def same(one, two):
    first, second = weights(one), weights(two)
    return all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize("recipe", ["dapo", "rloo"])
def test_every_recorded_rollout_is_trained_or_dropped_with_a_reason(source, tmp_path, recipe, capsys):
    new = tmp_path / "new"
    assert cli.main(["relearn", str(source.path), "--recipe", recipe, "--dir", str(new)]) == 0
    audit = relearn.audit_directory(RunDir.of(new))
    # 24 groups of 4: a failed one, one that never came and an infra_error leave 93, in 6 batches of 4 groups.
    assert (audit.requested, audit.trained, audit.expired, audit.lost) == (96, 93, 1, 0)
    assert audit.failed == {"failed": 1} and audit.dropped == {"infra_error": 1} and audit.clean
    assert "run recorded" in capsys.readouterr().out.splitlines()[0]
    summary = json.loads((new / "summary.json").read_text())
    assert summary["steps"] == 6 and summary["source"]["run"] == "recorded" and summary["rollouts_trained"] == 93
    assert len((new / "metrics.jsonl").read_text().splitlines()) == 6
    assert cli.main(["audit", str(new)]) == 0


def test_the_same_stream_recipe_and_seed_give_the_same_weights(source, tmp_path):
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4), ("d", None)):
        runs.append(relearn.prepare(source.path, tmp_path / name, "rloo", steps=3, seed=seed))
        train(runs[-1])
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2]) and not same(runs[0], runs[3])
    base = load_file(source.folder("base") / "model.safetensors")
    assert any(not base[name].equal(tensor) for name, tensor in weights(runs[0]).items())


def test_what_the_steps_do_not_reach_is_dropped_and_counted(source, tmp_path):
    new = relearn.prepare(source.path, tmp_path / "new", "rloo", steps=2)
    assert train(new).steps == 2
    audit = relearn.audit_directory(new)
    assert audit.clean and audit.steps == 2
    assert audit.requested == audit.trained + sum(audit.dropped.values()) + audit.expired + sum(audit.failed.values())
    # 8 groups of 4, of which the failed one and the failure of ours are missing; what is left was never reached.
    assert audit.trained == 30 and audit.dropped == {"infra_error": 1, "run_finished": 96 - 30 - 3}


def test_ratios_are_taken_to_the_recorded_log_probs_and_ages_to_the_recorded_versions(source, tmp_path):
    new = relearn.prepare(source.path, tmp_path / "new", "rloo")
    train(new)
    log = new.open_log()
    steps = [records.decode(one) for one in read_all(log, new.names().topic("steps"))]
    log.close()
    steps = [one for one in steps if isinstance(one, training_pb2.TrainStep)]
    # Groups 0 to 7 are of version 1, 8 to 15 of 2. Group 7 closes last: one of it never came.
    assert [step.metrics["stream_version"] for step in steps] == [1, 2, 2, 3, 3, 3]
    lags = [sorted({(use.group_id, use.lag) for use in step.uses}) for step in steps]
    assert lags[1] == [("g-4", 1), ("g-5", 1), ("g-6", 1), ("g-8", 0)] and ("g-7", 2) in lags[-1]
    # An untrained model is near uniform over 98 tokens; the record says -4.5 on average: the ratio is near e^-0.09.
    assert steps[0].metrics["ratio_mean"] == pytest.approx(0.92, abs=0.04)
    assert not any(name.startswith("logprob_gap") for step in steps for name in step.metrics)


def test_an_account_whose_stream_has_changed_is_not_clean(tmp_path):
    source = record(tmp_path / "run")
    new = relearn.prepare(source.path, tmp_path / "new", "rloo", steps=1)
    train(new)
    assert relearn.audit_directory(new).clean
    log = source.open_log()
    topic = source.names().topic("verdicts")
    partition = next(p for p, (_, end) in log.bounds(topic).items() if end)
    log.trim(topic, partition, 2)
    log.close()
    assert any("not the one that was read" in problem for problem in relearn.audit_directory(new).problems)


def refused(source, new, recipe="rloo", **more):
    with pytest.raises(UserError) as found:
        relearn.prepare(source, new, recipe, **more)
    assert not new.exists() or any(new.iterdir())
    return str(found.value)


def test_what_cannot_be_relearned_is_refused_in_a_sentence(source, tmp_path):
    new = tmp_path / "new"
    assert "the recipe is 'nope'; accepted: " in refused(source.path, new, "nope")
    assert "no run directory" in refused(tmp_path / "nowhere", new)
    assert "no tokens and log-probs" in refused(tmp_path / "all.parquet", new)
    assert "--steps is 0" in refused(source.path, new, steps=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    assert "exists; accepted: a new folder" in refused(source.path, tmp_path / "full")
    assert cli.main(["relearn", str(tmp_path / "nowhere"), "--recipe", "rloo", "--dir", str(new)]) == 2


def test_a_recipe_that_is_on_policy_only_is_refused_with_its_reason(source, tmp_path):
    own = {"base": "rloo", "name": "mine", "off_policy": {"mode": "on_policy_only", "source": "theorem 2"}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(own))
    assert "theorem 2" in refused(source.path, tmp_path / "new", str(file))


def test_a_run_that_goes_on_and_a_relearn_are_no_source(source, tmp_path):
    new = relearn.prepare(source.path, tmp_path / "new", "rloo")
    assert "itself a relearn" in refused(new.path, tmp_path / "newer")
    going = record(tmp_path / "going")
    log = going.open_log()
    writer = log.writer(going.names().own("test"))
    with writer.transaction() as transaction:
        phase = control_pb2.Control(phase=control_pb2.PHASE_RUNNING)
        transaction.sends.append(records.encode(going.names().topic("control"), "run", phase))
    writer.close()
    log.close()
    assert "is running; accepted: a finished run" in refused(going.path, tmp_path / "newest")


def test_an_archive_gives_the_same_account_and_the_same_weights_as_the_run(source, tmp_path, capsys):
    folder = tmp_path / "archive"
    assert cli.main(["archive", str(source.path), str(folder)]) == 0
    assert relearn.audit_directory(RunDir.of(folder)) == relearn.audit_directory(source)
    runs = []
    for name, path in (("a", source.path), ("b", folder)):
        runs.append(relearn.prepare(path, tmp_path / name, "rloo", steps=2))
        train(runs[-1])
    assert same(*runs)
    assert relearn.origin_of(runs[0]).sha256 == relearn.origin_of(runs[1]).sha256
    assert relearn.audit_directory(runs[1]).clean


def test_an_archive_is_written_once_and_of_a_run_only(source, tmp_path, capsys):
    folder = tmp_path / "archive"
    assert cli.main(["archive", str(source.path), str(folder)]) == 0
    assert cli.main(["archive", str(source.path), str(folder)]) == 2
    assert "which exists; accepted: a new one" in capsys.readouterr().err
    assert cli.main(["archive", str(folder), str(tmp_path / "again")]) == 2
    assert "is an archive already; accepted: a run directory" in capsys.readouterr().err
    new = relearn.prepare(source.path, tmp_path / "new", "rloo", steps=1)
    assert cli.main(["archive", str(new.path), str(tmp_path / "third")]) == 2
    assert "is a relearn, which recorded no stream" in capsys.readouterr().err
