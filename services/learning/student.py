"""Quantiles of Student's t, for bounds that hold with a stated confidence.

    P(T <= t) = 1/2 + A / 2,   A a finite sum in theta = atan(t / sqrt(n)) for a whole number n of degrees of freedom

Source: Abramowitz and Stegun, 26.7.3 and 26.7.4; the quantile by bisection.
"""

from __future__ import annotations

import math
from functools import lru_cache


def cdf(t: float, freedom: int) -> float:
    """P(T <= t).

    >>> round(cdf(1.414924, 7), 6), round(cdf(-1.0, 1), 6)
    (0.9, 0.25)
    """
    theta = math.atan(t / math.sqrt(freedom))
    square, odd = math.cos(theta) ** 2, freedom % 2
    term = math.cos(theta) if odd else 1.0
    total, k = 0.0, 1 + odd
    while k < freedom:
        total += term
        term *= square * k / (k + 1)
        k += 2
    inside = 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
    return 0.5 + inside / 2


@lru_cache(maxsize=1024)
def quantile(share: float, freedom: int) -> float:
    """The t with P(T <= t) = share, for 0 < share < 1 and freedom >= 1.

    >>> round(quantile(0.9, 7), 6), round(quantile(0.9, 999), 6)
    (1.414924, 1.2824)
    """
    low, high = -1.0, 1.0
    while cdf(high, freedom) < share:
        high *= 2
    while cdf(low, freedom) > share:
        low *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, freedom) < share else (low, middle)
    return (low + high) / 2
