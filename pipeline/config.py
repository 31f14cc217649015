"""The run file: one YAML file that is complete, read strictly and refused early.

    run: demo                     every field below has a default; `sluice init` writes a commented file
    log: embedded                 or kafka://host:port
    model: {source: builtin:tiny}
    data: {sources: [{kind: reasoning_gym, name: spell_backward}]}
    recipe: grpo
    ...

Every field says when it may change: `identity` (never on an existing run: it would be another run), `restart`
(between two starts) or `live`. A wrong value is refused with a sentence that names it and what is accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline import config_errors, lora, parts, partspec, serving, yaml12
from pipeline import overrides as settings
from pipeline.errors import UserError

IDENTITY, RESTART, LIVE = "identity", "restart", "live"
KAFKA = re.compile(r"kafka://[^/,\s]+:\d+(,[^/,\s]+:\d+)*/?")


def knob(default: Any, change: str, meaning: str, **bounds: Any) -> Any:
    """A field: default, when it may change, what it means (with its unit)."""
    return Field(default, description=meaning, json_schema_extra={"change": change}, **bounds)


class Section(BaseModel):
    """Unknown fields are refused, everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class WarmStart(Section):
    """A short supervised phase before the first rollout; only for models that are built on the spot."""

    examples: dict[str, Any] = knob(
        {}, IDENTITY, "Source of solved examples (kind and knobs); those that the run's own data ask are left out."
    )
    steps: int = knob(600, IDENTITY, "Most optimiser steps; 0 leaves the model as it was built.", ge=0)
    slips: list[str] = knob(
        ["last_letter_missing", "first_letter_doubled", "last_two_swapped"],
        IDENTITY,
        "Systematic slips that half of the solved examples carry.",
    )
    slip_share: float = knob(0.5, IDENTITY, "Share of examples that carry a slip, 0 to 1.", ge=0, le=1)
    enough: float = knob(
        0.36, IDENTITY, "It stops when right answers of examples set aside are this likely, 0 to 1.", gt=0, le=1
    )
    lr: float = knob(1e-3, IDENTITY, "Learning rate.", gt=0)
    batch: int = knob(64, IDENTITY, "Examples per step.", ge=1)


class Lora(Section):
    """The adapter that is trained and travels where `policy` is lora. No dropout: log-probs are those of sampling."""

    rank: int = knob(16, IDENTITY, "Rank of the update of a layer.", ge=1)
    alpha: float = knob(32.0, IDENTITY, "The update is scaled by alpha / rank.", gt=0)
    targets: list[str] = knob(
        ["all-linear"], IDENTITY, "Layers, by the end of their names: [q_proj, v_proj]; or [all-linear].", min_length=1
    )


