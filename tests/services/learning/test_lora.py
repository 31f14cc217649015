"""A LoRA adapter: it alone is trained, kept, published; exported, it is the policy that was served."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from pipeline import config
from pipeline import lora as names
from pipeline.errors import UserError
from pipeline.lora import Adapter
from pipeline.recipe import load_recipe
from pipeline.rundir import RunDir
from services.learning import checkpoint, first_model, lora, merge
from services.learning import model as policy
from services.learning.export import export
from services.learning.model import Compute
from services.learning.trainer import Trainer
from tests.services.learning.rollouts import random_groups, tiny_model

ADAPTER = Adapter(rank=2, alpha=8.0)
PARTS = 2 * 7 * 2
"""Tensors of an adapter on 2 layers: A and B on q, k, v, o, gate, up, down."""
TEXT = torch.tensor([[1, 2, 3, 4, 5, 6]])
WITH_REFERENCE = {"base": "grpo", "regularizers": [{"name": "kl", "coef": 0.1}]}


def adapted(adapter: Adapter = ADAPTER, dtype: torch.dtype = torch.float64) -> Qwen2ForCausalLM:
    return lora.adapted(tiny_model(dtype=dtype), adapter)


def trainer(recipe="grpo", model=None) -> Trainer:
    changed = recipe if isinstance(recipe, dict) else {"base": recipe}
    changed = load_recipe({**changed, "optimizer": {"name": "adamw", "lr": 1e-2}})
    return Trainer(model or adapted(), changed, max_tokens=6, compute=Compute(device="cpu"))


def trained(steps: int, recipe="grpo") -> Trainer:
    one = trainer(recipe)
    for step in range(steps):
        one.step(random_groups(step), version=3)
    return one


@torch.no_grad()
def logp(model: torch.nn.Module) -> torch.Tensor:
    return model(TEXT).logits.log_softmax(-1)


def bits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lora.own(model).items()}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_an_untrained_adapter_changes_nothing_and_a_step_trains_it_alone():
    plain, one = tiny_model(), trainer()
    assert torch.equal(logp(one.model), logp(plain))
    before = bits(one.model)
    one.step(random_groups(), version=3)
    assert len(before) == PARTS and one.trained().keys() == before.keys()
    assert any(not torch.equal(now, before[name]) for name, now in bits(one.model).items())
    base = {name.replace(".base_layer.", "."): p for name, p in one.model.named_parameters() if "lora_" not in name}
    assert all(torch.equal(base[name], parameter) for name, parameter in plain.named_parameters())
    assert all(parameter.grad is None for parameter in base.values())
    assert not torch.equal(logp(one.model), logp(plain))


def test_the_reference_is_the_base_with_the_adapter_off_in_the_same_memory():
    one = trained(2, WITH_REFERENCE)
    reference = one.copies["reference"]
    assert torch.equal(logp(reference), logp(tiny_model()))
    own = dict(one.model.named_parameters())
    for name, parameter in reference.named_parameters():
        assert (parameter.data_ptr() == own[name].data_ptr()) == (not names.is_part(name))
    assert reference.model.layers[0].self_attn.q_proj.disable_adapters
    assert not one.model.model.layers[0].self_attn.q_proj.disable_adapters


def test_a_slow_copy_follows_by_its_adapter():
    one = trainer(model=adapted())
    copy = lora.frozen(one.model)
    one.step(random_groups(), version=3)
    assert not torch.equal(logp(copy), logp(one.model))
    copy.load_state_dict(one.model.state_dict())
    assert torch.equal(logp(copy), logp(one.model))


def test_only_the_adapter_travels_under_the_names_of_pefts_files():
    one = trained(1)
    found = dict(policy.weights(one.model, "bfloat16"))
    assert len(found) == PARTS and all(tensor.dtype == torch.bfloat16 for tensor in found.values())
    assert list(found)[0] == "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    values = sum(tensor.numel() for tensor in found.values())
    assert values == 2 * 2 * (32 + 24 + 24 + 32 + 3 * 48)  # layers, rank, in + out of q, k, v, o, gate and up and down
    assert values * 3 < sum(parameter.numel() for parameter in tiny_model().parameters())


def test_a_learner_that_is_killed_goes_on_with_the_same_adapter_bit_for_bit(tmp_path):
    wanted = bits(trained(4).model)
    child = os.fork()
    if not child:
        try:
            one = trained(2)
            checkpoint.save(tmp_path, 1, 2, one.state())
            one.step(random_groups(2), version=3)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    state = checkpoint.load(tmp_path, folder.name, checkpoint.digest(folder))
    assert len(state["model"]) == PARTS
    again = trainer()
    again.load_state(state)
    for step in (2, 3):
        again.step(random_groups(step), version=3)
    assert_same(bits(again.model), wanted)


def test_a_checkpoint_of_a_whole_model_is_refused():
    whole = trainer(model=tiny_model()).state()
    with pytest.raises(UserError, match="the checkpoint's model and the run's differ in the tensor .*the same model"):
        trainer().load_state(whole)


def test_an_export_is_the_policy_merged_and_the_adapter_beside_it(tmp_path):
    from peft import PeftModel

    base = tmp_path / "base"
    tiny_model(dtype=torch.float32).save_pretrained(base)
    model = adapted(dtype=torch.float32)
    one = trainer(model=model)
    one.step(random_groups(), version=3)
    model.eval()
    assert (logp(model) - logp(tiny_model(dtype=torch.float32))).abs().max() > 1e-3
    folder = export(model, base, tmp_path / "model")
    torch.testing.assert_close(logp(AutoModelForCausalLM.from_pretrained(folder)), logp(model), atol=1e-5, rtol=0)
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder / "adapter")
    torch.testing.assert_close(logp(beside), logp(model), atol=1e-5, rtol=0)
    merge.merge(base, folder / "adapter", tmp_path / "again")
    torch.testing.assert_close(
        logp(AutoModelForCausalLM.from_pretrained(tmp_path / "again")), logp(model), atol=1e-5, rtol=0
    )
    assert checkpoint.digest(folder) != checkpoint.digest(tmp_path / "model" / "adapter")


def test_targets_choose_layers_and_an_unknown_one_is_refused_with_those_that_there_are():
    model = adapted(Adapter(rank=1, targets=("q_proj", "layers.0.mlp.up_proj")))
    found = {name.rpartition(".lora_")[0] for name in lora.travelling(model)}
    assert found == {
        "base_model.model.model.layers.0.self_attn.q_proj",
        "base_model.model.model.layers.1.self_attn.q_proj",
        "base_model.model.model.layers.0.mlp.up_proj",
    }
    accepted = "accepted: all-linear, down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    for wrong in ("query", "lm_head", "proj"):
        with pytest.raises(UserError, match=f"model.lora.targets: a layer is '{wrong}'; {accepted}"):
            adapted(Adapter(targets=("q_proj", wrong)))


def made(tmp_path, capsys, **model) -> str:
    """What making `base` for such a run says: exit code 2 and one sentence."""
    tiny_model(dtype=torch.float32).save_pretrained(tmp_path / "model")
    capsys.readouterr()
    source = {} if "warm_start" in model else {"source": str(tmp_path / "model")}
    run = config.parse({"model": {"policy": "lora", **source, **model}})
    assert first_model.main(str(RunDir.make(tmp_path / "run", run).path), "--cold") == 2
    said = capsys.readouterr().err
    assert said.startswith("sluice: ") and said.count("\n") == 1 and "accepted: " in said
    return said


def test_an_unknown_target_is_refused_before_anything_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(first_model, "refuse_long", lambda *_: None)  # this model has no tokenizer
    assert "a layer is 'query'; accepted: all-linear" in made(tmp_path, capsys, lora={"targets": ["query"]})


def test_a_worker_elsewhere_never_puts_an_adapter_on_a_model_that_was_warmed_up_on_another_machine(tmp_path, capsys):
    assert "only the adapter travels" in made(tmp_path, capsys, warm_start={"steps": 1})
