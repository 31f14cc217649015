"""What the difficulty service shows of itself: plain numbers by name, for metrics and for the live view."""

from __future__ import annotations

import numpy as np

from services.difficulty.scheduler import Scheduler
from services.difficulty.state import Beliefs

SOLVED, HOPELESS = 0.9, 0.1
"""A visited prompt with a mean at or above, at or below."""
SHOWN = 16_384
"""Of more prompts than this a random part is looked at: shares are then true to about 0.4 %."""
LEAST = 0.1
"""Pseudo-count below which a prompt's entropy is not told apart: towards 0 it falls without bound."""
BINS = 10
"""Bins of the histogram of posterior means."""


def gauges(scheduler: Scheduler, now_ms: int) -> dict[str, float]:
    """Rollouts outstanding and their bound, prompts by what is believed of them, inputs ignored by reason."""
    gate = scheduler.gate
    overdue = sum(request.places for request in gate.open.values() if request.deadline_ms < now_ms)
    found = {
        "outstanding": gate.outstanding,
        "room": gate.room(),
        "capacity": gate.capacity,
        "overdue": overdue,
        "issued_rollouts": gate.issued_rollouts,
        "prompts": len(scheduler.prompts),
        "pending_prompts": len(scheduler.store.journals),
    }
    ignored = {f"ignored_{reason}": count for reason, count in scheduler.ignored.items()}
    return {name: float(value) for name, value in (found | _shown(scheduler) | ignored).items()}


def _shown(scheduler: Scheduler) -> dict[str, float]:
    """Shares over all prompts, or over `SHOWN` of many at random, and how well beliefs came true."""
    view = scheduler.view()
    many = len(view) > SHOWN
    rows = np.random.default_rng(scheduler.gate.step).integers(len(view), size=SHOWN) if many else np.arange(len(view))
    return shares(view.take(rows)) | scheduler.calibration.numbers()


def shares(states: Beliefs) -> dict[str, float]:
    """Shares of all prompts, and the mean entropy of their Beta posteriors (nats; 0 for the uniform prior)."""
    if not len(states):
        return {}
    seen_P, mean_P = states.visits_P > 0, states.mean_P
    return {
        "share_unvisited": float((~seen_P).mean()),
        "share_solved": float((seen_P & (mean_P >= SOLVED)).mean()),
        "share_hopeless": float((seen_P & (mean_P <= HOPELESS)).mean()),
        "share_informative": float((seen_P & (mean_P < SOLVED) & (mean_P > HOPELESS)).mean()),
        "entropy_mean": float(entropy(states.alpha_P, states.beta_P).mean()),
        "mean_pass_rate": float(mean_P.mean()),
    } | {f"landscape_{place}": float(share) for place, share in enumerate(_landscape(mean_P))}


def _landscape(mean_P: np.ndarray) -> np.ndarray:
    """Shares of prompts by tenth of the posterior mean."""
    return np.bincount(np.minimum((mean_P * BINS).astype(int), BINS - 1), minlength=BINS) / len(mean_P)


def entropy(alpha_P: np.ndarray, beta_P: np.ndarray) -> np.ndarray:
    """Differential entropy of Beta(alpha, beta), nats; counts below `LEAST` are taken for it.

    >>> (entropy(np.array([1.0, 2.0]), np.array([1.0, 2.0])).round(6) + 0.0).tolist()
    [0.0, -0.125093]
    """
    alpha_P, beta_P = np.maximum(alpha_P, LEAST), np.maximum(beta_P, LEAST)
    total_P = alpha_P + beta_P
    log_beta_P = _log_gamma(alpha_P) + _log_gamma(beta_P) - _log_gamma(total_P)
    entropy_P = log_beta_P - (alpha_P - 1) * _digamma(alpha_P) - (beta_P - 1) * _digamma(beta_P)
    return entropy_P + (total_P - 2) * _digamma(total_P)


def _log_gamma(x_P: np.ndarray) -> np.ndarray:
    """Stirling's series at x + 8, then the recurrence down; absolute error below 1e-11."""
    y_P = x_P + 8
    series_P = 1 / (12 * y_P) - 1 / (360 * y_P**3) + 1 / (1260 * y_P**5) - 1 / (1680 * y_P**7)
    below_P = sum(np.log(x_P + k) for k in range(8))
    return (y_P - 0.5) * np.log(y_P) - y_P + 0.5 * np.log(2 * np.pi) + series_P - below_P


def _digamma(x_P: np.ndarray) -> np.ndarray:
    y_P = x_P + 8
    series_P = 1 / (12 * y_P**2) - 1 / (120 * y_P**4) + 1 / (252 * y_P**6) - 1 / (240 * y_P**8)
    return np.log(y_P) - 0.5 / y_P - series_P - sum(1 / (x_P + k) for k in range(8))
