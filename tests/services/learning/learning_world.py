"""A recipe learning on line in one process: the policy samples, the answers are checked, the real learner trains.

The task: an answer is right when its first token is even. It is learned in a few steps by whatever pushes right answers
up and wrong ones down, and it carries over to contexts that were never trained on, where it is measured.

What a method presupposes of a policy is given to it here: a self-teacher can be led by an answer in its context, and a
limit on entropy is that of a policy which chooses among eleven tokens, not among a language's.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch

from pipeline import parts
from pipeline.digest import rollout_sha256
from pipeline.log.api import Record
from pipeline.recipe import Recipe, load_recipe
from services.learning.assembler import Assembler
from services.learning.model import Compute
from services.learning.relearn import Relearner
from services.learning.trainer import Trainer
from sluice.v1 import prompt_pb2, rollout_pb2
from tests.services.learning.rollouts import CORRECT, VOCAB, WRONG, tiny_model

LONGEST, STEPS, ROLLOUTS, LR = 2, 30, 16, 3e-3
ASKED = [(a, b) for a in range(10) for b in range(10) if (a + b) % 3]
HELD_OUT = [(a, b) for a in range(10) for b in range(10) if not (a + b) % 3]


@dataclass(frozen=True)
class Flip:
    """The advantage with its sign turned: what must not learn."""

    def __call__(self, batch: Any, advantage: torch.Tensor) -> torch.Tensor:
        return -advantage


class OnLine:
    """Sampler, checker and learner over one model. `flip` turns the advantage; where an objective reads rewards
    itself, and so has no advantage to turn, it turns the verdicts."""

    def __init__(
        self, recipe: str, seed: int, flip: bool = False, steps: int = STEPS, rollouts: int = ROLLOUTS, lr: float = LR
    ) -> None:
        self.recipe, self.steps, self.rollouts = _quick(load_recipe(recipe), lr), steps, rollouts
        self.model = tiny_model(seed, torch.float32)
        if any(signal.name == "teacher" for signal in self.recipe.signals):
            lead(self.model)
        self.trainer = Trainer(self.model, self.recipe, LONGEST, Compute(device="cpu"))
        self.turned = flip and self.recipe.objective is not None
        if flip and not self.turned:
            method = self.trainer.method
            self.trainer.method = replace(method, modifiers=(*method.modifiers, Flip()))
        self.size = self.recipe.budget.knobs.get("n", 8)
        replay = parts.load("learning.replay", self.recipe.replay.name, **self.recipe.replay.knobs)
        self.learner = Relearner(
            self.trainer, replay, Assembler(min_group=self.recipe.min_group), max(1, rollouts // self.size), steps
        )
        self.draw, self.numbers, self.offsets = random.Random(seed), count(1), count()
        self.generator = torch.Generator().manual_seed(seed)

    def right(self, pair: tuple[int, int], tokens: list[int]) -> bool:
        """Whether an answer is right."""
        return tokens[0] % 2 == 0

    def run(self) -> float:
        """All steps; how much the gap between right and wrong held-out answers has grown, nats."""
        before = self.gap()
        for _ in range(8 * self.steps):
            if self.learner.step >= self.steps:
                break
            self.round()
        assert self.learner.step == self.steps, f"{self.recipe.name} made {self.learner.step} steps"
        return self.gap() - before

    @torch.no_grad()
    def gap(self) -> float:
        """Log-prob of a right less that of a wrong answer, mean over contexts that are never asked."""
        logp_CV = self.model(torch.tensor(HELD_OUT)).logits[:, -1].log_softmax(-1)
        return float((logp_CV[:, 0::2].logsumexp(1) - logp_CV[:, 1::2].logsumexp(1)).mean())

    def round(self) -> None:
        """One batch of requests: sampled, checked, learned from."""
        for nouns in self.sample():
            self.take(nouns)

    def take(self, nouns: list[tuple[str, Any]]) -> None:
        """Learn from one group's nouns, which a step may follow."""
        for topic, noun in nouns:
            record = Record(topic, 0, next(self.offsets), b"", b"", (), 0)
            for _ in self.learner.take(noun, record, topic):
                pass

    @torch.no_grad()
    def sample(self):
        """For each group: its request, its rollouts, its verdicts."""
        groups = max(1, self.rollouts // self.size)
        asked = [self.draw.choice(ASKED) for _ in range(groups)]
        text_NL = torch.tensor([pair for pair in asked for _ in range(self.size)])
        logprobs = []
        for _ in range(LONGEST):
            logp_NV = self.model(text_NL).logits[:, -1].log_softmax(-1)
            token_N1 = torch.multinomial(logp_NV.exp(), 1, generator=self.generator)
            logprobs.append(logp_NV.gather(1, token_N1))
            text_NL = torch.cat((text_NL, token_N1), 1)
        logp_NT = torch.cat(logprobs, 1).tolist()
        rows = text_NL.tolist()
        for number, pair in enumerate(asked):
            span = range(number * self.size, (number + 1) * self.size)
            yield self.group(pair, [rows[row][2:] for row in span], [logp_NT[row] for row in span])

    def group(self, pair, texts, logprobs):
        """One group's nouns, as the log would bring them."""
        request = prompt_pb2.RolloutRequest(
            request_id=f"r-{next(self.numbers)}", prompt_id=f"p-{pair}", n=self.size, final=True,
            belief=prompt_pb2.Belief(mean=0.5, effective_n=8),
        )  # fmt: skip
        request.group_id = f"g-{request.request_id}"
        found = [("requests", request)]
        for index, (tokens, logp) in enumerate(zip(texts, logprobs, strict=True)):
            length = self.draw.randint(1, LONGEST)
            span = rollout_pb2.Span(version=self.learner.step + 1, temperature=1.0)
            call = rollout_pb2.Call(
                context_tokens=pair, tokens=tokens[:length], logprobs=logp[:length], spans=[span]
            )  # fmt: skip
            said = rollout_pb2.Rollout(
                key=rollout_pb2.RolloutKey(request_id=request.request_id, index=index, attempt=1),
                prompt_id=request.prompt_id, group_id=request.group_id, calls=[call], belief=request.belief,
                ending=rollout_pb2.ENDING_LENGTH if length == LONGEST else rollout_pb2.ENDING_STOP,
            )  # fmt: skip
            said.sha256 = rollout_sha256(said)
            found += [("rollouts", said), ("verdicts", self.verdict(said, self.right(pair, tokens)))]
        return found

    def verdict(self, said: rollout_pb2.Rollout, right: bool) -> rollout_pb2.Verdict:
        """What checking finds: the outcome, a named reward and two tests that pass with it."""
        right = right != self.turned
        return rollout_pb2.Verdict(
            key=said.key, rollout_sha256=said.sha256, prompt_id=said.prompt_id, accuracy=float(right),
            outcome=CORRECT if right else WRONG, rewards=[rollout_pb2.Reward(name="accuracy", value=float(right))],
            tests=[right, True],
        )  # fmt: skip


def lead(model: torch.nn.Module, steps: int = 200) -> None:
    """Teach a model to answer like the answer that its context holds, right or wrong, and to be undecided without one.

    Contexts are as `services/learning/reprompt.py` makes them: the question, an answer, the question again.
    """
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    asked_CL = torch.tensor(ASKED)
    for _ in range(steps):
        pair_NL = asked_CL[torch.randint(len(ASKED), (64,), generator=draw)]
        answer_N1 = torch.randint(VOCAB, (64, 1), generator=draw)
        led_N2 = _kinds(model(torch.cat((pair_NL, answer_N1, pair_NL), 1)).logits[:, -1])
        alone_N2 = _kinds(model(pair_NL).logits[:, -1])
        loss = -led_N2.gather(1, answer_N1 % 2).mean() - alone_N2.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _kinds(logits_NV: torch.Tensor) -> torch.Tensor:
    """Log-probs of an even and of an odd token, [N, 2]."""
    logp_NV = logits_NV.log_softmax(-1)
    return torch.stack((logp_NV[:, 0::2].logsumexp(1), logp_NV[:, 1::2].logsumexp(1)), 1)


def _quick(recipe: Recipe, lr: float) -> Recipe:
    """The recipe with a learning rate for some tens of steps of a model of a few thousand weights."""
    modifiers = [
        one.model_copy(update={"knobs": one.knobs | {"limit": math.log(VOCAB)}}) if one.name == "gtpo_entropy" else one
        for one in recipe.modifiers
    ]
    knobs = recipe.optimizer.knobs | {"lr": lr}
    if "warmup_steps" in knobs:
        knobs["warmup_steps"] = 0
    optimizer = recipe.optimizer.model_copy(update={"knobs": knobs})
    return recipe.model_copy(update={"optimizer": optimizer, "modifiers": modifiers})
