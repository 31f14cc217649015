"""What a part can be told: each knob's meaning, unit, range and default, declared once, where the part is.

A part is a frozen dataclass. A field made with `knob(...)` carries its documentation and its bounds, so that a recipe
can be refused before anything heavy is imported (`pipeline/partspec.py` reads the same declaration from the source) and
again when the part is built (`__post_init__ = check`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


class _Required:
    """Says of a knob that it has no default."""

    def __repr__(self) -> str:
        return "(required)"


REQUIRED = _Required()


@dataclass(frozen=True)
class Knob:
    """One knob as declared. `type` is its annotation as written; `default` is `REQUIRED` where there is none."""

    name: str
    type: str
    default: Any = REQUIRED
    doc: str = ""
    unit: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def accepted(self) -> str:
        """What it accepts, in words.

        >>> Knob("low", "float", 0.2, ge=0, lt=1).accepted
        'float >= 0 and < 1'
        """
        if self.choices:
            return ", ".join(str(choice) for choice in self.choices)
        marks = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        bounds = " and ".join(f"{mark} {bound:g}" for mark, bound in marks if bound is not None)
        return f"{self.type} {bounds}".strip()

    def fits(self, value: Any) -> bool:
        """Whether a value is of the knob's type and inside its bounds.

        >>> knob = Knob("cap", "float | None", ge=1)
        >>> knob.fits(2), knob.fits(None), knob.fits(0.5), knob.fits("2"), knob.fits(math.nan), knob.fits(math.inf)
        (True, True, False, False, False, False)
        """
        if self.choices:
            return value in self.choices and not (isinstance(value, bool) and True not in self.choices)
        if value is None:
            return "None" in self.type
        if not any(_is(value, word.strip()) for word in self.type.split("|")):
            return False
        return not isinstance(value, int | float) or isinstance(value, bool) or self._inside(value)

    def _inside(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        low = (self.ge is None or value >= self.ge) and (self.gt is None or value > self.gt)
        return low and (self.le is None or value <= self.le) and (self.lt is None or value < self.lt)


def knob(
    default: Any = REQUIRED,
    doc: str = "",
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:
    """A dataclass field with its documentation, unit and bounds. The default is the paper's unless `doc` says so."""
    told = {"doc": doc, "unit": unit, "ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    value = dataclasses.MISSING if default is REQUIRED else default
    return dataclasses.field(default=value, metadata={"knob": told})


def declared(part: type) -> tuple[Knob, ...]:
    """The knobs of a part's dataclass, in order."""
    return tuple(
        Knob(field.name, str(field.type), _default(field), **field.metadata.get("knob", {}))
        for field in dataclasses.fields(part)
        if field.init
    )


def check(part: Any) -> None:
    """Refuse a part whose knobs are out of range; a part says `__post_init__ = check`. Raises `ValueError`."""
    for each in declared(type(part)):
        value = getattr(part, each.name)
        if not each.fits(value):
            raise ValueError(f"knob {each.name} is {value!r}; accepted: {each.accepted}")


def _default(field: dataclasses.Field[Any]) -> Any:
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def _is(value: Any, word: str) -> bool:
    kinds = {"float": (int, float), "int": (int,), "bool": (bool,), "str": (str,)}
    name = word.partition("[")[0]
    if name in kinds:
        return isinstance(value, kinds[name]) and (name == "bool" or not isinstance(value, bool))
    return name in ("tuple", "list") and isinstance(value, list | tuple) or name == "dict" and isinstance(value, dict)
