"""The value form of every weight part: the paper's loss, from its formula, importing nothing of the part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from services.learning.denominator.sequence_mean_token_mean import SequenceMeanTokenMean
from tests.services.learning.value_forms import (
    Value,
    clipped,
    covariance,
    frozen,
    mean,
    ratio,
    reinforce,
    row_mean,
    row_sum,
)


def ppo(low, high, dual) -> Value:
    return lambda x: mean(x, clipped(x, ratio(x), low, high, dual=dual))


def rho(x, level: str, of: str = "prox") -> Tensor:
    log = frozen(x, x.behaviour) if of == "policy" else (x.prox - x.behaviour).clamp(-20, 20)
    if level == "token":
        return log.exp()
    return (row_mean(x, log) if level == "geometric" else row_sum(x, log).clamp(-20, 20)).exp()


def tis_normalized(level: str) -> Value:
    def value(x):
        w = rho(x, level).clamp(max=2.0)
        over = w[x.mask] if level == "token" else w
        return mean(x, -(w / over.mean()) * x.a * x.logp)

    return value


def masked(low, high, bound, weight, of="prox") -> Value:
    def weigh(x):
        inside = (rho(x, bound, of) >= low) & (rho(x, bound, of) <= high)
        return inside * (rho(x, weight, of) if weight != "none" else 1.0)

    return reinforce(weigh)


def geometric_rejection(x) -> Tensor:
    inside = (rho(x, "geometric") >= 0.8) & (rho(x, "geometric") <= 1.3)
    return mean(x, -inside.double() * x.a * x.logp)


def k3_rejection(x) -> Tensor:
    d = (x.prox - x.behaviour).clamp(-20, 20)
    return mean(x, -(row_mean(x, d.exp() - 1 - d) <= 0.04).double() * x.a * x.logp)


def gspo(x) -> Tensor:
    s = row_mean(x, (x.logp.detach() - x.prox).clamp(-20, 20))
    carrier = (s + x.logp - x.logp.detach()).clamp(max=10).exp()
    return (row_mean(x, clipped(x, carrier, 3e-2, 4e-2))).mean()


def gmpo(x) -> Tensor:
    d = (x.logp - x.prox).clamp(-20, 20)
    sign = torch.where(x.a >= 0, 1.0, -1.0)
    c = sign * torch.minimum(sign * d, sign * d.clamp(-0.4, 0.4))
    return (-x.a * row_mean(x, c).exp()).mean()


def cispo(x) -> Tensor:
    return mean(x, -frozen(x, x.prox).exp().clamp(0.0, 1.28) * x.a * x.logp)


def cispo_masked(x) -> Tensor:
    r = frozen(x, x.prox).exp()
    closed = ((x.a > 0) & (r > 1.1)) | ((x.a < 0) & (r < 0.9))
    return mean(x, -r.clamp(0.9, 1.1) * ~closed * x.a * x.logp)


def opsm(x) -> Tensor:
    drop = (x.a < 0) & (row_mean(x, -frozen(x, x.behaviour)) > 0.1)
    return mean(x, -(~drop).double() * x.a * x.logp)


def m2po(x) -> Tensor:
    d = (x.prox - x.logp.detach()).clamp(-20, 20)
    harmful = x.mask & (((x.a > 0) & (d < 0)) | ((x.a < 0) & (d > 0)))
    squares, budget = sorted((d[harmful] ** 2).tolist()), 0.04
    low, high = 1.0, 1e9
    if squares and sum(squares) / len(squares) > budget:
        n = len(squares)
        k = next(i for i in range(n) if sum(squares[: i + 1]) + (n - i - 1) * squares[i] >= budget * n)
        tau = math.sqrt(squares[k - 1]) if k else 0.0
        low, high = max(1 - math.exp(-tau), 0.3), max(math.exp(tau) - 1, 0.5)
    return mean(x, clipped(x, ratio(x), low, high))


def m2_mask(x) -> Tensor:
    square = (x.prox - x.behaviour).clamp(-20, 20) ** 2
    left = sorted(square[x.mask].tolist())
    while len(left) > 1 and sum(left) / len(left) >= 0.04:
        left.pop()
    return mean(x, -(square <= left[-1]).double() * x.a * x.logp)


def vespo(x) -> Tensor:
    log_w = row_sum(x, frozen(x, x.prox)).clamp(-20, 20)
    w = log_w.exp()
    up, down = (3 + 2 * log_w - 3 * w).exp(), (2 + 3 * log_w - 2 * w).exp()
    return mean(x, -torch.where(x.a >= 0, up, down) * x.a * x.logp)


def dppo(kind: str) -> Value:
    def weigh(x):
        p, q = x.logp.exp(), x.prox.exp()
        if kind == "both":
            keep = (p - q).abs() <= 0.2
        elif kind == "tv":
            keep = torch.where(x.a > 0, p - q <= 0.2, p - q >= -0.2)
        else:
            p, q = p.clamp(1e-12, 1 - 1e-12), q.clamp(1e-12, 1 - 1e-12)
            kl = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
            keep = (kl <= 0.2) | torch.where(x.a > 0, p <= q, p >= q)
        return keep * frozen(x, x.prox).exp().clamp(max=20)

    return reinforce(weigh)


def topr(level: str, positive: str) -> Value:
    def weigh(x):
        log = frozen(x, x.prox)
        log = row_sum(x, log).clamp(-20, 20) if level == "sequence" else log
        good = x.a > 0 if positive == "advantage" else x.reward[:, None] > 0
        return torch.where(good, torch.ones_like(log), log.exp().clamp(0, 1))

    return reinforce(weigh)


def rec(keep: str, weight: str) -> Value:
    def weigh(x):
        r, s = frozen(x, x.prox).exp(), row_mean(x, frozen(x, x.prox)).exp().expand_as(x.prox)
        up, down = (x.a >= 0), (x.a <= 0)
        two = (r >= 0.8) & (r <= 1.2)
        indicators = {
            "none": torch.ones_like(two),
            "one_side": (up & (r <= 1.2)) | (down & (r >= 0.8)),
            "sequence_one_side": (up & (s <= 1.2)) | (down & (s >= 0.8)),
            "two_side": two,
            "ring": two | (up & (r <= 0.4)) | (down & (r >= 3.0)),
        }
        inside = (x.logp - x.prox).abs() <= 20
        weights = {"none": 1.0, "ratio": r * inside, "sequence": s, "advantage": (x.a / 1.0).exp()}
        return indicators[keep] * weights[weight]

    return reinforce(weigh)


def sapo(x) -> Tensor:
    tau = torch.where(x.a > 0, 1.0, 1.05).double()
    return row_mean(x, -x.a * 4 / tau * torch.sigmoid(tau * (ratio(x) - 1))).mean()


def etr(x) -> Tensor:
    p = torch.stack([x.accuracy[x.group == g].mean() for g in x.group.tolist()])[:, None]
    eps = 0.2 * (1 + 0.25 * x.a.abs()) * (1 + 0.25 * 4 * p * (1 - p))
    return mean(x, clipped(x, ratio(x), eps, eps))


def ace(x) -> Tensor:
    c = row_mean(x, frozen(x, x.ref))
    return mean(x, -torch.where(x.a < 0, x.a * (1 + (1 + c.exp()).log()), x.a) * x.logp)


def clip_cov_all(x) -> Tensor:
    """At share 1 every candidate is drawn, and the draw is certain."""
    r = ratio(x)
    ppo_clips = ((x.a > 0) & (r > 1.2)) | ((x.a < 0) & (r < 0.8)) | ((x.logp - x.prox).abs() > 20)
    drawn = ~ppo_clips & (covariance(x) > 0.1) & (covariance(x) < 5)
    return mean(x, clipped(x, r, 0.2, 0.2) * ~drawn)


def hapo(beta: float) -> Value:
    def value(x):
        log_h = x.entropy.clamp(min=1e-8).log()
        known = sorted(log_h[x.mask].tolist())
        pivot = known[round(0.8 * (len(known) - 1))]
        std = math.sqrt(sum((v - pivot) ** 2 for v in known) / len(known))
        z, top, bottom = (log_h - pivot) / std, (known[-1] - pivot) / std, (known[0] - pivot) / std
        h = torch.where(z > 0, z / top, z / abs(bottom)).clamp(-1, 1)
        low, high = torch.where(h <= 0, 0.2 * (1 - h), 0.2), torch.where(h > 0, 0.2 * (1 + h), 0.2)
        r = ratio(x)
        band = (r > 1 - low / 2) & (r < 1 + high / 2)
        moved = torch.where(h > 0, ~band, band)
        advantage = torch.where(moved, x.a * (1 + beta * h), x.a)
        return mean(x, clipped(x, r, low, high, advantage, dual=10.0))

    return value


def gtpo(x) -> Tensor:
    weights = torch.zeros_like(x.prox)
    for i in range(len(x.length)):
        peers = [j for j in range(len(x.length)) if x.group[j] == x.group[i]]
        base = sum(float(x.reward[j]) for j in peers) / len(peers)
        above = {j: float(x.reward[j]) - base for j in peers}
        n, delta, flagged = int(x.length[i]), [1.0] * int(x.length[i]), set()
        for backward in (False, True):
            for k in range(n):
                at = n - 1 - k if backward else k
                same = [
                    j
                    for j in peers
                    if int(x.length[j]) > k
                    and int(x.token[j, int(x.length[j]) - 1 - k if backward else k]) == int(x.token[i, at])
                ]
                both = any(above[j] > 1e-9 for j in same) and any(above[j] < -1e-9 for j in same)
                if not both or abs(above[i]) < 1e-9:
                    break
                delta[at] *= 2.0 if above[i] > 0 else 0.0
                flagged.add(at)
        weights[i, :n] = torch.tensor(delta, dtype=torch.float64) / max(1, len(flagged))
    return mean(x, -weights * x.a * x.logp)


def d3s(x) -> Tensor:
    score = x.a.abs() * x.entropy
    ranked = sorted(score[x.mask].tolist(), reverse=True)
    count = max(1, round(((1 - 3 / 500) * 0.3 + 3 / 500) * len(ranked)))
    return mean(x, -(score >= ranked[count - 1]).double() * x.a * x.logp)


ROW = SequenceMeanTokenMean()


def capo(tau_h: float) -> Value:
    """A first step at AdamW's own rate, 1e-6: Adam's direction is then the gradient over its size."""

    def value(x):
        lr, places = 1e-6, x.mask.nonzero().tolist()
        pulls, gradient_VD = {}, torch.zeros(11, x.hidden.shape[2], dtype=torch.float64)
        for i, t in places:
            pulls[i, t] = torch.zeros(11, dtype=torch.float64)
            pulls[i, t][x.top_ids[i, t]] -= x.top_logp[i, t].exp()
            pulls[i, t][x.token[i, t]] += 1
            gradient_VD += x.a[i] * torch.outer(pulls[i, t], x.hidden[i, t]) / len(places)
        step_VD, keep = gradient_VD / (gradient_VD.abs() + 1e-8), torch.zeros_like(x.logp)
        for i, t in places:
            u, p = step_VD @ x.hidden[i, t], torch.zeros(11, dtype=torch.float64)
            p[x.top_ids[i, t]] = x.top_logp[i, t].exp()
            along = pulls[i, t] @ u
            curve = x.a[i] * (along**2 - u @ (torch.diag(p) - torch.outer(p, p)) @ u)
            keep[i, t] = float((lr * x.a[i] * along + lr**2 / 2 * curve).abs() < tau_h)
        return mean(x, -keep.detach() * x.a * x.logp)

    return value


def tw_grpo(x) -> Tensor:
    weights = torch.ones_like(x.prox)
    for g in set(x.group.tolist()):
        rows = [i for i in range(len(x.length)) if x.group[i] == g]
        there = [float(x.disagreement[i, t]) for i in rows for t in range(int(x.length[i]))]
        low, span = min(there), max(there) - min(there)
        for i in rows:
            for t in range(int(x.length[i])):
                weights[i, t] = 1 + 0.7 * (float(x.disagreement[i, t]) - low) / (span + 1e-8)
    return mean(x, -weights * x.a * x.logp)


def unseen_bins(x) -> Tensor:
    """Before a first step every prompt is in one bin, whose score is 0."""
    return mean(x, -x.a * x.logp)


WEIGHTS: dict[str, list] = {
    "ace": [({}, ace)],
    "cispo": [({}, cispo), ({"low": 0.1, "high": 0.1, "mask": True}, cispo_masked)],
    "clip_cov": [({"share": 1.0, "cov_low": 0.1}, clip_cov_all)],
    "d3s_tokens": [({}, d3s)],
    "dppo": [({"divergence": kind}, dppo(kind)) for kind in ("tv", "kl", "both")],
    "etr": [({}, etr)],
    "gmpo": [({}, gmpo, ROW)],
    "gspo": [({"low": 3e-2, "high": 4e-2}, gspo, ROW)],
    "gtpo_conflict": [({}, gtpo)],
    "hapo": [({}, hapo(1.0)), ({"beta": 0.0}, hapo(0.0))],
    "m2_mask": [({}, m2_mask)],
    "m2po": [({}, m2po)],
    "masked_is": [
        ({"low": low, "high": high, "bound": bound, "weight": weight, "of": of}, masked(low, high, bound, weight, of))
        for low, high, bound, weight, of in (
            (0.8, 1.3, "token", "token", "prox"),
            (0.0, 1.5, "sequence", "sequence", "prox"),
            (0.9, 1.2, "geometric", "token", "prox"),
            (0.0, 2.0, "token", "token", "policy"),
            (0.9, 1.2, "geometric", "none", "policy"),
        )
    ],
    "opsm": [({"delta": 0.1}, opsm)],
    "ppo_clip": [
        ({"dual": dual, "high": high}, ppo(0.2, high, dual)) for dual, high in ((3.0, 0.2), (None, 0.28), (10.0, 0.28))
    ],
    "prompt_gdro": [({"form": form}, unseen_bins) for form in ("paper", "share")],
    "ratio": [({}, lambda x: mean(x, -x.a * ratio(x)))],
    "rec": [
        ({"keep": keep, "weight": weight}, rec(keep, weight))
        for keep, weight in (
            ("one_side", "none"),
            ("one_side", "ratio"),
            ("two_side", "ratio"),
            ("sequence_one_side", "sequence"),
            ("ring", "none"),
            ("none", "advantage"),
        )
    ],
    "reject": [
        ({"statistic": "k1", "low": 0.8, "high": 1.3}, geometric_rejection),
        ({"statistic": "k3", "high": 0.04}, k3_rejection),
    ],
    "sapo": [({}, sapo, ROW)],
    "tis": [
        ({"cap": 1.2, "level": level, "of": of}, reinforce(lambda x, l=level, o=of: rho(x, l, o).clamp(max=1.2)))  # noqa: E741
        for level in ("token", "sequence")
        for of in ("prox", "policy")
    ],
    "tis_normalized": [({"level": level}, tis_normalized(level)) for level in ("token", "sequence")],
    "topr": [
        ({"level": level, "positive": positive}, topr(level, positive))
        for level in ("sequence", "token")
        for positive in ("advantage", "reward")
    ],
    "tw_grpo": [({}, tw_grpo)],
    "vespo": [({}, vespo)],
    "capo": [({"tau_h": tau_h}, capo(tau_h)) for tau_h in (7e-7, 1.0)],
}
