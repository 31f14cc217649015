"""Eight numbers in [0, 1] that say how varied a text is; see the part `multirole_diversity`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence

_WORD = re.compile(r"[a-z0-9']+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_QUESTION = frozenset(["who", "whom", "whose", "what", "which", "when", "where", "why", "how"])
_COMMANDS = "let consider note assume suppose find use compute solve recall think take add look see try"
_FUNCTION = """
the a an and or but if then else so because of to in on at by for with from as is are was were be been not no this that
these those it its he she they we you i his her their our your can could will would should may might do does did have
has had there here which who what when where why how than
"""
COMMANDS, FUNCTION_WORDS = frozenset(_COMMANDS.split()), frozenset(_FUNCTION.split())


def diversity(text: str) -> float:
    """Equal-weight mean of the eight signals; 0 for a text without a word."""
    found = signals(text)
    return sum(found.values()) / len(found)


def signals(text: str) -> dict[str, float]:
    """The eight signals by name, each in [0, 1].

    >>> found = signals("the cat sat on the mat. why did the cat sit. the dog ran.")
    >>> [round(found[name], 4) for name in ("types", "entropy", "lengths", "kinds", "neighbours", "bigrams")]
    [0.7143, 0.9311, 0.2673, 0.4591, 0.8036, 0.9231]
    """
    sentences = [part for part in _SENTENCE.findall(text.lower()) if _WORD.search(part)]
    split = [_WORD.findall(part) for part in sentences]
    words = [word for part in split for word in part]
    counts = Counter(words)
    return {
        "types": len(counts) / len(words) if words else 0.0,
        "entropy": _entropy(counts.values(), len(counts)),
        "lengths": _variation([len(part) for part in split]),
        "kinds": _entropy(Counter(_kind(part) for part in sentences).values(), 4),
        "neighbours": _mean([_distance(set(a), set(b)) for a, b in zip(split, split[1:], strict=False)]),
        "yule": 1 / (1 + yule(counts) / 100) if words else 0.0,
        "bigrams": _distinct(list(zip(words, words[1:], strict=False))),
        "function": _entropy([counts[word] for word in FUNCTION_WORDS], len(FUNCTION_WORDS)),
    }


def yule(counts: Counter[str]) -> float:
    """Yule's K of word counts: 10^4 (sum of r^2 V_r - N) / N^2; 0 for none.

    >>> round(yule(Counter("the cat sat on the mat why did the cat sit the dog ran".split())), 2)
    714.29
    """
    n = sum(counts.values())
    return 1e4 * (sum(count * count for count in counts.values()) - n) / n**2 if n else 0.0


def _entropy(counts: Collection[int], kinds: int) -> float:
    n = sum(counts)
    if not n or kinds < 2:
        return 0.0
    return -sum(count / n * math.log(count / n) for count in counts if count) / math.log(kinds)


def _variation(lengths: Sequence[int]) -> float:
    mean = _mean(lengths)
    return min(1.0, math.sqrt(_mean([(x - mean) ** 2 for x in lengths])) / mean) if mean else 0.0


def _kind(sentence: str) -> str:
    first = _WORD.findall(sentence)[0]
    if sentence.endswith("?") or first in _QUESTION:
        return "interrogative"
    if sentence.endswith("!"):
        return "exclamatory"
    return "imperative" if first in COMMANDS else "declarative"


def _distance(a: set[str], b: set[str]) -> float:
    return 1 - len(a & b) / len(a | b)


def _distinct(items: Sequence[tuple[str, str]]) -> float:
    return len(set(items)) / len(items) if items else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
