"""The trainer: groups in, one optimiser step, and an account of what became of every rollout.

    share -> intake (reward, select) -> signals -> advantage -> [forward -> coef -> backward] x micro-batches
          -> sum over ranks -> clip -> update -> controllers -> account

One `step` is one optimiser step. Log, clock and disk are the caller's. With several ranks every method marked
collective runs on all of them: rank 0 calls it, the others sit in `follow`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.recipe import Recipe
from services.learning import account, lora, snapshot
from services.learning import model as policy
from services.learning.account import StepResult
from services.learning.batch import Batch, Denominators
from services.learning.build import build
from services.learning.collate import collate
from services.learning.group import Group
from services.learning.intake import Ready, advantage, float_dtype, intake, row_reasons, unrewarded
from services.learning.likelihood import Forward
from services.learning.model import Compute
from services.learning.packing import plan
from services.learning.proximal import proximal
from services.learning.ranks import ALONE, World
from services.learning.reduce import per_token
from services.learning.spread import spread
from services.learning.tally import Tally
from sluice.v1 import training_pb2

STOP, STEP, STATE, LOAD, IDLE = range(5)
IDLE_S = 60.0
"""Rank 0 says something to the others at least this often."""


class Trainer:
    """A model under a recipe. `max_tokens`: the most tokens a rollout may sample.

    `reference`: the reference policy where the recipe needs one; by default a copy of the model as it is now, and of a
    model with an adapter the model without it. `heads` are trained with the model and kept in its checkpoints; `copies`
    are frozen models that signal parts score with.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        max_tokens: int,
        compute: Compute | None = None,
        world: World = ALONE,
        reference: nn.Module | None = None,
    ) -> None:
        self.compute = compute or Compute()
        self.method = build(recipe)
        self.model = policy.prepare(model, self.compute)
        self.world = world
        self.max_tokens = max_tokens
        self.device = next(self.model.parameters()).device
        self.dtype = float_dtype(self.model)
        self.steps = 0
        width = self.model.config.get_text_config().hidden_size
        heads = {name: part.head(width).to(self.device, self.dtype) for name, part in self.method.heads.items()}
        self.heads = nn.ModuleDict(heads)
        self.optimizer = self.method.optimizer.build(lora.own(self.model).values())
        for name, head in heads.items():
            own = {"params": list(head.parameters()), "weight_decay": 0.0, "scale": self.method.heads[name].rate}
            self.optimizer.add_param_group(own)
        self.copies = {
            name: lora.frozen(reference if reference is not None and name == "reference" else self.model).to(
                self.device
            )
            for name in self.method.copies
        }
        for name, part in self.method.copies.items():
            if getattr(part, "still", False):
                lora.bare(self.copies[name])
        self.estimator, self.controllers = self.method.opened()
        self._reasons = row_reasons(self.method)
        self._told_at = time.monotonic()

    # -- the step

    def refuses(self, group: Group) -> str:
        """Why a closed group is not worth a place in a batch ("degenerate_group", "short_group"); "" keeps it. Pure.

        A group in which some rollouts have no reward is kept for the others; `step` leaves those out.
        """
        quiet = all(part.name == "all_groups" for part in self.method.recipe.select)
        if quiet and len(group.members) >= self.method.recipe.min_group and not any(map(unrewarded, group.members)):
            return ""
        ready = intake(self.method, [group], partial(self._collate, version=0, world=ALONE, device="cpu"))
        return "" if ready.rows else next((reason for reason in reversed(ready.reasons) if reason), "empty_group")

    def step(self, groups: Sequence[Group], version: int) -> StepResult:
        """Train `version` on these groups, once. Collective; called on rank 0."""
        self._tell(STEP)
        return self._step(groups, version)

    def follow(self) -> None:
        """Ranks above 0: take part in what rank 0 does until it says `stop`."""
        acts = {STEP: lambda: self._step(None, 0), STATE: self._state, LOAD: self._load, IDLE: lambda: None}
        while (command := self.world.tell(STOP)) != STOP:
            acts[command]()

    def stop(self) -> None:
        """Let the other ranks return from `follow`."""
        self._tell(STOP)

    def idle(self) -> None:
        """Nothing to do: say so to ranks that would take a longer silence for a death."""
        if time.monotonic() - self._told_at > IDLE_S:
            self._tell(IDLE)

    def _tell(self, command: int) -> None:
        self._told_at = time.monotonic()
        self.world.tell(command)

    def _step(self, groups: Sequence[Group] | None, version: int) -> StepResult:
        mine, deals, version = self.world.share(groups, version, sticky=self.method.sticky)
        ready = intake(self.method, mine, partial(self._collate, version=version, world=self.world))
        tally, metrics, shifts = None, {}, []
        skipped = "" if ready.batch.denominators.tokens else "empty_step"
        if not skipped:
            ready = self._credited(ready)
            tally = self._backward(ready.batch)
            metrics = tally.metrics()
            skipped, moved = self._update(metrics["loss"], ready.batch)
            shifts, seen = ([], {}) if skipped else self._control(ready.batch)
            metrics |= moved | seen
        table = account.rows(ready, tally.rows_N3 if tally else None, skipped, self._reasons)
        uses, dropped = account.settle(self.world, groups, deals, table, self._reasons)
        return StepResult(version, skipped, tuple(uses), tuple(dropped), tuple(shifts), metrics)

    def _collate(self, groups: Sequence[Group], version: int, world: World, device: Any = None) -> Batch:
        batch = collate(groups, version, self.max_tokens, device or self.device, self.dtype, world)
        told = [part.before_step() for part in self.controllers.values() if hasattr(part, "before_step")]
        known = {name: torch.full_like(batch.accuracy_N, x) for signals in told for name, x in signals.items()}
        return batch.with_signals(**known) if known else batch

    def _plan(self, batch: Batch) -> list[list[int]]:
        method = self.method
        whole = method.estimator.objective is not None or method.likelihood.together(self.model, batch)
        return plan(batch, self.compute.token_budget, whole)

    def _credited(self, ready: Ready) -> Ready:
        """The batch with its signals and its advantage, and without what late selections leave out. Collective."""
        batch = self._signals(ready.batch)
        ready = dataclasses.replace(ready, batch=batch.with_signals(advantage=advantage(self.method, batch)))
        late = [part for part in self.method.select if "advantage" in getattr(part, "needs", ())]
        for part in late:
            ready = ready.select(part)
        return dataclasses.replace(ready, batch=ready.batch.counted()) if late else ready

    def _signals(self, batch: Batch) -> Batch:
        """The batch with what parts need beforehand: passes over the whole step without a gradient."""
        bins = self._plan(batch)
        known: dict[str, Forward] = {}

        def score(which: str, other: Batch | None = None, wanted: Collection[str] = ()) -> Forward:
            model = self.model if which == "policy" else self.copies[which]
            if other is not None:
                return self._score(model, other, self._plan(other), wanted)
            if which not in known:
                known[which] = self._score(model, batch, bins, self.method.scored if which == "policy" else wanted)
            return known[which]

        wanted = dict(self.method.signals)
        if self.method.step_late and len(bins) == 1 and self.world.size == 1:
            wanted.pop("step_logp", None)  # the pass of the gradient itself will be the whole step
        found: dict[str, Tensor] = {}
        for name, part in wanted.items():
            made = part(batch, score)
            found |= made if isinstance(made, dict) else {name: made}
        if self.method.prox_early:
            found["prox_logp"] = proximal(self.method.recipe.prox, batch, score("policy").logp_NT)
        return batch.with_signals(**found)

    @torch.no_grad()
    def _score(self, model: nn.Module, batch: Batch, bins: list[list[int]], wanted: Collection[str]) -> Forward:
        """A pass over every row without a gradient."""
        whole: dict[str, Tensor] = {}
        for rows in bins:
            forward = self._forward(model, batch.rows(rows), wanted)
            for name, value in {"logp": forward.logp_NT, **forward.signals}.items():
                if name not in whole:
                    whole[name] = value.new_zeros((*batch.token_NT.shape, *value.shape[2:]))
                whole[name][rows, : value.shape[1]] = value
        return Forward(whole.pop("logp", torch.zeros_like(batch.behaviour_NT)), whole)

    def _forward(self, model: nn.Module, batch: Batch, wanted: Collection[str]) -> Forward:
        """The likelihood's pass, and what the heads make of its hidden states where that is wanted."""
        heads = {name: head for name, head in self.heads.items() if name in wanted}
        with self.compute.autocast():
            forward = self.method.likelihood(model, batch, {*wanted, "hidden"} if heads else wanted)
        if not heads:
            return forward
        signals = {name: x for name, x in forward.signals.items() if name != "hidden" or name in wanted}
        hidden_NTD = forward.signals["hidden"]
        return Forward(forward.logp_NT, signals | {n: head(hidden_NTD) * batch.valid_NT for n, head in heads.items()})

    def _backward(self, batch: Batch) -> Tally:
        """Gradients of the whole step, summed over micro-batches and ranks, and the tally. Collective."""
        tally, estimator = Tally(batch), self.estimator
        tally.expect(estimator.names)
        bins = self._plan(batch)
        late = "step_logp" in self.method.signals and "step_logp" not in batch.signals
        batch = batch if late else batch.with_signals(**estimator.over_step(self._as_begun(batch)))
        counted = self._counted(batch)
        self.optimizer.zero_grad(set_to_none=True)
        for rows in bins:
            micro = batch if len(rows) == len(batch) else batch.rows(rows)
            forward = self._forward(self.model, micro, self.method.forward)
            micro = self._with_own(micro, forward)
            micro = micro.with_signals(**estimator.over_step(micro)) if late else micro
            loss = estimator.loss(micro, forward, micro.signals["advantage"], counted)
            loss.total.backward()
            tally.add(rows, micro, forward, loss)
        self.world.sum_gradients(self.trained().values())
        return tally

    def _with_own(self, micro: Batch, forward: Forward) -> Batch:
        """The signals that the pass of the gradient gives for free: the policy is still that of the step's start."""
        found = {}
        if self.method.recipe.prox != "behaviour" and "prox_logp" not in micro.signals:
            found["prox_logp"] = proximal(self.method.recipe.prox, micro, forward.logp_NT.detach())
        if "step_logp" in self.method.signals and "step_logp" not in micro.signals:
            found["step_logp"] = forward.logp_NT.detach()
        return micro.with_signals(**found) if found else micro

    def _as_begun(self, batch: Batch) -> Batch:
        """The whole step with its proximal log-probs, where the policy's own are known before the gradient's pass."""
        logp_NT = batch.signals.get("step_logp")
        return batch if logp_NT is None else self._with_own(batch, Forward(logp_NT))

    def _counted(self, batch: Batch) -> Denominators | None:
        """What is left of the whole step after masking, for denominators that shrink with it. Collective."""
        estimator = self.estimator
        if not estimator.shrinks or "step_logp" not in batch.signals:
            return None
        batch, logp_NT = self._as_begun(batch), batch.signals["step_logp"]
        advantage_NT = per_token(batch.signals["advantage"], logp_NT).expand_as(logp_NT)
        return estimator.count(batch, estimator.weigh(batch, logp_NT, advantage_NT)[1])

    def _update(self, loss: float, batch: Batch) -> tuple[str, dict[str, float]]:
        """Clip and step; nothing is changed when the loss or the gradient is not finite.

        An optimiser that reads the step's gradient at other weights too says `again`: it gets what computes it anew.
        """
        part = self.method.optimizer
        limit = part.clip_norm if part.clip_norm is not None else math.inf
        norm = float(nn.utils.clip_grad_norm_(self.trained().values(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            return "nan_step", {"grad_norm": norm}
        rate = part.rate(self.steps + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step(*([partial(self._backward, batch)] if getattr(part, "again", False) else []))
        self.steps += 1
        for name, part in self.method.copies.items():
            part.follow(self.copies[name], self.model, self.steps)
        return "", {"grad_norm": norm, "lr": rate}

    def _control(self, batch: Batch) -> tuple[list[training_pb2.PromptShift], dict[str, float]]:
        """Let the controllers look at what was trained. Collective: rank 0 gets every rank's shifts."""
        shifts, metrics = [], {}

        def score(other: Batch) -> Forward:
            return self._score(self.model, other, self._plan(other), ())

        for controller in self.controllers.values():
            found, seen = controller.after_step(batch, score)
            blobs = self.world.gather_bytes(training_pb2.TrainStep(shifts=found).SerializeToString())
            shifts += [shift for blob in blobs for shift in training_pb2.TrainStep.FromString(blob).shifts]
            metrics |= seen
        if shifts:
            metrics["shift_mean"] = sum(shift.mean_abs_logprob_change for shift in shifts) / len(shifts)
        return shifts, metrics

    # -- what outlives the process

    def trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that is trained, by name: the policy's, then the heads' as "heads.<signal>.<name>"."""
        own = {f"heads.{name}": parameter for name, parameter in self.heads.named_parameters()}
        return lora.own(self.model) | own

    def weights(self, dtype: str = "float32") -> Iterator[tuple[str, Tensor]]:
        """What travels (every parameter, or an adapter's), by its checkpoint name, in the serving dtype, on the CPU."""
        return policy.weights(self.model, dtype)

    def state(self) -> dict[str, Any]:
        """Shards for a checkpoint: tensors by name, or JSON. Collective; called on rank 0."""
        self._tell(STATE)
        return self._state()

    def _state(self) -> dict[str, Any]:
        return snapshot.save(self)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`'s shards. Collective; called on rank 0. Raises `UserError` for another model's."""
        self._tell(LOAD)
        self._load(state)

    def _load(self, state: Mapping[str, Any] | None = None) -> None:
        snapshot.load(self, spread(self.world, state))
