"""The table of pairs: how often the check agrees with the label, and how often bare math-verify does."""

import functools
import logging
import re
from collections import Counter
from pathlib import Path

import pytest

from services.verification.check.math import Math
from sluice.v1.prompt_pb2 import CheckSpec

TABLE = Path(__file__).with_name("math_pairs.txt")
HEADING = re.compile(r"\[([a-z ]+)\]")
LINE = re.compile(r"(.*?) (==|!=) (.*)")


def pairs():
    """(kind, expected, said, whether they are the same), for each pair of the table."""
    kind = ""
    for line in TABLE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if heading := HEADING.fullmatch(line):
            kind = heading[1]
            continue
        expected, mark, answers = LINE.fullmatch(line).groups()
        yield from ((kind, expected.strip(), said.strip(), mark == "==") for said in answers.split(" || "))


PAIRS = list(pairs())


@functools.cache
def ours(expected: str, said: str) -> bool:
    return Math()(said, CheckSpec(check="math", answer=expected)).name == "CORRECT"


def bare(expected: str, said: str) -> bool:
    """math-verify as its documentation shows it, both sides as LaTeX."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    written = said if "boxed" in said or "$" in said else f"${said}$"
    return verify(
        parse(f"${expected}$", parsing_timeout=None), parse(written, parsing_timeout=None), timeout_seconds=None
    )


def test_the_table_has_pairs_of_every_kind_with_both_labels():
    assert len(PAIRS) >= 400
    assert len(set(PAIRS)) == len(PAIRS)
    kinds = Counter(kind for kind, *_ in PAIRS)
    wanted = {
        "fractions",
        "radicals",
        "sets",
        "intervals",
        "matrices",
        "units",
        "percent",
        "scientific",
        "text",
        "boxes",
    }
    assert wanted | {"near misses"} <= set(kinds)
    assert sum(label for *_, label in PAIRS) > 200 < sum(not label for *_, label in PAIRS)


def test_the_check_agrees_with_the_labels_and_at_least_as_often_as_math_verify():
    agreed = [pair for pair in PAIRS if ours(*pair[1:3]) == pair[3]]
    assert len(agreed) >= 0.99 * len(PAIRS), sorted(set(PAIRS) - set(agreed))
    by_math_verify = sum(bare(*pair[1:3]) == pair[3] for pair in PAIRS)
    assert len(agreed) >= by_math_verify


def test_no_pair_of_the_table_that_is_different_passes():
    assert [pair for pair in PAIRS if not pair[3] and ours(*pair[1:3])] == []


@pytest.mark.parametrize(
    ("boxes", "said", "outcome"),
    [
        ("last", r"\boxed{1}, \boxed{2}", "WRONG"),
        ("same", r"\boxed{1}, \boxed{2}", "UNPARSABLE"),
        ("same", r"\boxed{1}, again \boxed{1}", "CORRECT"),
        ("set", r"\boxed{1} and \boxed{2}", "WRONG"),
    ],
)
def test_which_of_several_boxes_counts_is_a_stated_rule(boxes, said, outcome):
    assert Math(boxes=boxes)(said, CheckSpec(answer="1")).name == outcome


def test_all_boxes_together_may_be_one_set():
    assert Math(boxes="set")(r"\boxed{2} and \boxed{1}", CheckSpec(answer=r"\{1,2\}")).name == "CORRECT"
