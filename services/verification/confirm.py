"""Second looks at reasoning-gym scorers that were seen to give the full score to a wrong text.

Each function answers: given that the scorer is content, is this text an answer? The fault it closes is its docstring.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from services.verification import grammar

Entry = dict[str, Any]


def holds(name: str, said: str, entry: Entry) -> bool:
    """Whether a full score by generator `name` may be believed."""
    look = _LOOKS.get(name)
    return look is None or look(said, entry)


def _coin_flip(said: str, entry: Entry) -> bool:
    """ "0" scores 1 against any "0.xyz": the partial credit compares the shorter text's length only."""
    ours, theirs = _fraction(said), _fraction(entry["answer"])
    return ours is not None and theirs is not None and abs(ours - theirs) <= Fraction(1, 10_000)


def _finite(said: str, entry: Entry) -> bool:
    """NaN is as near as can be: min(1, exp(-nan)) is 1; and a list of NaN counts as sorted."""
    return re.search(r"(?i)nan|inf", said) is None


def _game_of_life(said: str, entry: Entry) -> bool:
    """Rows and cells beyond the board are not looked at."""
    return json.loads(said) == json.loads(entry["answer"])


def _letter_jumble(said: str, entry: Entry) -> bool:
    """Words after the last right one are not looked at."""
    return said.lower().split() == entry["answer"].lower().split()


def _number_sorting(said: str, entry: Entry) -> bool:
    """Numbers may be off by 1 each, or NaN."""
    ours = [float(number) for number in json.loads(said.replace("'", '"'))]
    theirs = [float(number) for number in json.loads(entry["answer"].replace("'", '"'))]
    return len(ours) == len(theirs) and all(
        math.isclose(one, other, abs_tol=1e-6) for one, other in zip(ours, theirs, strict=True)
    )


def _polynomial_equations(said: str, entry: Entry) -> bool:
    """Where there is no real solution, any text without a number scores 1."""
    return _finite(said, entry) and bool(entry["answer"].strip())


def _puzzle24(said: str, entry: Entry) -> bool:
    """Any four numbers in range are taken for the given ones, and 24.9 is cut to 24."""
    used = sorted(int(number) for number in re.findall(r"\b\d+\b", said))
    return grammar.value(said) == 24 and used == sorted(entry["metadata"]["numbers"])


def _spell_backward(said: str, entry: Entry) -> bool:
    """Letters after the last right one are not looked at: 1/9 added nine times is a little above 1."""
    return said.lower() == entry["answer"].lower()


def _word_sorting(said: str, entry: Entry) -> bool:
    """Words after the last right one are not looked at."""
    return len(said.split(",")) == len(entry["metadata"]["sorted_words"])


def _fraction(text: str) -> Fraction | None:
    if not re.fullmatch(r"\s*-?[\d,]{1,30}(?:\.\d{0,30}|/\d{1,30})?\s*", text):
        return None
    try:
        return Fraction(text.replace(",", "").strip())
    except (ValueError, ZeroDivisionError):
        return None


_LOOKS: dict[str, Callable[[str, Entry], bool]] = {
    "coin_flip": _coin_flip,
    "complex_arithmetic": _finite,
    "game_of_life": _game_of_life,
    "letter_jumble": _letter_jumble,
    "number_sorting": _number_sorting,
    "polynomial_equations": _polynomial_equations,
    "puzzle24": _puzzle24,
    "spell_backward": _spell_backward,
    "word_sorting": _word_sorting,
}
