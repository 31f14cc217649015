"""The batch: what one optimiser step sees, as tensors named by their axes.

    N  rollouts (rows)      T  sampled tokens of a rollout, over all its calls, in order; right-padded
    G  groups               S  sequences the model is run on    L  positions of a sequence; right-padded

Methods work on [N] and [N, T] and never see contexts: T counts only what the policy sampled (or what was injected into
its sample). How those tokens lie in what the model reads is a matter of the forward pass: `sequence_NT` and
`position_NT` say where each one is. A rollout whose every call continues the one before is one sequence; a call that
rewrites its context, or that branches off, begins another. So turns, trees and edited contexts need no special case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from services.learning.group import Member
from services.learning.ranks import ALONE, World


@dataclass(frozen=True, slots=True)
class Denominators:
    """What the whole step holds, over all micro-batches and ranks, after selection."""

    tokens: float
    """Trained tokens."""
    rows: float
    """Rollouts."""
    groups: float
    """Groups with at least one rollout."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollouts with their verdicts, ready for a step. Immutable: stages return a changed copy.

    Floating tensors share one dtype (float32 unless a test asks for float64). Padding of [N, T] tensors is 0.
    A field whose name ends in _N or _NT runs along rollouts, in _S or _SL along sequences; `rows` relies on it.
    """

    members: tuple[Member, ...]
    """The rollouts and verdicts themselves, for methods that read more than the tensors below."""

    input_SL: Tensor
    """Token ids the model reads."""
    length_S: Tensor
    """Tokens of each sequence."""
    row_S: Tensor
    """Which rollout a sequence belongs to; ascending."""

    token_NT: Tensor
    """Sampled token ids."""
    sequence_NT: Tensor
    """Sequence that holds each token."""
    position_NT: Tensor
    """Its position there, >= 1; the logits that predict it stand one position before."""
    length_N: Tensor
    """Sampled tokens of each rollout."""
    mask_NT: Tensor
    """True where a token is trained on: sampled by the policy, in a trainable call, kept by every selection."""
    behaviour_NT: Tensor
    """Log-prob under the distribution it was drawn from, nats, temperature applied."""
    version_NT: Tensor
    """Version that sampled it."""
    temperature_NT: Tensor
    """Temperature it was sampled at; 1 on padding."""
    kind_NT: Tensor
    """`TokenKind` of each token."""
    call_NT: Tensor
    """Index of its call inside its rollout."""
    turn_NT: Tensor
    """Index of its turn, from 0."""

    group_N: Tensor
    """Index of each rollout's group, < `groups`."""
    outcome_N: Tensor
    """`VerdictOutcome`."""
    accuracy_N: Tensor
    """Accuracy as the verdict says, in [0, 1]; never shaped."""
    reward_N: Tensor
    """The combined, shaped reward that the advantage is made of; NaN until the reward parts have run."""
    truncated_N: Tensor
    """True where the rollout ended at its token limit."""
    context_N: Tensor
    """Tokens of the first call's context."""
    belief_N: Tensor
    """What the difficulty service believed of the prompt at issue: mean pass rate; NaN when it said nothing."""
    effective_n_N: Tensor
    """Effective observations behind that mean."""
    use_N: Tensor
    """1 at a rollout's first training use."""

    groups: int
    """Groups on this rank, G."""
    version: int
    """The version being trained; lag = version - version_NT."""
    max_tokens: int
    """The most tokens a rollout may sample; the constant of Dr. GRPO and the length of overlong penalties."""
    denominators: Denominators
    """Counts of the whole step."""
    rewards: dict[str, Tensor] = field(default_factory=dict)
    """Raw named rewards [N]; NaN where a verdict lacks one."""
    side: dict[str, Tensor] = field(default_factory=dict)
    """Side arrays that came with the rollouts [N, T]; NaN where a call lacks one."""
    signals: dict[str, Tensor] = field(default_factory=dict)
    """What parts `need` and signal parts make: "prox_logp", "ref_logp", "entropy", "step_logp"... [N, T] or [N]."""
    world: World = ALONE
    """The ranks of this step; statistics over the step go through it."""

    def __len__(self) -> int:
        return len(self.members)

    @property
    def lag_NT(self) -> Tensor:
        """Lag of each token, in versions."""
        return self.version - self.version_NT

    @property
    def valid_NT(self) -> Tensor:
        """True where there is a token, trained on or not."""
        return torch.arange(self.token_NT.shape[1], device=self.token_NT.device) < self.length_N[:, None]

    @property
    def prox_NT(self) -> Tensor:
        """Log-prob under the proximal policy: the recipe's choice, else the behaviour policy."""
        return self.signals.get("prox_logp", self.behaviour_NT)

    def rows(self, index: Sequence[int] | Tensor) -> Batch:
        """The rollouts at `index`, in ascending order, with padding cut to what they need.

        Groups keep their numbers; denominators stay those of the whole step.
        """
        rows = torch.as_tensor(index, dtype=torch.long, device=self.token_NT.device).sort().values
        chosen = torch.zeros(len(self), dtype=torch.bool, device=rows.device)
        chosen[rows] = True
        sequences = chosen[self.row_S].nonzero().squeeze(1)
        longest = int(self.length_N[rows].max()) if len(rows) else 0
        width = int(self.length_S[sequences].max()) if len(sequences) else 0
        changed: dict[str, object] = {"members": tuple(self.members[i] for i in rows.tolist())}
        for name in (each.name for each in dataclasses.fields(self)):
            value = getattr(self, name)
            if name.endswith(("_N", "_NT")):
                changed[name] = _cut(value[rows], longest)
            elif name.endswith(("_S", "_SL")):
                changed[name] = _cut(value[sequences], width)
            elif isinstance(value, dict):
                changed[name] = {key: _cut(tensor[rows], longest) for key, tensor in value.items()}
        changed["row_S"] = chosen.cumsum(0)[self.row_S[sequences]] - 1
        place = torch.zeros(len(self.row_S) + 1, dtype=torch.long, device=rows.device)
        place[sequences] = torch.arange(len(sequences), device=rows.device)
        changed["sequence_NT"] = place[changed["sequence_NT"]]  # type: ignore[index]
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]

    def with_signals(self, **signals: Tensor) -> Batch:
        """A copy that carries these signals too."""
        return dataclasses.replace(self, signals=self.signals | signals)

    def counted(self) -> Batch:
        """A copy whose denominators are counted anew, over all ranks. Collective."""
        present = torch.zeros(self.groups, device=self.group_N.device)
        present[self.group_N] = 1
        counts = torch.stack([self.mask_NT.sum(), torch.tensor(len(self), device=present.device), present.sum()])
        tokens, rows, groups = self.world.sum(counts.double()).tolist()
        return dataclasses.replace(self, denominators=Denominators(tokens, rows, groups))


def _cut(x: Tensor, width: int) -> Tensor:
    return x[:, :width] if x.dim() > 1 else x
