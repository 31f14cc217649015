"""What weights an engine can be kept up to date with: one table of form x dtype x engine, each cell tested or refused.

`tests/services/generation/test_matrix.py` walks it: what it does not refuse is published, read back, applied and
compared. A run file that asks for a refused cell is refused with the cell's reason; `docs/serving.md` is `page()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import UserError

ENGINES = ("transformers", "vllm")
FORMS = {
    "plain": "every weight; output layer of its own",
    "tied": "every weight; output layer tied to the embedding",
    "lora": "a LoRA adapter on the model as it was",
    "fp8": "every weight, quantised as it is applied",
}
DTYPES = ("float32", "bfloat16", "float16")
MOST_RANK = 512
"""vLLM's own bound for an adapter's rank."""

NEEDS_GPU = "vLLM's CPU build has no kernel that quantises weights to fp8"
WHOLE_FROM_16_BITS = "vLLM quantises weights of 16 bits only"
NO_FP8_RELOAD = "transformers quantises a model while it loads it, and its fp8 layers take no new weights"
NO_FP8_LORA = "the base would be quantised and the learner's is not: log-probs would part from the learner's for good"


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. `refused`: why it is not served; empty where it is. `gpu`: it is only with a GPU."""

    engine: str
    form: str
    dtype: str
    refused: str = ""
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run file asks for, in its own words."""

    engine: str
    policy: str
    quantization: str
    dtype: str
    rank: int


def table() -> Iterator[Cell]:
    """Every cell."""
    for engine in ENGINES:
        for form in FORMS:
            for dtype in DTYPES:
                yield _cell(engine, form, dtype)


def refuse(asked: Asked) -> None:
    """Raise for what no machine serves. A dtype of `auto` is looked at where the machine is known."""
    if asked.policy == "lora" and asked.quantization == "fp8":
        raise UserError(f"generation.quantization is 'fp8' and model.policy 'lora': {NO_FP8_LORA}; accepted: 'none'")
    if asked.policy == "lora" and asked.engine == "vllm" and asked.rank > MOST_RANK:
        raise UserError(f"model.lora.rank is {asked.rank} and generation.engine 'vllm'; accepted: up to {MOST_RANK}")
    if asked.quantization != "fp8":
        return
    cell = _cell(asked.engine, "fp8", "bfloat16" if asked.dtype == "auto" else asked.dtype)
    if cell.refused:
        served = [one for one in table() if one.form == "fp8" and not one.refused]
        accepted = " or ".join(f"{one.engine} with {one.dtype}" for one in served)
        raise UserError(
            f"generation.quantization is 'fp8' with engine {cell.engine} and dtype {asked.dtype}: {cell.refused}; "
            f"accepted: 'none', or {accepted}"
        )


def refuse_here(quantization: str, dtype: str, gpu: bool) -> None:
    """Raise for what vLLM does not serve on this machine; `dtype` is the one that `auto` means here."""
    if quantization == "fp8" and not gpu:
        raise UserError(f"generation.quantization is 'fp8' and there is no GPU: {NEEDS_GPU}; accepted: 'none'")
    refuse(Asked("vllm", "full", quantization, dtype, 0))


def page() -> str:
    """The table as a page of the documentation."""
    cells = {(one.engine, one.form, one.dtype): one for one in table()}
    reasons = list(dict.fromkeys(one.refused for one in table() if one.refused))
    rows = []
    for form in FORMS:
        for dtype in DTYPES:
            said = [_said(cells[engine, form, dtype], reasons) for engine in ENGINES]
            rows.append(f"| {form} | {dtype} | {' | '.join(said)} |")
    return PAGE.format(
        forms="\n".join(f"- **{form}**: {meaning}" for form, meaning in FORMS.items()),
        head=f"| form | weights.dtype | {' | '.join(ENGINES)} |\n|---|---|{'---|' * len(ENGINES)}",
        rows="\n".join(rows),
        reasons="\n".join(f"{number}. {reason}." for number, reason in enumerate(reasons, 1)),
        no_gpu=NEEDS_GPU,
    )


PAGE = """# Which weights travel to which engine

{forms}

{head}
{rows}

Refused, at start and in one sentence, because:

{reasons}

Without a GPU `generation.quantization: fp8` is refused when the engine starts: {no_gpu}.

`tested` is `tests/services/generation/test_matrix.py`: a version is published as an anchor, the next as a delta, both
go over a log, and what the engine then holds (with vLLM: the log-probs that it reports) is compared with the learner's
weights cast to that type. `with a GPU` is the same test, which is skipped where there is none. With fp8 every update is
a dense reload from the reader's own copy of the policy, which the deltas keep whole: the scale of a quantised layer
depends on all of its weights.

A delta travels as a delta to every engine, and is decoded into the reader's copy before the pause. What happens in the
pause differs: transformers exchanges memory with that copy, which takes no longer for a large policy than for a small
one; vLLM loads the whole policy from shared memory through the model's own `load_weights`, layer by layer, because its
layers do not keep the weights that they were given (on a CPU they are repacked for oneDNN and the originals dropped),
so that there is nothing left which a patch of a few values could be written into.

## An adapter instead of every weight

`model.policy: lora` trains a LoRA adapter (PEFT's) and nothing else. Only its tensors travel, under the names of PEFT's
own files; workers have the model as it was from `base`. It is served beside the base and never merged into it:
rounding the sum to 16 bits would lose updates that are smaller than 1/256 of a weight, and undoing the last version
exactly would take a second copy of the base. The reference policy of a recipe is the base with the adapter off. Every
manifest has the base's digest, and a worker whose own `base` has another refuses it.

At the end `RUN/model` is the merged model in float32, which loads with plain `AutoModelForCausalLM`, and
`RUN/model/adapter` the adapter, which PEFT and vLLM load. `sluice weights export RUN VERSION DIR` writes the same of
a version. With vLLM the adapter is replaced in place under the same id: rollouts in flight go on with the new one.
"""


def _said(cell: Cell, reasons: list[str]) -> str:
    if cell.refused:
        return f"refused ({reasons.index(cell.refused) + 1})"
    return "with a GPU" if cell.gpu else "tested"


def _cell(engine: str, form: str, dtype: str) -> Cell:
    if form != "fp8":
        return Cell(engine, form, dtype)
    if engine == "transformers":
        return Cell(engine, form, dtype, NO_FP8_RELOAD)
    return Cell(engine, form, dtype, WHOLE_FROM_16_BITS if dtype == "float32" else "", gpu=True)
