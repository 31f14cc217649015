"""Accuracy, shaped by how varied the text is (MultiRole-R1's diversity reward).

    r = (1 - share) r + share D
    D = mean of: type-token ratio, token entropy, variation of sentence lengths, entropy of sentence kinds, Jaccard
    distance of neighbouring sentences, 1 / (1 + K / 100), distinct bigrams, entropy of function words

Source: MultiRole-R1, arXiv:2507.20187, sections 3.2 and App. B.2. With Yule's K as printed, 1 / (1 + K) is about .001,
where the paper reports .4 to .8: the scale of 100 is an inference. Sentence kinds are told apart by end and first word.
Odd cases: a text of one sentence has 0 for what compares sentences; an empty one, or none recorded, has D = 0. D costs
about 0.1 ms per 100 words. A rollout without a reward stays without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reward._diversity import diversity


@dataclass(frozen=True)
class MultiroleDiversity:
    """Reward 1, D = .7, share .1: .97."""

    share: float = knob(0.1, "share of the diversity (.05 to .3 were tried)", ge=0, le=1)

    __post_init__ = check

    def __call__(self, batch: Batch, reward_N: Tensor) -> Tensor:
        texts = [" ".join(call.text for call in member.rollout.calls) for member in batch.members]
        return self.shaped(reward_N, torch.tensor([diversity(text) for text in texts]).to(reward_N))

    def shaped(self, reward_N: Tensor, diversity_N: Tensor) -> Tensor:
        """The reward with its share of diversity."""
        return (1 - self.share) * reward_N + self.share * diversity_N
