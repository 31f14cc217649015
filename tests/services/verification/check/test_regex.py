import time

import pytest

from pipeline.errors import UserError
from services.verification.check.regex import Regex
from services.verification.pool import Pool
from services.verification.worker import Job
from sluice.v1.prompt_pb2 import CheckSpec


def judge(text, pattern, **knobs):
    return Regex(**knobs)(text, CheckSpec(check="regex", answer=pattern)).name


def test_the_whole_answer_must_match_unless_search_is_asked_for():
    assert judge("abc", "b") == "WRONG"
    assert judge("abc", "b", mode="search") == "CORRECT"


def test_case_counts_unless_it_is_ignored():
    assert (judge("YES", "yes"), judge("YES", "yes", ignore_case=True)) == ("WRONG", "CORRECT")


def test_the_tagged_answer_is_what_is_read():
    assert judge("1 <answer>2</answer>", "2") == "CORRECT"


def test_a_text_beyond_the_limit_is_unparsable():
    assert judge("a" * 11, "a*", max_chars=10) == "UNPARSABLE"


@pytest.mark.parametrize("pattern", ["", "(", "[z-a]", "(?P<x>a)(?P<x>b)"])
def test_a_pattern_that_is_none_is_a_users_error(pattern):
    with pytest.raises(UserError, match="regex: the pattern"):
        judge("x", pattern)


def test_catastrophic_backtracking_costs_its_own_cpu_limit_and_nobody_elses():
    pool = Pool(workers=2)
    try:
        pool.run([Job("{}", "a", "regex", "a", "")] * 2)
        began = time.monotonic()
        bad = Job("{}", "a" * 60 + "b", "regex", "(a+)+$", "", cpu_s=0.4)
        good = Job("{}", "a", "regex", "a", "", cpu_s=0.4)
        assert [one.name for one in pool.run([good, bad, good])] == ["CORRECT", "TIMEOUT", "CORRECT"]
        assert time.monotonic() - began < 5
    finally:
        pool.close()
