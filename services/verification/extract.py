r"""Where the answer is in a text. Every rule takes the last of its kind: a policy may change its mind, and only what it
says at the end counts. All are linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BOX = re.compile(r"\\f?boxed\s*\{")
_ANSWER_IS = re.compile(r"(?i)(?:\banswer\b[ *]*(?:is|:|=)[ :]*|####)")


def tagged(text: str, tag: str = "answer") -> str | None:
    """Text after the last `<tag>`, up to its `</tag>` or the end (a stop string may have cut the closing tag).

    >>> tagged("<answer>3</answer> no: <answer> 4 </answer>."), tagged("<answer>5"), tagged("6")
    ('4', '5', None)
    """
    _, opening, rest = text.rpartition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0].strip() if opening else None


def answer(text: str, tag: str = "answer") -> str:
    """The last tagged answer, else the whole text; stripped. An empty `tag` always takes the whole text.

    >>> answer("so <answer>42</answer>"), answer(" 42 "), answer("<answer>42</answer>", tag="")
    ('42', '42', '<answer>42</answer>')
    """
    found = tagged(text, tag) if tag else None
    return text.strip() if found is None else found


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` whose braces are balanced; None when there is none.

    >>> boxed(r"\boxed{1}, rather \boxed{\frac{1}{2}}!"), boxed(r"\boxed{1")
    ('\\frac{1}{2}', None)
    """
    return next(_boxes(text), None)


def all_boxed(text: str) -> list[str]:
    r"""Contents of the last eight `\boxed{...}` whose braces are balanced, in their order.

    >>> all_boxed(r"\boxed{1} or \boxed{2} or \boxed{3")
    ['1', '2']
    """
    return list(_boxes(text))[::-1]


def _boxes(text: str) -> Iterator[str]:
    for start in (match.end() for match in reversed(list(_BOX.finditer(text))[-8:])):
        depth, escaped = 1, False
        for at in range(start, len(text)):
            letter = text[at]
            depth += 0 if escaped else (letter == "{") - (letter == "}")
            escaped = letter == "\\" and not escaped
            if depth == 0:
                yield text[start:at].strip()
                break


def stated(text: str) -> str | None:
    """What follows the last "answer is", "answer:" or "####", up to the end of its line.

    >>> stated("The answer is 4. Wait: the answer is: 5."), stated("#### 7"), stated("7")
    ('5', '7', None)
    """
    found = list(_ANSWER_IS.finditer(text))
    if not found:
        return None
    lines = text[found[-1].end() :].strip().splitlines()
    return lines[0].strip().rstrip(".").strip(" *") if lines else None
