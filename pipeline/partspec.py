"""What a part's source says of it, read without importing it: the docstring, the knobs, the class constants.

The pipeline and the command line must describe and check methods on machines and in processes that have no torch, so a
part is read as text: its module docstring is its documentation, its one public dataclass holds the knobs.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.knobs import REQUIRED, Knob

ROOT = Path(__file__).resolve().parent.parent / "services"


@dataclass(frozen=True)
class PartSpec:
    """One part as its source declares it."""

    room: str
    name: str
    doc: str
    example: str
    """The dataclass's docstring: the worked number."""
    knobs: tuple[Knob, ...]
    constants: Mapping[str, Any]
    """Literal class constants, for example `needs`, `conflicts`, `reason`."""

    @property
    def title(self) -> str:
        """First sentence of the documentation."""
        return self.doc.split("\n\n")[0].replace("\n", " ").strip()

    @property
    def needs(self) -> frozenset[str]:
        """Signals the part reads."""
        return frozenset(self.constants.get("needs", ()))

    def refuse(self, knobs: Mapping[str, Any]) -> str | None:
        """Why these knob values cannot be; None when they can."""
        known = {knob.name: knob for knob in self.knobs}
        for name, value in knobs.items():
            if name not in known:
                accepted = ", ".join(sorted(known)) or "(it has none)"
                return f"a knob of {self.room} {self.name!r} is {name!r}; accepted: {accepted}"
            if not known[name].fits(value):
                return f"knob {name!r} of {self.room} {self.name!r} is {value!r}; accepted: {known[name].accepted}"
        for knob in self.knobs:
            if knob.default is REQUIRED and knob.name not in knobs:
                return f"{self.room} {self.name!r} needs the knob {knob.name!r}; accepted: {knob.accepted}"
        return None


def rooms(service: str = "learning") -> list[str]:
    """The part rooms of a service, such as "learning.advantage".

    >>> "learning.advantage" in rooms()
    True
    """
    folders = (path for path in (ROOT / service).iterdir() if (path / "__init__.py").is_file())
    return sorted(f"{service}.{folder.name}" for folder in folders)


def names(room: str) -> list[str]:
    """The parts of a room, in order, by their file names.

    >>> "group_norm" in names("learning.advantage")
    True
    """
    folder = ROOT.joinpath(*room.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def read(room: str, name: str) -> PartSpec | None:
    """A part's declaration; None for a user's own package class, which is checked when it is built."""
    if ":" in name:
        return None
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"part file {name!r} does not exist; accepted: a Python file, package:class, or a part's name"
            )
        return _parse(room, name, path)
    if name not in names(room):
        raise UserError.choice(f"the {room} part", name, names(room))
    return _parse(room, name, ROOT.joinpath(*room.split("."), f"{name}.py"))


@lru_cache(maxsize=512)
def _parse(room: str, name: str, path: Path) -> PartSpec:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and _public_dataclass(node)]
    if len(classes) != 1:
        raise UserError(f"part {name!r} holds {len(classes)} public dataclasses; accepted: exactly one")
    knobs, constants, module = [], {}, _module_constants(tree)
    for node in classes[0].body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        kind = ast.unparse(node.annotation)
        if kind.startswith("ClassVar"):
            constants[node.target.id] = _literal(node.value)
        else:
            knobs.append(_knob(node.target.id, kind, node.value, module))
    example = ast.get_docstring(classes[0]) or ""
    return PartSpec(room, name, ast.get_docstring(tree) or "", example, tuple(knobs), constants)


def _public_dataclass(node: ast.ClassDef) -> bool:
    marks = [mark.func if isinstance(mark, ast.Call) else mark for mark in node.decorator_list]
    names = {mark.attr if isinstance(mark, ast.Attribute) else getattr(mark, "id", "") for mark in marks}
    return "dataclass" in names and not node.name.startswith("_")


def _module_constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What a module gives names to: a knob's bounds and choices may be such a name."""
    simple = [node for node in tree.body if isinstance(node, ast.Assign)]
    return {target.id: node.value for node in simple for target in node.targets if isinstance(target, ast.Name)}


def _knob(name: str, kind: str, value: ast.expr | None, module: Mapping[str, ast.expr]) -> Knob:
    if value is None:
        return Knob(name, kind)
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "knob":
        given = {word.arg: word.value for word in value.keywords if word.arg}
        told = {name: _literal(module.get(getattr(node, "id", ""), node)) for name, node in given.items()}
        default = _literal(value.args[0]) if value.args else REQUIRED
        doc = _literal(value.args[1]) if len(value.args) > 1 else told.pop("doc", "")
        return Knob(name, kind, default, doc, **told)
    return Knob(name, kind, _literal(value))


def _literal(node: ast.expr | None) -> Any:
    """The value of a literal, `frozenset({...})`, a negative number or `1 << 26`; the source text of anything else."""
    if node is None:
        return None
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "frozenset" and node.args:
        return frozenset(ast.literal_eval(node.args[0]))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return ast.literal_eval(node.left) << ast.literal_eval(node.right)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
