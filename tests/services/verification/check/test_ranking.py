import json
import math

import pytest

from pipeline.errors import UserError
from services.verification.check.ranking import Ranking
from sluice.v1.prompt_pb2 import CheckSpec

GRADED = {"a": 3, "b": 2, "c": 1, "d": 0}


def judge(text, relevance=GRADED, k=None, **knobs):
    spec = {"relevance": relevance} | ({"k": k} if k else {})
    return Ranking(**knobs)(text, CheckSpec(spec_json=json.dumps(spec)))


@pytest.mark.parametrize(
    "text", ["a > b > c > d", "a, b, c", "1. a\n2. b\n3. c", '["a", "b", "c", "d"]', "<answer>a;b;c</answer>"]
)
def test_the_best_order_is_correct_however_it_is_written(text):
    assert judge(text).name == "CORRECT"


def test_ndcg_by_hand():
    best = 7 + 3 / math.log2(3) + 1 / 2
    found = judge("c > b > a")
    assert found.name == "PARTIAL"
    assert found.accuracy == pytest.approx((1 + 3 / math.log2(3) + 7 / 2) / best)
    assert dict(found.rewards)["rank_3"] == pytest.approx(3.5 / best)
    assert judge("c > b > a", gain="linear").accuracy == pytest.approx(
        (1 + 2 / math.log2(3) + 3 / 2) / (3 + 2 / math.log2(3) + 1 / 2)
    )


def test_recall_counts_the_relevant_among_the_first_k():
    relevance = {"x": 1, "y": 1, "z": 0}
    assert judge("z, x, y", relevance, k=2, metric="recall").accuracy == 0.5
    assert judge("z, x, y", relevance, k=3, metric="recall").name == "CORRECT"


def test_a_name_said_twice_counts_once_and_an_unknown_one_not_at_all():
    assert judge("a > a > a", {"a": 1}).name == "CORRECT"
    assert judge("a > a > b", {"a": 1, "b": 1}).accuracy == pytest.approx(1.5 / (1 + 1 / math.log2(3)))
    assert judge("nothing, known").name == "WRONG"


def test_no_list_is_unparsable():
    assert (judge("").name, judge("[1, {").name) == ("UNPARSABLE", "UNPARSABLE")


@pytest.mark.parametrize("relevance", [{}, {"a": 0}, {"a": -1}, {"a": "1"}, {"a": True, "b": 1}, [], None])
def test_relevance_that_has_no_use_is_a_users_error(relevance):
    with pytest.raises(UserError, match="relevance"):
        judge("a", relevance)
