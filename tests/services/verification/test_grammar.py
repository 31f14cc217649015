import pytest

from services.verification import grammar

HOSTILE = [
    "__import__('os').system('id')",
    "().__class__.__bases__",
    "[x for x in (1, 2)]",
    "lambda: 1",
    "open('/etc/passwd')",
    "exec('1')",
    "f'{1}'",
    "x if x else y",
    "(y := 5)",
    "9**9**9**9",
    "factorial(10**7)",
    "sin(x, evaluate=False)",
    "sin(*x)",
    "'a' * 10**9",
    "1 << 10**9",
    "1 # comment",
    "1\n2",
    "\uff45val('1')",
    "True",
    "2" * 100,
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("test", [grammar.literal, grammar.arithmetic, grammar.symbolic])
def test_hostile_text_is_not_let_through(test, text):
    assert not test(text)


@pytest.mark.parametrize("text", ["x**2", "-3*x**3 + 2*x*y - 7", "sin(x)**2/3 + C", "exp(-2*x)*pi", "X**0.5"])
def test_expressions_of_answers_are_let_through(text):
    assert grammar.symbolic(text)


@pytest.mark.parametrize("text", ["[[0, 1], [1, 0]]", "['a', 'b']", "(1, -2)", "3"])
def test_literals_are_let_through(text):
    assert grammar.literal(text)


def test_deep_nesting_is_refused_without_harm():
    assert not grammar.arithmetic("(" * 1000 + "1" + ")" * 1000)
    assert not grammar.literal("[" * 9000 + "]" * 9000)
