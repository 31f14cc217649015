"""Makes `RUN/base`: the model before the first step, as a Hugging Face folder that learning and generation load.

A process of its own, run once by `sluice run` before the services start. A folder or a hub id is linked, not copied;
the builtin model is built on the spot, warm-started and cached.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline import config
from pipeline.base_model import refuse_missing
from pipeline.data.load import load_source
from pipeline.data.register import prompts_of
from pipeline.data.split import merged, without
from pipeline.errors import UserError
from pipeline.lora import Adapter
from pipeline.rundir import RunDir
from services.learning import tiny, warmstart
from services.learning.lora import linear
from services.learning.spread import MODEL_FILES
from sluice.v1 import prompt_pb2

BUILTIN = "builtin:tiny"
COLD = "--cold"
SAY_EVERY_S = 5.0


def main(path: str, how: str = "") -> int:
    """Prepare the run directory at `path`; `how` is --cold or empty. Returns the exit code."""
    directory = RunDir.of(path)
    try:
        prepare(directory, cold=how == COLD)
    except UserError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 2
    return 0


def prepare(directory: RunDir, cold: bool = False) -> None:
    """Make `base` when it is missing, or when the folder it names is gone.

    `cold`: no warm start, and no look at the prompts: enough where the weights come over the log.
    """
    base = directory.folder("base")
    if base.exists():
        return
    run = directory.run()
    if cold and run.model.policy == "lora" and run.model.warm_start is not None:
        raise UserError(
            "model.policy is 'lora' and model.warm_start is set: only the adapter travels, and the model below it is "
            "warmed up on the learner's machine alone; accepted: model.policy full, or the warm model as model.source"
        )
    prompts = [] if cold else prompts_of(run)
    source = _source(run, prompts, cold)
    refuse_long(prompts, source, run.model.context)
    refuse_targets(source, config.adapter(run))
    base.unlink(missing_ok=True)
    os.symlink(source.resolve(), base, target_is_directory=True)


def refuse_long(prompts: Sequence[prompt_pb2.Prompt], model: Path, context: int) -> None:
    """Raise for the first prompt that leaves no room for an answer in `context` tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for prompt in prompts:
        chat = [{"role": turn.role, "content": "".join(part.text for part in turn.parts)} for turn in prompt.messages]
        tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        if len(tokens) >= context:
            raise UserError(
                f"prompt {prompt.prompt_id!r} has {len(tokens)} tokens and model.context is {context}; "
                f"accepted: prompts of at most {context - 1} tokens, or a longer context"
            )


def refuse_targets(model: Path, adapter: Adapter | None) -> None:
    """Raise for a target of the adapter that is no layer of the model. No weights are read."""
    if adapter is None:
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        adapter.layers(linear(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))))


def _source(run: config.Run, prompts: Sequence[prompt_pb2.Prompt], cold: bool) -> Path:
    model = run.model
    if model.source == BUILTIN:
        return _builtin(run, prompts, cold)
    if model.source.startswith("builtin:"):
        raise UserError(f"model.source is {model.source!r}; accepted: {BUILTIN}, a folder, or a Hugging Face id")
    if model.warm_start:
        raise UserError(f"model.warm_start is set and model.source is {model.source!r}; accepted: only with {BUILTIN}")
    folder = Path(model.source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model folder {model.source!r} holds no config.json; accepted: a Hugging Face model folder"
            )
        return folder
    refuse_missing(model.source)
    return _from_hub(model.source)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {name!r} is no folder here and the hub does not give it ({said}); accepted: either"
        ) from error


def _builtin(run: config.Run, prompts: Sequence[prompt_pb2.Prompt], cold: bool) -> Path:
    sizes = {name: getattr(tiny.TinyModel(), name) for name in asdict(tiny.TinyModel())}
    for name in run.model.tiny:
        if name not in sizes:
            raise UserError.choice("model.tiny: a size", name, sizes)
    shape = tiny.TinyModel(**({"seed": run.seed} | run.model.tiny))
    folder = warmstart.cache_folder() / f"tiny-{'-'.join(str(value) for value in asdict(shape).values())}"
    if not folder.is_dir():
        tiny.build(folder, shape)
    settings = run.model.warm_start
    if cold or settings is None or settings.steps == 0:
        return folder
    wanted = warmstart.WarmStart(
        steps=settings.steps,
        enough=settings.enough,
        batch=settings.batch,
        lr=settings.lr,
        slip_share=settings.slip_share,
        slips=tuple(settings.slips),
        seed=run.seed,
    )
    return warmstart.warm_start(folder, _examples(prompts, settings), wanted, progress=Progress())


def _examples(prompts: Sequence[prompt_pb2.Prompt], settings: config.WarmStart) -> list[prompt_pb2.Prompt]:
    knobs = dict(settings.examples)
    kind = knobs.pop("kind", None)
    if kind is None:
        raise UserError(
            "model.warm_start.examples names no kind; accepted: a prompt source, such as {kind: reasoning_gym, ...}"
        )
    unique, _ = merged(load_source(kind, **knobs).prompts())
    fresh = without(unique, prompts)
    if len(fresh) < settings.batch:
        raise UserError(
            f"warm_start.examples leave {len(fresh)} that the run does not ask; accepted: {settings.batch}, or more"
        )
    return fresh


class Progress:
    """A line now and then."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def __call__(self, step: int, steps: int, loss: float) -> None:
        if step == steps or time.monotonic() - self.said > SAY_EVERY_S:
            self.said = time.monotonic()
            print(f"warm start: step {step} of {steps}, loss {loss:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
