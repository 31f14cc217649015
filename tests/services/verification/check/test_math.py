import time

import pytest

from pipeline.errors import UserError
from services.verification.check.math import Math
from services.verification.pool import Pool
from services.verification.worker import Job
from sluice.v1.prompt_pb2 import CheckSpec

SAME = [
    ("5", "5"),
    (r"\boxed{5}", "5"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    ("1/2", r"\frac{1}{2}"),
    ("0.333333", "1/3"),
    ("2/4", "1/2"),
    ("50%", r"\frac{1}{2}"),
    ("-3", "-3"),
    ("1,234", "1234"),
    ("2*sqrt(3)", r"2\sqrt{3}"),
    (r"\sqrt{12}", "2*sqrt(3)"),
    ("x**2 + 2*x + 1", "(x+1)^2"),
    (r"$x^2-1$", r"(x-1)(x+1)"),
    (r"\(\pi/2\)", "pi/2"),
    ("x = 5", "5"),
    (r"\boxed{x=5}", "5"),
    ("(1, 2)", "(1,2)"),
    (r"\{1, 2, 3\}", r"\{3, 2, 1\}"),
    (r"[0, 1)", r"[0,1)"),
    (r"\dfrac34", "0.75"),
    (r"\boxed{1} and then \boxed{2}", "2"),
    ("The answer is 4. Wait, the answer is: 7.", "7"),
    ("reasoning\n#### 18", "18"),
    ("<answer>3.50</answer>", "3.5"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    ("2^(10)", "1024"),
    (r"\boxed{\text{Monday}}", r"\text{Monday}"),
    (r"\log_2 8", "3"),
]
DIFFERENT = [
    ("5", "6"),
    (r"\boxed{2} then \boxed{1}", "2"),
    ("0.33", "1/3"),
    ("x+1", "x-1"),
    ("(2, 1)", "(1,2)"),
    (r"\boxed{3, 4}", "4"),
    (r"[0, 1]", "[0,1)"),
    ("-3", "3"),
    ("nan", "5"),
]
HOSTILE = [
    r"\boxed{9^{9^{9^{9^{9}}}}}",
    r"\boxed{9**9**9**9}",
    r"\boxed{(10^7)!}",
    r"\boxed{" + "1+" * 900 + "1}",
    "1" * 1_000_000,
    r"\boxed{" * 100_000,
    r"\boxed{" + "{" * 900 + "1" + "}" * 900 + "}",
    "__import__('os').system('touch hacked')",
    r"\boxed{\int_0^{99999} x^{9999} dx}",
    r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n}}",
    "(" * 50 + "1" + ")" * 50,
]


def judge(text, gold, **knobs):
    return Math(**knobs)(text, CheckSpec(check="math", answer=gold))


@pytest.mark.parametrize(("text", "gold"), SAME)
def test_equal_answers_are_correct(text, gold):
    found = judge(text, gold)
    assert found.name == "CORRECT", found


@pytest.mark.parametrize(("text", "gold"), DIFFERENT)
def test_other_answers_are_not_correct(text, gold):
    assert judge(text, gold).name in ("WRONG", "UNPARSABLE")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("9" * 3000, "too_long"), ("{" * 61 + "}" * 61, "too_deep"), (r"\frac{", "syntax")],
)
def test_what_cannot_be_read_is_unparsable_with_a_reason(text, reason):
    found = judge(text, "5")
    assert (found.name, found.reason) == ("UNPARSABLE", reason)


def test_with_require_boxed_a_bare_answer_is_unparsable():
    found = judge("5", "5", require_boxed=True)
    assert (found.name, found.reason) == ("UNPARSABLE", "no_box")


def test_an_expected_answer_that_cannot_be_read_is_a_users_error():
    with pytest.raises(UserError, match="expected answer is ''"):
        judge("5", "")


def test_plain_expressions_are_never_evaluated(monkeypatch):
    from math_verify import parser

    def refuse(*args, **kwargs):
        raise AssertionError("parse_expr evaluates")

    monkeypatch.setattr(parser, "parse_expr", refuse)
    assert judge("(1+2)*3", "9").name == "CORRECT"


def test_hostile_answers_end_within_their_cpu_limit_and_never_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = Pool(workers=2)
    try:
        pool.run([Job("{}", "5", "math", "5", "")] * 2)
        began = time.monotonic()
        found = pool.run([Job("{}", text, "math", "5", "", cpu_s=1.0, wall_s=20.0) for text in HOSTILE])
        assert {one.name for one in found} <= {"WRONG", "UNPARSABLE", "TIMEOUT"}, found
        assert all(one.wall_s < 10 for one in found)
        assert time.monotonic() - began < 30
        assert pool.run([Job("{}", "5", "math", "5", "")])[0].name == "CORRECT"
        assert not list(tmp_path.iterdir())
    finally:
        pool.close()
