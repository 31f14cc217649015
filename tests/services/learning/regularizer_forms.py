"""The value form of every regularizer part: the paper's term, from its formula, importing nothing of the part."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.services.learning.value_forms import Value, covariance, frozen, mean


def kl(kind: str, corrected: bool) -> Value:
    def value(x):
        d = x.ref - x.logp
        term = {"k1": -d, "k2": d**2 / 2, "k3": d.clamp(-20, 20).exp() - 1 - d}[kind]
        return 0.04 * mean(x, term * (frozen(x, x.behaviour).exp() if corrected else 1.0))

    return value


def preferred_kl(x) -> Tensor:
    """AP-GRPO: each rollout's KL times 1 - k (r - mean r of the group)."""
    d, weights = (x.ref - x.logp), torch.zeros_like(x.reward)
    for i in range(len(weights)):
        peers = [float(x.reward[j]) for j in range(len(weights)) if x.group[j] == x.group[i]]
        weights[i] = 1 - 0.6 * (float(x.reward[i]) - sum(peers) / len(peers))
    return 0.04 * mean(x, weights[:, None] * (d.clamp(-20, 20).exp() - 1 - d))


def kl_cov(x) -> Tensor:
    count = max(1, int(0.2 * int(x.mask.sum())))
    last = sorted(covariance(x)[x.mask].tolist(), reverse=True)[count - 1]
    return mean(x, (x.logp - x.prox).abs() * (covariance(x) >= last))


def llds(gate: str) -> Value:
    def value(x):
        total = 0.0
        for i in range(len(x.length)):
            if x.a[i] < 0:
                continue
            runs: list[list[int]] = []
            for t in range(x.mask.shape[1]):
                if x.mask[i, t]:
                    if t and x.mask[i, t - 1]:
                        runs[-1].append(t)
                    else:
                        runs.append([t])
            if gate == "response":
                runs = [[t for run in runs for t in run]]
            for run in runs:
                fall = x.prox[i, run] - x.logp[i, run]
                if fall.sum() > 0:
                    total = total + fall.clamp(min=0).sum()
        return 0.2 * total / x.mask.sum()

    return value


def targeted_entropy(target: float) -> Value:
    def value(x):
        gap = x.step_entropy[x.mask].mean() - target
        return 0.1 * torch.sign(gap) * (mean(x, x.live_entropy) - target)

    return value


def value_loss(x) -> Tensor:
    """Half the larger squared error to the lambda-return of the values at the step's start, lam 0.9, clip 0.2."""
    total = 0.0
    for i in range(len(x.length)):
        after, following, places = 0.0, 0.0, x.mask[i].nonzero().flatten().tolist()
        for t in reversed(places):
            old, new = x.old_value[i, t], x.live_value[i, t]
            after = (x.reward[i] if t == places[-1] else 0.0) + following - old + 0.9 * after
            following, target = old, old + after
            near = old + (new - old).clamp(-0.2, 0.2)
            total = total + 0.3 * torch.maximum((new - target) ** 2, (near - target) ** 2) / 2
    return total / x.mask.sum()


REGULARIZERS: dict[str, list] = {
    "entropy": [({"coef": 0.1}, lambda x: -0.1 * mean(x, x.live_entropy))],
    "epo": [({"coef": 0.1}, lambda x: -0.1 * mean(x, x.live_entropy))],  # no history yet: the bonus alone
    "forward_kl": [({"coef": 0.1}, lambda x: mean(x, -0.1 * x.logp))],
    "kl": [
        ({"coef": 0.04, "estimator": kind, "corrected": corrected}, kl(kind, corrected))
        for kind in ("k1", "k2", "k3")
        for corrected in (False, True)
    ]
    + [({"coef": 0.04, "preference": 0.6}, preferred_kl)],
    "kl_cov": [({"share": 0.2}, kl_cov)],
    "llds": [({"gate": gate}, llds(gate)) for gate in ("run", "response")],
    "targeted_entropy": [
        ({"coef": 0.1, "target": target}, targeted_entropy(target))
        for target in (0.2, 3.0)  # from above, from below
    ],
    "value_loss": [({"coef": 0.3, "lam": 0.9, "clip": 0.2}, value_loss)],
    "log_ratio_square": [({"coef": 0.05}, lambda x: mean(x, 0.1 / 2 * (x.logp - x.prox) ** 2))],
}
