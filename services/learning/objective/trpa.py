"""Preference levels that rules define, inside a trust region around the policy that sampled (TRPA).

    level: 1 right, 2 wrong, 3 no answer, 4 bad format;    s_i = mean_t logp_t - mean_t ref_t
    h = beta (s_i - s_j), times `top` where level_i = 1,   for every pair of a prompt with level_i < level_j
    loss = mean_{prompts} [-mean_pairs log sigmoid(h)] + trust mean_t k3(pi || prox)

A prompt without any pair gives -mean_i log sigmoid(s_i) where its level is 1, of -s_i where it is not.

Source: "Trust Region Preference Approximation", arXiv:2504.04524, and its code (XueruiSu/Trust-Region-Preference-
Approximation), where the unit of the mean is the micro-batch; here it is the prompt, so that cuts change nothing.
Odd cases: groups of level 1 alone still push. Levels come from the verdict: CORRECT 1; WRONG and PARTIAL 2; TIMEOUT, or
cut at the token limit without being right, 3; UNPARSABLE and VIOLATION 4. The advantage is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.objective import trained
from services.learning.pairs import above, pairs, preference
from services.learning.reduce import row_mean
from sluice.v1 import rollout_pb2

LEVELS = {
    rollout_pb2.VERDICT_OUTCOME_CORRECT: 1,
    rollout_pb2.VERDICT_OUTCOME_WRONG: 2,
    rollout_pb2.VERDICT_OUTCOME_PARTIAL: 2,
    rollout_pb2.VERDICT_OUTCOME_TIMEOUT: 3,
    rollout_pb2.VERDICT_OUTCOME_UNPARSABLE: 4,
    rollout_pb2.VERDICT_OUTCOME_VIOLATION: 4,
}


@dataclass(frozen=True)
class Trpa:
    """Levels [1, 2, 2, 3], s [.3, .1, -.2, .05]: 0.671964. All of level 1: 0.666338; all of level 3: 0.728838."""

    beta: float = knob(0.1, "strength of the reference", gt=0)
    top: float = knob(2.5, "factor of pairs whose better one is right", gt=0)
    trust: float = knob(0.001, "strength of the trust region", unit="per nat", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "a preference objective compares pairs and never reads the advantage",
        "modifiers": "a preference objective never reads the advantage that a modifier changes",
        "weight": "a preference objective never reads a weight",
    }

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        ref_NT = batch.signals["ref_logp"]
        logp_NT, mask_NT = trained(batch, forward, ref_NT)
        score_N = row_mean(logp_NT - torch.where(mask_NT, ref_NT, torch.zeros_like(logp_NT)), mask_NT)
        loss = self.by_prompt(batch, score_N, self.levels(batch)).sum() / max(batch.denominators.groups, 1.0)
        return loss + self.trust * self._divergence(batch, forward)

    def levels(self, batch: Batch) -> Tensor:
        """Preference level of each rollout, [N]."""
        table = torch.tensor([LEVELS.get(each, 4) for each in range(max(LEVELS) + 1)], device=batch.outcome_N.device)
        level_N = table[batch.outcome_N.clamp(max=max(LEVELS))]
        return torch.where((level_N == 2) & batch.truncated_N, 3, level_N)

    def by_prompt(self, batch: Batch, score_N: Tensor, level_N: Tensor) -> Tensor:
        """Loss of each prompt, [G]."""
        better, worse = pairs(batch, above(-level_N))
        factor_P = torch.where(level_N[better] == 1, self.top, 1.0).to(score_N.dtype)
        loss_P = preference(self.beta * factor_P * (score_N[better] - score_N[worse]))
        alone_N = -functional.logsigmoid(torch.where(level_N == 1, score_N, -score_N))
        paired_G, count_G = _sums(batch, loss_P, batch.group_N[better])
        single_G, size_G = _sums(batch, alone_N, batch.group_N)
        return torch.where(count_G > 0, paired_G / count_G.clamp(min=1), single_G / size_G.clamp(min=1))

    def _divergence(self, batch: Batch, forward: Forward) -> Tensor:
        logp_NT, mask_NT = trained(batch, forward, batch.prox_NT)
        d_NT = (torch.where(mask_NT, batch.prox_NT, torch.zeros_like(logp_NT)) - logp_NT).clamp(-20, 20)
        return (d_NT.exp() - 1 - d_NT).sum() / max(batch.denominators.tokens, 1.0)


def _sums(batch: Batch, x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """(sum, count) of `x` by group, [G]."""
    start = x.new_zeros(batch.groups)
    return start.index_add(0, group, x), start.index_add(0, group, torch.ones_like(x))
