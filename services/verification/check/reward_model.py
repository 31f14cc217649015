"""Asks a scoring endpoint for the answer's reward: a client, no model is held here.

    CORRECT  <=>  score >= threshold;   the raw reward "reward" is the score itself

Source: vLLM's pooling API. Routes: `pooling` (the last number of the pooled output: a reward model's head), `classify`
(the probability of class `label`), `score` (a cross encoder: question and answer).
Odd cases: an endpoint that does not answer, or answers with what is no finite number, is an INFRA_ERROR. A reward
model's score is no truth: `threshold` only decides what counts as accuracy in reports; train on the raw reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification.endpoint import Endpoint, EndpointFailed
from services.verification.finding import Finding, correct, infra_error, unparsable, wrong
from services.verification.spec import settings
from sluice.v1 import prompt_pb2

ROUTES = ("pooling", "classify", "score")


@dataclass(frozen=True)
class RewardModel:
    """`spec.spec_json`: `question`, optional. With threshold 0 a score of 1.5 is CORRECT with the raw reward 1.5."""

    url: str = knob(doc="the server, such as http://host:8000")
    model: str = knob(doc="the reward model's name there")
    route: str = knob("pooling", "which of vLLM's pooling routes", choices=ROUTES)
    label: int = knob(0, "classify: which class's probability", ge=0)
    threshold: float = knob(0.0, "from which score on it is CORRECT")
    template: str = knob("{question}\n{answer}", "pooling, classify: what is scored")
    key_env: str = knob("", "environment variable with the endpoint's key")
    timeout_s: float = knob(20.0, "of one call", unit="s", gt=0, le=600)
    tries: int = knob(2, "calls until it answers", ge=1, le=5)
    max_chars: int = knob(100_000, "a longer answer is not scored", unit="characters", ge=1)

    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        check(self)
        if "{answer}" not in self.template:
            raise UserError(f"reward_model: template is {self.template!r}; accepted: a text with {{answer}} in it")
        Endpoint(self.url)

    @property
    def wall_s(self) -> float:
        """Wall seconds that a check may need: every try until its timeout."""
        return 10.0 + self.tries * (self.timeout_s + 1.0)

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT or WRONG by the threshold. Raises `UserError` for a bad spec."""
        question = settings("reward_model", spec, ("question",)).get("question", "")
        if not isinstance(question, str):
            raise UserError(f"reward_model: question is {question!r}; accepted: a text")
        if not answer_text.strip():
            return unparsable("empty")
        if len(answer_text) > self.max_chars:
            return unparsable("too_long", f"{len(answer_text)} characters; accepted: {self.max_chars}")
        endpoint = Endpoint(self.url, self.key_env, self.timeout_s, self.tries)
        try:
            reply = endpoint.post(self.route, self._body(question, answer_text))
            score = self._score(reply)
        except EndpointFailed as error:
            return infra_error("endpoint", str(error))
        made = correct if score >= self.threshold else wrong
        return made(f"score {score:.6g}, threshold {self.threshold:g}", (("reward", score),))

    def _body(self, question: str, answer: str) -> dict[str, Any]:
        if self.route == "score":
            return {"model": self.model, "text_1": question, "text_2": answer}
        parts = self.template.split("{answer}")
        text = answer.join(part.replace("{question}", question) for part in parts)
        return {"model": self.model, "input": text}

    def _score(self, reply: dict[str, Any]) -> float:
        try:
            found = reply["data"][0]
            if self.route == "score":
                value = found["score"]
            elif self.route == "classify":
                value = found["probs"][self.label]
            else:
                value = found["data"]
                while isinstance(value, list):
                    value = value[-1]
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointFailed(f"a reply without a score: {type(error).__name__}") from error
        if type(value) not in (int, float) or not math.isfinite(value):
            raise EndpointFailed(f"a score that is no number: {str(value)[:80]}")
        return float(value)
