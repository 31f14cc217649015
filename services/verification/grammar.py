"""What may be handed to a scorer that evaluates its input.

Nine reasoning-gym scorers call `eval`, or sympy's `parse_expr`, which is `eval` too. A text reaches them only when
Python's own parser reads it as one of three harmless things: a plain literal, arithmetic on numbers, or an expression
of named functions and variables. Nothing is evaluated here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from fractions import Fraction

MAX_CHARS = 2_000
MAX_DIGITS = 30
MAX_POWER = 200
FUNCTIONS = frozenset(
    (
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "sinh",
        "cosh",
        "tanh",
        "asin",
        "acos",
        "atan",
        "asinh",
        "acosh",
        "atanh",
    )
    + ("exp", "log", "ln", "sqrt", "Abs")
)
CONSTANTS = frozenset({"pi"})
_ONE_LINE = re.compile(r"[^#\\\n]*")
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def allowed(name: str, text: str) -> bool:
    """Whether the scorer of generator `name` may be given `text`; always for those that evaluate nothing.

    >>> allowed("countdown", "(3 + 4) * 2"), allowed("countdown", "__import__('os')"), allowed("gcd", "anything")
    (True, False, True)
    """
    test = _TESTS.get(name)
    return test is None or test(text)


def literal(text: str) -> bool:
    """Lists, tuples, numbers and strings.

    >>> literal("[[1, 0], [0, 1]]"), literal("[print(1)]"), literal("9**9")
    (True, False, False)
    """
    tree = _tree(text, MAX_CHARS * 10)
    return tree is not None and all(
        isinstance(node, ast.List | ast.Tuple | ast.Load | ast.UnaryOp | ast.USub) or _constant(node, strings=True)
        for node in ast.walk(tree)
    )


def arithmetic(text: str) -> bool:
    """Numbers, the four operations and brackets: no powers, no names."""
    return value(text) is not None


def value(text: str) -> Fraction | None:
    """Exact value of arithmetic; None when it is none, or divides by zero.

    >>> value("8 / (3 - 8 / 3)"), value("2 ** 3"), value("1 / 0")
    (Fraction(24, 1), None, None)
    """
    tree = _tree(text)
    try:
        return None if tree is None else _value(tree)
    except (ZeroDivisionError, RecursionError):
        return None


def symbolic(text: str) -> bool:
    """One-letter variables, pi, numbers, the four operations, bounded powers and calls of `FUNCTIONS`.

    >>> symbolic("x**3/3 + sin(2*x) + C"), symbolic("9**9**9"), symbolic("x.__class__"), symbolic("factorial(10**7)")
    (True, False, False, False)
    """
    tree = _tree(text)
    return tree is not None and _symbolic(tree)


def _tree(text: str, max_chars: int = MAX_CHARS) -> ast.expr | None:
    if len(text) > max_chars or not _ONE_LINE.fullmatch(text):
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _constant(node: ast.AST, strings: bool = False) -> bool:
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return False
    if isinstance(node.value, str):
        return strings
    return isinstance(node.value, float) or (isinstance(node.value, int) and abs(node.value) < 10**MAX_DIGITS)


def _value(node: ast.expr) -> Fraction | None:
    if _constant(node):
        number = node.value  # type: ignore[attr-defined]
        return Fraction(str(number)) if abs(number) < 10**MAX_DIGITS else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _value(node.operand)
        return inner if inner is None or isinstance(node.op, ast.UAdd) else -inner
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS)):
        return None
    left, right = _value(node.left), _value(node.right)
    if left is None or right is None:
        return None
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case _:
            return left / right


def _symbolic(tree: ast.expr) -> bool:
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return all(_symbolic_node(node, id(node) in called) for node in ast.walk(tree))


def _symbolic_node(node: ast.AST, called: bool) -> bool:
    match node:
        case ast.Name(id=name):
            return name in FUNCTIONS if called else name in CONSTANTS or bool(re.fullmatch("[A-Za-z]", name))
        case ast.Call(func=ast.Name(), args=[_], keywords=[]):
            return True
        case ast.BinOp(op=ast.Pow(), right=exponent):
            return _small_power(exponent)
        case ast.BinOp(op=operator):
            return isinstance(operator, _OPERATORS)
        case ast.UnaryOp(op=operator):
            return isinstance(operator, ast.USub | ast.UAdd)
    return isinstance(node, ast.operator | ast.unaryop | ast.expr_context) or _constant(node)


def _small_power(exponent: ast.expr) -> bool:
    """No power inside, and no number above `MAX_POWER`: towers are refused before anybody computes them."""
    return all(
        not isinstance(node, ast.Pow) and not (isinstance(node, ast.Constant) and not _small(node.value))
        for node in ast.walk(exponent)
    )


def _small(number: object) -> bool:
    return isinstance(number, int | float) and abs(number) <= MAX_POWER


_TESTS: dict[str, Callable[[str], bool]] = {
    "binary_matrix": literal,
    "n_queens": literal,
    "spiral_matrix": literal,
    "string_insertion": literal,
    "countdown": arithmetic,
    "puzzle24": arithmetic,
    "intermediate_integration": symbolic,
    "polynomial_multiplication": symbolic,
    "simple_integration": symbolic,
}
