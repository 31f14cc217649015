"""A fixed mixture of domains: so much of every batch from each, at random inside.

    places_d = n * share_d / sum of shares, rounded down or up at random: on the average of many choices exactly that

Source: the usual data mixture. Domains are the prompts' own.

Odd cases. A domain without a share gets `rest`. What a domain lacks goes to the others at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import Knob, check, knob
from services.difficulty.sampler import _quota
from services.difficulty.state import Beliefs


@dataclass(frozen=True)
class DomainMixture(_quota.ByQuota):
    """Shares by domain.

    Worked number: of 4 places three are math and one is code.

    >>> from services.difficulty.state import History
    >>> import dataclasses
    >>> ones, kind = np.ones(8), np.array([0, 1] * 4)
    >>> history = dataclasses.replace(History.none(8), domain_P=kind)
    >>> states = Beliefs(ones, ones, ones, ones > 1, known=lambda: history, domains=("math", "code"))
    >>> mixture = DomainMixture(shares={"math": 3, "code": 1})
    >>> sorted(kind[mixture(states, 4, np.random.default_rng(0))].tolist())
    [0, 0, 0, 1]
    """

    shares: dict | None = knob(None, "Share by domain, in proportion.")
    rest: float = knob(1.0, "Share of every domain that `shares` says nothing of.", ge=0)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    pool: int = knob(8192, "Candidates at random; all where a class lacks among them; 0: all.", ge=0)

    confidence: ClassVar[str] = "standard"
    by_domain: ClassVar[str] = "shares"

    def __post_init__(self) -> None:
        check(self)
        _quota.check_named(Knob("shares", "float", ge=0), self.shares)
        if not self.rest and not any((self.shares or {}).values()):
            raise ValueError(f"knob shares is {self.shares!r} and rest 0; accepted: a share above 0")

    def classes(self, states: Beliefs) -> np.ndarray:
        """Each prompt's domain."""
        return states.history.domain_P.astype(int)

    def places(self, states: Beliefs) -> np.ndarray:
        """Share of each domain."""
        share_G = _quota.named(self.shares or {}, states.domains or ("",), self.rest)
        return share_G if share_G.sum() > 0 else np.ones(len(share_G))
