"""Imitate a demonstration where the policy fails, learn from its own rollouts where it does not (HPT).

    P_q = right rollouts of the prompt, the demonstration not counted
    P_q <= gate and there is a demonstration:  SFT,  -sum_t logp_t / (SFT tokens of the whole step)
    else:                                      RL,   -sum_t coef_t logp_t / (L_max * RL rollouts of the whole step)
    loss = rl * RL + sft * SFT

Source: "Towards a Unified View of LLM Post-Training", arXiv:2509.04419, and its code (TsinghuaC3I/Unify-Post-Training):
gate 0 for Qwen, 2 for LLaMA, sft 1.0 (0.3 for the 1.5B), RL without std, clip or length mean.
Odd cases: a demonstration is a rollout whose every token was injected; of several, all are imitated. Without one, a
prompt goes to RL. `sft: 0` is plain RL. The released second gate, which learns from the demonstration as off-policy RL,
is off in its runs and not built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.demonstration import demonstrations
from services.learning.likelihood import Forward
from services.learning.objective import told, trained, whole_step
from services.learning.reduce import group_sum


@dataclass(frozen=True)
class Hpt:
    """Right rollouts 0, 2, 3, 8 of 8: gate 0 sends them to SFT, RL, RL, RL; gate 2 to SFT, SFT, RL, RL."""

    gate: int = knob(0, "most right rollouts at which a prompt is imitated", unit="rollouts", ge=0)
    sft: float = knob(1.0, "coefficient of the imitation", ge=0)
    rl: float = knob(1.0, "coefficient of the policy gradient", ge=0)
    success: float = knob(0.5, "least accuracy of a right rollout", unit="accuracy", ge=0, le=1)

    __post_init__ = check

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Imitated tokens and rollouts of the policy gradient, over the whole step."""
        taught_NT, learning_N = self.routes(batch)
        return {
            "sft_tokens": whole_step(batch, taught_NT.sum().double()),
            "rl_rollouts": whole_step(batch, learning_N.sum().double()),
        }

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        taught_NT, learning_N = self.routes(batch)
        taught_NT = taught_NT & forward.logp_NT.detach().isfinite()
        imitated = torch.where(taught_NT, forward.logp_NT, torch.zeros_like(forward.logp_NT)).sum()
        learned = (coef_NT * trained(batch, forward)[0] * learning_N[:, None]).sum()
        rows = told(batch, "rl_rollouts", 1.0) * batch.max_tokens
        return -self.sft * imitated / told(batch, "sft_tokens", 1.0) - self.rl * learned / rows

    def routes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(tokens that are imitated [N, T], rollouts of the policy gradient [N])."""
        taught_NT = demonstrations(batch)
        taught_N = taught_NT.any(1)
        right_N = (batch.accuracy_N >= self.success) & ~taught_N
        count_N = group_sum(batch, right_N.to(batch.reward_N.dtype))
        shown_N = group_sum(batch, taught_N.to(batch.reward_N.dtype)) > 0
        imitate_N = shown_N & (count_N <= self.gate)
        return taught_NT & imitate_N[:, None], ~imitate_N & ~taught_N
