r"""How good an order is: NDCG, or recall, of a ranked list against known relevance.

    DCG@k = sum over ranks i = 1..k of gain(rel_i) / log2(i + 1),   gain(r) = 2^r - 1 or r
    NDCG@k = DCG@k / (DCG@k of the best order),   recall@k = relevant among the first k / relevant in all

Source: Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques" (2002); gains 2^r - 1 after Burges
et al. (2005). Both numbers are raw rewards ("ndcg", "recall"); `metric` decides accuracy. Each rank's own share of the
NDCG is a raw reward too ("rank_1" ...), for methods that give credit by rank.
Odd cases: a document named twice counts at its first place and its later places are empty; an unknown name has
relevance 0; a list that is too short has no more places. Nothing relevant at all is a spec that cannot be used.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification import extract, plain
from services.verification.finding import Finding, correct, partial, unparsable, wrong
from services.verification.spec import needed, settings
from sluice.v1 import prompt_pb2

MAX_NAMES = 1000
_SEPARATOR = re.compile(r"\s*(?:>|,|;|\n)\s*")
_BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")


@dataclass(frozen=True)
class Ranking:
    """`spec.spec_json`: `relevance`, an object from name to relevance >= 0; `k`, optional, instead of the knob.

    The answer is a JSON list of names, or names separated by ">", ",", ";" or line ends (numbered or not).
    Gains 7, 3, 1 (relevance 3, 2, 1); the order b, a, c gives DCG 3 + 7/1.58496 + 1/2 = 7.91650 of at best
    7 + 3/1.58496 + 1/2 = 9.39279:

    >>> spec = prompt_pb2.CheckSpec(spec_json='{"relevance": {"a": 3, "b": 2, "c": 1}}')
    >>> round(Ranking()("b > a > c", spec).accuracy, 5), Ranking()('["a", "b", "c"]', spec).name
    (0.84283, 'CORRECT')
    """

    metric: str = knob("ndcg", "which of both is the accuracy", choices=("ndcg", "recall"))
    k: int = knob(10, "ranks that count", ge=1, le=MAX_NAMES)
    gain: str = knob("exponential", "2^r - 1, or r itself", choices=("exponential", "linear"))
    tag: str = knob("answer", "the answer is what follows the last <tag>; without one, or empty: the whole text")

    version: ClassVar[str] = "1"
    in_process: ClassVar[bool] = True

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT for a perfect order, PARTIAL between, WRONG for 0. Raises `UserError` for a bad spec."""
        relevance, k = self._read(spec)
        said = names(extract.answer(answer_text[-100_000:], self.tag))
        if not said:
            return unparsable("no_list")
        shares = self._shares(said, relevance, k)
        relevant = {name for name, value in relevance.items() if value > 0}
        ndcg, recall = min(1.0, math.fsum(shares)), len(relevant & set(said[:k])) / len(relevant)
        rewards = (("ndcg", ndcg), ("recall", recall))
        rewards += tuple((f"rank_{place}", share) for place, share in enumerate(shares, 1))
        value = ndcg if self.metric == "ndcg" else recall
        evidence = f"ndcg@{k} {ndcg:.4f}, recall@{k} {recall:.4f}: {', '.join(said[:k])[:500]}"
        if value >= 1 - 1e-9:
            return correct(evidence, rewards)
        return partial(value, evidence, rewards) if value > 0 else wrong(evidence, rewards)

    def _read(self, spec: prompt_pb2.CheckSpec) -> tuple[dict[str, float], int]:
        told = settings("ranking", spec, ("relevance", "k"))
        relevance = needed("ranking", told, "relevance", dict, "an object from name to a number >= 0")
        k = told.get("k", self.k)
        good = all(type(value) in (int, float) and 0 <= value <= 30 for value in relevance.values())
        if not good or not any(relevance.values()) or len(relevance) > MAX_NAMES:
            raise UserError("ranking: relevance has no use; accepted: 1 to 1000 names, 0 to 30 each, one above 0")
        if type(k) is not int or not 1 <= k <= MAX_NAMES:
            raise UserError(f"ranking: k is {k!r}; accepted: 1 to {MAX_NAMES}")
        return relevance, k

    def _shares(self, said: list[str], relevance: dict[str, float], k: int) -> list[float]:
        """What each rank adds to the NDCG."""
        best = sorted(map(self._gain, relevance.values()), reverse=True)[:k]
        ideal = math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(best))
        seen: set[str] = set()
        shares = []
        for place, name in enumerate(said[:k]):
            gain = 0.0 if name in seen else self._gain(relevance.get(name, 0))
            seen.add(name)
            shares.append(gain / math.log2(place + 2) / ideal)
        return shares

    def _gain(self, relevance: float) -> float:
        return 2.0**relevance - 1 if self.gain == "exponential" else float(relevance)


def names(text: str) -> list[str]:
    """The names in an answer, in order; at most `MAX_NAMES`.

    >>> names('["a", 2]'), names("1. a\\n2. b"), names("a > b,c")
    (['a', '2'], ['a', 'b'], ['a', 'b', 'c'])
    """
    if text.startswith("["):
        try:
            found = plain.loads(text)
        except ValueError:
            return []
        return [str(name) for name in found if type(name) in (str, int)][:MAX_NAMES]
    parts = (_BULLET.sub("", part).strip() for part in _SEPARATOR.split(text))
    return [part for part in parts if part][:MAX_NAMES]
