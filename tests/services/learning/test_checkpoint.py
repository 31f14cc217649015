"""Checkpoints: whole or not at all, what was saved or an error that says so."""

import resource

import numpy as np
import pytest

from pipeline.errors import Retryable
from services.learning import checkpoint
from services.learning.checkpoint import Damaged

STATE = {
    "model": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.float32(2.5).reshape(())},
    "learner": {"step": 3, "names": [["r-1", 0]], "none": None, "empty": {}},
}


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    saved = checkpoint.save(tmp_path, 2, 3, STATE)
    state = checkpoint.load(tmp_path, saved.name, saved.sha256)
    assert same(state["model"], STATE["model"]) and state["learner"] == STATE["learner"]
    assert saved.name == "step-000000000003-epoch-2" and len(saved.sha256) == 32
    assert saved.size_bytes == sum(path.stat().st_size for path in (tmp_path / saved.name).iterdir())


def test_torch_tensors_come_back_as_torch_tensors(tmp_path):
    import torch

    state = {"model": {"weight": torch.arange(4, dtype=torch.bfloat16), "scalar": torch.tensor(1.5)}}
    saved = checkpoint.save(tmp_path, 1, 1, state)
    loaded = checkpoint.load(tmp_path, saved.name, saved.sha256)["model"]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state["model"].items())


def test_a_name_is_used_once(tmp_path):
    names = [checkpoint.save(tmp_path, 1, 3, STATE).name for _ in range(3)]
    assert len(set(names)) == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove a file", "add a file", "remove it"])
def test_damage_is_found(tmp_path, damage):
    saved = checkpoint.save(tmp_path, 1, 3, STATE)
    folder = tmp_path / saved.name
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-1])
    elif damage == "remove a file":
        file.unlink()
    elif damage == "add a file":
        (folder / "more.json").write_text("{}")
    else:
        folder.rename(tmp_path / "elsewhere")
    with pytest.raises(Damaged, match=saved.name):
        checkpoint.load(tmp_path, saved.name, saved.sha256)


def test_files_that_have_their_digest_and_no_meaning_are_damage_too(tmp_path):
    folder = tmp_path / "step-000000000003-epoch-1"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Damaged, match="cannot be read"):
        checkpoint.load(tmp_path, folder.name, checkpoint.digest(folder))


def test_a_disk_that_is_full_keeps_the_last_good_one_and_leaves_nothing_half_written(tmp_path):
    good = checkpoint.save(tmp_path, 1, 3, STATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the kernel refuses to write files beyond 1000 bytes
    try:
        with pytest.raises(Retryable, match="the checkpoint of step 6 cannot be written .* the last good one stays"):
            checkpoint.save(tmp_path, 1, 6, {"learner": {}, "model": {"weight": np.zeros(10_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert checkpoint.load(tmp_path, good.name, good.sha256)["learner"] == STATE["learner"]


def test_pruning_keeps_the_newest_named_ones_and_at_least_two(tmp_path):
    named = [checkpoint.save(tmp_path, 1, step, STATE).name for step in (1, 2, 3, 4)]
    unnamed = checkpoint.save(tmp_path, 1, 5, STATE).name
    (tmp_path / ".aside-step-000000000006-epoch-1").mkdir()
    (tmp_path / "mine.txt").write_text("not ours")
    checkpoint.prune(tmp_path, named[::-1], keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", *named[2:]]
    assert unnamed not in named
