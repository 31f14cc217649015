"""Elastic trust regions: the clip widens with the advantage and with what a prompt can still teach (ETR).

    eps_i = eps (1 + micro |A_i|) (1 + macro 4 p (1 - p)),    p = mean accuracy of the group
    W, M as PPO's clip at eps_i

Source: ETR, arXiv:2601.03723. A guess: the abstract says that the bound grows with |A| and with the group's spread;
no formula and no code was found, micro = macro = 0.25 are ours.
Odd cases: a group of one has p of 0 or 1, or what its partial reward says. Beyond the clamp at 20 nats the loss is
flat.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean
from services.learning.weight import Weighed, log_ratio, unclipped


@dataclass(frozen=True)
class Etr:
    """eps .2, (A, p) = (1.732, .25), (-.577, .25), (1, .5), (.378, .875): 0.340338, 0.271759, 0.3125, 0.242842."""

    eps: float = knob(0.2, "bound of a token without advantage in a solved group", unit="ratio", ge=0, le=1)
    micro: float = knob(0.25, "growth with |A|", unit="per advantage", ge=0)
    macro: float = knob(0.25, "growth with 4 p (1 - p)", ge=0)

    __post_init__ = check

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The mean accuracy of each rollout's group."""
        return {"etr_accuracy": group_mean(batch, batch.accuracy_N)}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT, eps_NT = log_NT.exp(), self.width(advantage_NT, batch.signals["etr_accuracy"][:, None])
        return Weighed(ratio_NT, inside_NT & unclipped(ratio_NT, advantage_NT, eps_NT, eps_NT))

    def width(self, advantage_NT: Tensor, p_N1: Tensor) -> Tensor:
        """The clip's half-width."""
        return self.eps * (1 + self.micro * advantage_NT.abs()) * (1 + self.macro * 4 * p_N1 * (1 - p_N1))
