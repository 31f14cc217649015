"""What an engine serves is one table: printed in the documentation, and what it refuses is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import cli, config, doctor, serving
from pipeline.errors import UserError


def refused(capsys, *sets: str) -> str:
    """The sentence with which a command refuses this run file; exit code 2."""
    changes = [argument for one in sets for argument in ("--set", one)]
    assert cli.main(["doctor", "pipeline/jobs/spell.yaml", *changes]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sluice: ") and said.count("\n") == 1 and "accepted: " in said
    return said


def test_the_page_is_the_table():
    assert Path("docs/serving.md").read_text() == serving.page()


def test_every_cell_is_served_or_says_why_not():
    cells = list(serving.table())
    assert len({(one.engine, one.form, one.dtype) for one in cells}) == len(cells) == 2 * 4 * 3
    assert all(one.refused or not one.gpu or one.form == "fp8" for one in cells)


def test_fp8_is_refused_where_no_engine_can_take_new_weights_into_it(capsys):
    said = refused(capsys, "generation.quantization=fp8")
    assert "'fp8' with engine transformers and dtype auto: transformers quantises a model while it loads it" in said
    assert "accepted: 'none', or vllm with bfloat16 or vllm with float16" in said
    sets = ("generation.quantization=fp8", "generation.engine=vllm", "generation.dtype=float32")
    assert "vLLM quantises weights of 16 bits only" in refused(capsys, *sets)
    sets = ("generation.quantization=fp8", "generation.engine=vllm", "model.policy=lora")
    assert "is 'fp8' and model.policy 'lora'" in refused(capsys, *sets)


def test_fp8_without_a_gpu_is_refused_when_the_engine_starts():
    with pytest.raises(UserError, match="there is no GPU: vLLM's CPU build has no kernel .*; accepted: 'none'"):
        serving.refuse_here("fp8", "bfloat16", gpu=False)
    serving.refuse_here("fp8", "bfloat16", gpu=True)
    serving.refuse_here("none", "float32", gpu=False)
    with pytest.raises(UserError, match="16 bits only"):
        serving.refuse_here("fp8", "float32", gpu=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.lora.rank=0", "model.lora.rank is 0; accepted: greater than or equal to 1"),
        ("model.lora.alpha=0", "model.lora.alpha is 0; accepted: greater than 0"),
        ("model.lora.targets=[]", "model.lora.targets is []; accepted: "),
        ("model.policy=loar", "model.policy is 'loar'; accepted: 'full' or 'lora'"),
    ],
)
def test_a_wrong_adapter_is_named(capsys, change, said):
    assert said in refused(capsys, "model.policy=lora", change)


def test_a_rank_over_vllms_bound_is_refused_with_vllm_only(capsys):
    sets = ("model.policy=lora", "model.lora.rank=513")
    assert "model.lora.rank is 513 and generation.engine 'vllm'; accepted: up to 512" in refused(
        capsys, *sets, "generation.engine=vllm"
    )
    assert config.load("pipeline/jobs/spell.yaml", list(sets)).model.lora.rank == 513


def test_what_is_trained_never_changes_on_an_existing_run():
    full, lora = config.Run(), config.parse({"model": {"policy": "lora"}})
    with pytest.raises(UserError, match="model.policy was 'full', is 'lora'; accepted: the old value, or another run"):
        config.refuse_another_run(full, lora)
    with pytest.raises(UserError, match="model.lora.rank was 16, is 8"):
        config.refuse_another_run(lora, config.parse({"model": {"policy": "lora", "lora": {"rank": 8}}}))


def test_the_doctor_counts_what_is_trained_and_names_what_serves_it():
    run = config.load("pipeline/jobs/spell.yaml", ["model.policy=lora", "model.lora.rank=4"])
    found = {one.what: one for one in doctor.examine(run)}
    assert found["weights"].found == "a LoRA adapter, beside the base, to transformers"
    parameters, trained = (int(word.replace(",", "")) for word in found["model"].found.split()[::2][:2])
    assert 0 < trained < 0.2 * parameters