class Model(Section):
    """The policy that is trained."""

    source: str = knob("builtin:tiny", IDENTITY, "builtin:tiny, a folder, or a Hugging Face id.", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", RESTART, "Of learning; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: str = knob("auto", RESTART, "auto, cpu, cuda or cuda:N.")
    context: int = knob(512, RESTART, "Longest prompt plus answer, tokens.", ge=8)
    tiny: dict[str, int] = knob(
        {}, IDENTITY, "Sizes of the builtin model: layers, hidden, heads, kv_heads, intermediate."
    )
    warm_start: WarmStart | None = knob(None, IDENTITY, "Supervised phase before the first rollout.")
    policy: Literal["full", "lora"] = knob(
        "full", IDENTITY, "What is trained and travels: every weight, or a LoRA adapter on the model as it was."
    )
    lora: Lora = Field(default_factory=Lora)


class Data(Section):
    """What is tried."""

    sources: list[dict[str, Any]] = knob(
        [{"kind": "reasoning_gym", "name": "spell_backward"}],
        IDENTITY,
        "Prompt sources: kind (reasoning_gym, jsonl, huggingface, entry_point) and its knobs.",
        min_length=1,
    )
    held_out: int = knob(256, IDENTITY, "Problems never trained on, kept for evaluation.", ge=0)
    system_prompt: str = knob("", IDENTITY, "Put before every conversation; empty means none.")


class Generation(Section):
    """Who samples."""

    engine: Literal["transformers", "vllm"] = knob("transformers", RESTART, "Which engine.")
    workers: int = knob(1, LIVE, "Processes that `sluice run` starts.", ge=0)
    replicas: int = knob(1, RESTART, "Engines in one worker, each with its own copy of the model.", ge=1)
    tensor_parallel: int = knob(1, RESTART, "GPUs that one engine spreads its model over; vllm only.", ge=1)
    slots: int = knob(128, RESTART, "Sequences that one engine samples at a time.", ge=1)
    temperature: float = knob(1.0, RESTART, "Of training rollouts, > 0.", gt=0)
    max_tokens: int = knob(128, RESTART, "Longest answer, tokens.", ge=1)
    stop: list[str] = knob([], RESTART, "Strings that end an answer.")
    kv: Literal["keep", "recompute"] = knob("keep", RESTART, "Cached context at a weight update.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob("auto", RESTART, "Of the serving weights.")
    quantization: Literal["none", "fp8"] = knob(
        "none", RESTART, "Of the serving weights, done as they are applied; fp8: vllm on a GPU only."
    )
    threads: int = knob(1, RESTART, "CPU threads of a worker's tensor library.", ge=1)
    kv_high: float = knob(
        0.95,
        RESTART,
        "Share of vLLM's KV cache above which fewer sequences are admitted; 1: never.",
        gt=0,
        le=1,
    )
    request_deadline_s: float = knob(600.0, RESTART, "A request not begun by then expires, seconds.", gt=0)
    guidance: list[dict[str, Any]] = knob(
        [], RESTART, "Parts of generation.guidance: [{name: arrol, ...}]; hints, pruning, temperatures. Empty: none."
    )
    engine_args: dict[str, Any] = knob({}, RESTART, "Passed to the engine as they are.")

    @field_validator("tensor_parallel")
    @classmethod
    def _of_vllm(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("engine") == "transformers":
            raise PydanticCustomError("engine", "1 with engine: transformers, any number with engine: vllm")
        return value


class SecondLook(Section):
    """A stronger check of a random share of rollouts: how often the first one errs. Never a reward."""

    share: float = knob(0.0, RESTART, "Share of rollouts that are looked at again, 0 to 1.", ge=0, le=1)
    check: dict[str, Any] | None = knob(None, RESTART, "The stronger check: {name: math, ...}, with its knobs.")
    spec: dict[str, Any] | None = knob(
        None, RESTART, "What it is told of prompts without a hidden spec; None: what the first check is told."
    )
    window: int = knob(
        200, RESTART, "Rollouts looked at, the first and the newest so many, that the alarm compares.", ge=20
    )

    @model_validator(mode="after")
    def _whole(self) -> SecondLook:
        if self.share and self.check is None:
            raise UserError(f"verification.second_look.share is {self.share} without a check; accepted: a check, or 0")
        if self.check is not None:
            name, knobs = self.part()
            refuse_check("verification.second_look.check", name, knobs)
        return self

    def part(self) -> tuple[str, dict[str, Any]]:
        """The stronger check's name, empty when there is none, and its knobs."""
        told = dict(self.check or {})
        return str(told.pop("name", "")), told


class Verification(Section):
    """Who checks."""

    workers: int = knob(1, LIVE, "Processes that `sluice run` starts.", ge=0)
    pool: int = knob(
        0,
        RESTART,
        "Checking processes of one worker, 0: one for each core, at least 2; with 1 a hanging check delays.",
        ge=0,
    )
    timeout_s: float = knob(10.0, RESTART, "Wall time of one check, seconds.", gt=0)
    tries: int = knob(3, RESTART, "How often a check is tried when the checker itself fails.", ge=1)
    delay_s: float = knob(0.0, RESTART, "Artificial delay of every verdict, seconds; for benchmarks.", ge=0)
    shuffle: bool = knob(False, RESTART, "Deal verdicts to other rollouts at random; for benchmarks.")
    checks: dict[str, dict[str, Any]] = knob({}, RESTART, "Knobs of checks, by name: {judge: {url: ..., model: ...}}.")
    second_look: SecondLook = Field(default_factory=SecondLook)

    @model_validator(mode="after")
    def _checks(self) -> Verification:
        for name, knobs in self.checks.items():
            refuse_check("verification.checks", name, knobs)
        return self


def refuse_check(where: str, name: str, knobs: dict[str, Any]) -> None:
    """Raise `UserError` when no check has that name, or a knob is not as declared; a package's is built later."""
    room = "verification.check"
    if name.endswith(".py") or ":" in name or (name not in partspec.names(room) and name in parts.offered(room)):
        return
    spec = partspec.read(room, name)
    if reason := spec.refuse(knobs) if spec else None:
        raise UserError(f"{where}: {reason}")


class Difficulty(Section):
    """Who is tried next. What is left out, the recipe decides."""

    estimate: dict[str, Any] | None = knob(None, RESTART, "Part of difficulty.estimate: {name: beta, ...}.")
    sampler: dict[str, Any] | None = knob(None, RESTART, "Part of difficulty.sampler: {name: uniform, ...}.")
    budget: dict[str, Any] | None = knob(None, RESTART, "Part of difficulty.budget: {name: fixed, n: 8}.")


class Learning(Section):
    """Who trains."""

    steps: int = knob(100, LIVE, "Optimiser steps to do.", ge=1)
    batch_groups: int = knob(32, RESTART, "Groups per step.", ge=1)
    checkpoint_every: int = knob(10, RESTART, "Steps between checkpoints.", ge=1)
    keep_checkpoints: int = knob(2, RESTART, "Named checkpoints kept on disk.", ge=2)
    publish_every: int = knob(1, RESTART, "Steps between published versions.", ge=1)
    lr: float | None = knob(None, RESTART, "Learning rate; None: the recipe's.", ge=0)
    tokens_per_micro_batch: int = knob(16384, RESTART, "Padded tokens of one forward and backward pass.", ge=16)
    gradient_checkpointing: bool = knob(False, RESTART, "Trade compute for memory.")
    threads: int = knob(1, RESTART, "CPU threads of the learner's tensor library.", ge=1)
    ranks: int = knob(1, RESTART, "Processes that train each step together, each on a GPU of its own if any.", ge=1)
    ray: str = knob(
        "",
        RESTART,
        "Ray cluster, ray://host:port, whose nodes hold the ranks above 0; empty: this machine holds all.",
        pattern=r"^(ray://[^/:@]+:[0-9]+)?$",
    )


class Weights(Section):
    """How a new policy travels from learning to generation."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = knob(
        "auto", RESTART, "Type of the weights that travel; auto: what generation serves."
    )
    anchor_every: int = knob(
        16, RESTART, "Versions between anchors; those between are deltas. 1: every version is complete.", ge=1
    )
    dense_above: float = knob(
        0.4, RESTART, "A delta over this share of the policy's bytes is sent as an anchor instead.", gt=0, le=1
    )
    store: str = knob(
        "log",
        RESTART,
        "Where anchors go: log, or an fsspec URL that learning writes and generation reads.",
        min_length=1,
    )


class Evaluate(Section):
    """How held-out accuracy is measured."""

    every: int = knob(0, LIVE, "Steps between evaluations during the run; 0: only before and after.", ge=0)
    prompts: int = knob(256, RESTART, "Held-out problems of the evaluation before and after.", ge=0)
    prompts_during: int = knob(64, RESTART, "Held-out problems of an evaluation during the run.", ge=1)
    samples: int = knob(4, RESTART, "Samples per problem at temperature 1.", ge=1)


class Run(Section):
    """A run."""

    run: str = knob("demo", IDENTITY, "Name: begins its topics and groups.", pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")
    prefix: str = knob("sluice", IDENTITY, "Begins every topic, group and id.", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    log: str = knob("embedded", RESTART, "embedded (a file in the run directory), for ever, or kafka://host:port.")
    seed: int = knob(0, IDENTITY, "Seed of data, sampling and initialisation.", ge=0)
    recipe: str | dict[str, Any] = knob("grpo", RESTART, "The method: a shipped recipe's name, a file, or the recipe.")
    max_lag: int = knob(2, RESTART, "Oldest policy that may be trained on, versions behind; 0 is synchronous.", ge=0)
    claims: str = knob("", IDENTITY, "fsspec URL for payloads over 900 kB; empty: a folder in the run directory.")
    model: Model = Field(default_factory=Model)
    data: Data = Field(default_factory=Data)
    generation: Generation = Field(default_factory=Generation)
    verification: Verification = Field(default_factory=Verification)
    difficulty: Difficulty = Field(default_factory=Difficulty)
    learning: Learning = Field(default_factory=Learning)
    weights: Weights = Field(default_factory=Weights)
    evaluate: Evaluate = Field(default_factory=Evaluate)

    @field_validator("log")
    @classmethod
    def _a_log(cls, value: str) -> str:
        if value != "embedded" and not KAFKA.fullmatch(value):
            raise UserError(f"log is {value!r}; accepted: embedded, or kafka://host:port")
        return value

    @model_validator(mode="after")
    def _a_gpu_for_each_rank(self) -> Run:
        if self.learning.ranks > 1 and ":" in self.model.device:
            said = f"model.device is {self.model.device!r} with learning.ranks of {self.learning.ranks}"
            raise UserError(f"{said}; accepted: auto, cpu or cuda, and rank k has GPU k")
        if self.learning.ray and self.learning.ranks == 1:
            said = f"learning.ray is {self.learning.ray!r} with learning.ranks of 1; accepted: two ranks or more"
            raise UserError(f"{said}, of which the first stays with the learner")
        return self


def load(path: str | Path, overrides: Annotated[list[str], "a.b=c"] | None = None) -> Run:
    """Read a run file. Raises `UserError` for whatever is wrong with it."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"run file {str(path)!r} does not exist; accepted: a YAML file (`sluice init` writes one)")
    try:
        tree = yaml12.read(file.read_text())
    except yaml.YAMLError as error:
        raise UserError(
            f"run file {str(path)!r} is no YAML: {' '.join(str(error).split())}; accepted: a YAML mapping"
        ) from error
    return parse({} if tree is None else tree, overrides or [], where=str(path))


def parse(tree: Any, overrides: list[str] | None = None, where: str = "run file") -> Run:
    """A run from plain data."""
    if not isinstance(tree, dict):
        raise UserError(f"{where} holds {type(tree).__name__}; accepted: a mapping of fields")
    for override in overrides or []:
        tree = settings.apply(tree, override)
    try:
        run = Run.model_validate(tree)
    except ValidationError as error:
        raise UserError(config_errors.sentence(error, where, Run)) from error
    asked = serving.Asked(
        run.generation.engine, run.model.policy, run.generation.quantization, run.generation.dtype, run.model.lora.rank
    )
    serving.refuse(asked)
    return run


def canonical(run: Run) -> str:
    """The complete file as canonical JSON."""
    return json.dumps(run.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def fields(section: type[Section] = Run, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, when it may change) of every field."""
    for name, field in section.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict):
            yield prefix + name, str(extra["change"])
        else:
            yield from fields(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def identity(run: Run) -> dict[str, Any]:
    """What makes it the run it is, by field. Of a log on Kafka not the address: brokers come and go, the log stays."""
    tree = run.model_dump(mode="json")
    chosen = {name: _get(tree, name) for name, kind in fields() if kind == IDENTITY}
    return chosen | {"log": run.log if run.log == "embedded" else "kafka://"}


def refuse_another_run(old: Run, new: Run) -> None:
    """Raise when `new` changes what makes `old` the run it is."""
    before, after = identity(old), identity(new)
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        said = "; ".join(f"{name} was {before[name]!r}, is {after[name]!r}" for name in changed)
        raise UserError(
            f"the run exists and its identity cannot change: {said}; accepted: the old value, or another run"
        )


def identity_digest(run: Run) -> bytes:
    """SHA-256 over what makes it the run it is, 32 bytes."""
    return hashlib.sha256(json.dumps(identity(run), sort_keys=True).encode()).digest()


def weights_store(run: Run) -> str:
    """The fsspec URL of anchors; empty when they go to the log."""
    return "" if run.weights.store == "log" else run.weights.store


def adapter(run: Run) -> lora.Adapter | None:
    """The adapter that is trained; None where every weight is."""
    knobs = run.model.lora
    return lora.Adapter(knobs.rank, knobs.alpha, tuple(knobs.targets)) if run.model.policy == "lora" else None


def schema() -> dict[str, Any]:
    """JSON schema of the run file, for editors."""
    return Run.model_json_schema()


def _get(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree[key]
    return tree
