r"""Writes answers in the LaTeX that math-verify's grammar reads exactly: plain notation, scientific notation, units.

What changes here changes no value: `1.5e3` becomes `15 \times 10^{2}`, an integer mantissa, so that no digit is lost to
binary fractions; a unit is taken off and compared by name; an inequality becomes the interval that it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_ALWAYS = (
    (re.compile("\N{MINUS SIGN}"), "-"),
    (re.compile("°|\N{RING ABOVE}"), r"^\\circ "),
    (re.compile("×"), r"\\times "),
    (re.compile("∪"), r"\\cup "),
    (re.compile("∞"), r"\\infty "),
    (re.compile(r"∅|\\varnothing(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"(?<=\d)\\[,!](?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\[,;!:]|~"), " "),
    (re.compile(r"(?<=\d)\.$"), ""),
    (re.compile(r"\\log_\{?e\}?(?![a-zA-Z])"), r"\\ln "),
    (re.compile(r"\\sqrt\{(\d{1,9})\.0{1,9}\}"), r"\\sqrt{\1}"),
)
_PLAIN = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*"), r" \\cdot "),
    (re.compile(r"\bsqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\^\s*(-?\d+)"), r"^{\1}"),
    (re.compile(r"(?<!\\)\b(pi|sin|cos|tan|log|ln|exp)\b"), r"\\\1 "),
    (re.compile(r"(?<!\\)\b(?:infinity|inf|oo)\b"), r"\\infty "),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile("π"), r"\\pi "),
    (re.compile("√\\s*(\\w+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=\d)\s*%"), r"\\%"),
)
_IMAGINARY = (
    (re.compile(r"(?<=\d)\s*\\cdot\s*i(?![a-zA-Z])"), "i"),
    (re.compile(r"(?<![a-zA-Z\\])i\s*\\cdot\s*(\d{1,30})(?![\d.])"), r"\1i"),
)
_E_NOTATION = re.compile(r"(?<![\w.\\])(\d{1,30}(?:\.\d{1,30})?)[eE]([+-]?\d{1,3})(?![\w.])")
_TIMES_TEN = re.compile(
    r"(?<![\w.])(\d{1,30})\.(\d{1,30})\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,4})\s*\}|(\d))"
)
_DECIMAL_POWER = re.compile(r"\^\{(\d{0,4})\.(\d{1,4})\}")

_NUMBER = r"[+-]?(?:\d[\d.,/]*|\\[dt]?frac\{[^{}]*\}\{[^{}]*\})?\\?(?:infty|pi)?"
_RELATION = {"<": "<", "\\lt": "<", "\\le": "<=", "\\leq": "<=", ">": ">", "\\gt": ">", "\\ge": ">=", "\\geq": ">="}
_OPERATOR = r"(\\leq|\\geq|\\le|\\ge|\\lt|\\gt|<|>)"
_BETWEEN = re.compile(rf"({_NUMBER})\s*{_OPERATOR}\s*([a-z])\s*{_OPERATOR}\s*({_NUMBER})")
_ONE_SIDE = re.compile(rf"([a-z])\s*{_OPERATOR}\s*({_NUMBER})")
_INTERVAL = re.compile(r"(?:\\left\s*)?[\[(].*,.*(?:\\right\s*)?[\])]", re.DOTALL)

_ALIASES = {
    "$": ("dollar", "dollars", "usd", "\\$"),
    "deg": ("degree", "degrees", "^\\circ", "^{\\circ}"),
    "m": ("meter", "meters", "metre", "metres"),
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres"),
    "mm": ("millimeter", "millimeters"),
    "km": ("kilometer", "kilometers", "kilometre", "kilometres"),
    "in": ("inch", "inches"),
    "ft": ("foot", "feet"),
    "mi": ("mile", "miles"),
    "kg": ("kilogram", "kilograms"),
    "g": ("gram", "grams"),
    "mg": (),
    "lb": ("lbs", "pound", "pounds"),
    "s": ("sec", "second", "seconds"),
    "ms": (),
    "min": ("mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "week": ("weeks",),
    "year": ("years", "yr", "yrs"),
    "l": ("liter", "liters", "litre", "litres"),
    "ml": ("milliliter", "milliliters"),
    "cent": ("cents",),
    "unit": ("units",),
    "n": ("newton", "newtons"),
    "j": ("joule", "joules"),
    "w": ("watt", "watts"),
    "v": ("volt", "volts"),
    "mph": (),
    "km/h": ("kmh", "kph"),
    "people": ("person",),
}
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}
_ONE_UNIT = r"\\\$|\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|" + "|".join(
    sorted((re.escape(one) for one in _CANONICAL if one.isalpha()), key=len, reverse=True)
)
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_WRITTEN = rf"(?:(?:square|sq|cubic|cu)\.?\s+)?(?:{_ONE_UNIT}){_POWER}(?:\s*(?:/|per)\s*(?:{_ONE_UNIT}){_POWER})?"
_WRAP = re.compile(r"\\(?:text|mathrm|textrm|operatorname|mbox)\s*\{\s*([^{}]*?)\s*\}")
_UNIT = re.compile(rf"(?i)(?<=[\d)}}.\s])\s*({_WRITTEN})\.?$")
_MONEY = re.compile(r"\\?\$\s*(?=[\d.])")
_MAX_UNIT_CHARS = 400


class Quantity(NamedTuple):
    """A value as LaTeX, and the name of its unit; empty when it has none."""

    value: str
    unit: str


def latex(text: str) -> str:
    r"""An answer without delimiters, plain notation written as LaTeX.

    >>> latex("$\\frac{1}{2}$"), latex("2*sqrt(3)"), latex("x**2 + 50%")
    ('\\frac{1}{2}', '2 \\cdot \\sqrt{3}', 'x^{2} + 50\\%')
    >>> latex("6.02e23"), latex("0.5 \\times 10^{-3}")
    ('602 \\times 10^{21}', '05 \\times 10^{-4}')
    """
    text = bare(text)
    for pattern, replacement in _ALWAYS:
        text = pattern.sub(replacement, text)
    text = _E_NOTATION.sub(r"\1 \\times 10^{\2}", text)
    if _is_plain(text):
        for pattern, replacement in _PLAIN:
            text = pattern.sub(replacement, text)
    text = _TIMES_TEN.sub(_whole_mantissa, text)
    text = _DECIMAL_POWER.sub(lambda m: rf"^{{\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}}}", text)
    for pattern, replacement in _IMAGINARY:
        text = pattern.sub(replacement, text)
    return text.strip()


def bare(text: str) -> str:
    r"""An answer without the delimiters around it, and without a stop at its end.

    >>> bare("\\( 3 \\)"), bare("$x$"), bare("$5"), bare("$4$.")
    ('3', 'x', '$5', '4')
    """
    text = text.strip()
    if text.endswith(("$.", "\\).", "\\].")):
        text = text[:-1]
    for left, right in _DELIMITERS:
        if text.startswith(left) and text.endswith(right) and len(text) >= len(left) + len(right):
            return text[len(left) : len(text) - len(right)].strip()
    return text


def quantity(text: str, letters: bool = True) -> Quantity:
    r"""A number and its unit, taken apart. `letters`: whether one bare letter may be a unit ("5 m"), or is a variable.

    >>> tuple(quantity("5\\text{ cm}")), tuple(quantity("$20")), tuple(quantity("9 m", letters=False))
    (('5', 'cm'), ('20', '$'), ('9 m', ''))
    """
    said = bare(text)
    if len(said) > _MAX_UNIT_CHARS or not any(letter.isdigit() for letter in said):
        return Quantity(text, "")
    if money := _MONEY.match(said):
        rest = said[money.end() :]
        return Quantity(rest, "$") if "$" not in rest else Quantity(text, "")
    plain = _WRAP.sub(r" \1", said).replace("°", r"^\circ").replace("~", " ").replace(r"\,", " ").replace(r"\ ", " ")
    found = _UNIT.search(plain)
    if found is None:
        return Quantity(text, "")
    value, unit = plain[: found.start()].strip(), _unit_name(found[1])
    if not re.search(r"\d[).}\s]*$", value) or (len(unit) == 1 and unit.isalpha() and not letters and plain == said):
        return Quantity(text, "")
    return Quantity(value, unit)


def is_interval(written: str) -> bool:
    r"""Whether LaTeX looks like one interval, or a union of some.

    >>> is_interval("[0,1)"), is_interval("(0,\\infty)"), is_interval("x>0")
    (True, True, False)
    """
    return _INTERVAL.fullmatch(written.strip()) is not None


def interval(written: str) -> str:
    r"""The interval that an inequality of one letter describes; the text itself where it is none.

    >>> interval("0 \\le x < 1"), interval("x>2"), interval("x+1")
    ('[0,1)', '(2,\\infty)', 'x+1')
    """
    said = written.strip()
    if both := _BETWEEN.fullmatch(said):
        left, right = _RELATION[both[2]], _RELATION[both[4]]
        if not both[1] or not both[5] or left[0] != right[0]:
            return written
        low, high, below, above = (both[1], both[5], left, right) if left[0] == "<" else (both[5], both[1], right, left)
        return f"{'[' if '=' in below else '('}{low},{high}{']' if '=' in above else ')'}"
    one = _ONE_SIDE.fullmatch(said)
    if one is None or not one[3]:
        return written
    relation = _RELATION[one[2]]
    if relation[0] == ">":
        return f"{'[' if '=' in relation else '('}{one[3]},\\infty)"
    return f"(-\\infty,{one[3]}{']' if '=' in relation else ')'}"


def _is_plain(text: str) -> bool:
    r"""Whether the only commands are those that were put there from single characters."""
    return re.search(r"\\(?!times\b|infty\b|cup\b|circ\b|emptyset\b|ln\b)[a-zA-Z{(\[%$]", text) is None


def _whole_mantissa(match: re.Match[str]) -> str:
    power = int(match[3] or match[4]) - len(match[2])
    return rf"{match[1]}{match[2]} \times 10^{{{power}}}".replace("\\times 10^{0}", "").strip()


def _unit_name(written: str) -> str:
    r"""
    >>> _unit_name("Hours"), _unit_name("square cm"), _unit_name("m / s^2"), _unit_name("^{\\circ}")
    ('h', 'cm^2', 'm/s^2', 'deg')
    """
    name = re.sub(r"[{}\s](?=[^a-zA-Z]|$)", "", written.strip().lower())
    power = 2 if re.match(r"sq", name) else 3 if re.match(r"cu", name) else 0
    name = re.sub(r"^(?:square|sq|cubic|cu)\.?\s*", "", name)
    name = re.sub(r"\s*per\s*", "/", name).replace(" ", "").replace("{", "").replace("}", "")
    parts = []
    for part in name.split("/"):
        stem, mark, exponent = part.partition("^") if not part.startswith("^") else (part, "", "")
        parts.append(_CANONICAL.get(stem, stem) + mark + exponent)
    joined = "/".join(parts)
    return f"{joined}^{power}" if power else joined
