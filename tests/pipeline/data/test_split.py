"""Training and held-out prompts share no question, and the parting follows from its arguments alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.prompt import build
from pipeline.data.split import merged, question, split, without
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2


def ask(text: str, answer: str = "x"):
    return build([("user", text)], prompt_pb2.CheckSpec(check="exact", answer=answer))


def test_two_prompts_that_differ_only_in_case_and_spaces_are_one_question():
    kept, left_out = merged([ask("Two  plus two"), ask("two plus\nTWO "), ask("three")])
    assert [question(prompt) for prompt in kept] == ["two plus two", "three"]
    assert left_out == 1


def test_a_system_prompt_does_not_make_it_another_question():
    check = prompt_pb2.CheckSpec(check="exact", answer="4")
    assert question(build([("user", "2 + 2")], check, system="Be brief.")) == question(
        build([("user", "2 + 2")], check)
    )


def test_the_parting_does_not_depend_on_the_order_of_the_prompts():
    prompts = [ask(f"word{i}") for i in range(50)]
    _, one = split(prompts, 10, seed=3)
    _, two = split(prompts[::-1], 10, seed=3)
    assert {p.prompt_id for p in one} == {p.prompt_id for p in two}
    assert {p.prompt_id for p in one} != {p.prompt_id for p in split(prompts, 10, seed=4)[1]}


def test_each_prompt_says_which_set_it_belongs_to():
    train, held_out = split([ask(f"word{i}") for i in range(5)], 2, seed=0)
    assert ({p.split for p in train}, {p.split for p in held_out}) == ({"train"}, {"held_out"})


@pytest.mark.parametrize("held_out", [-1, 3, 4])
def test_as_many_held_out_as_there_are_questions_is_refused(held_out):
    with pytest.raises(UserError, match=rf"held_out is {held_out}; accepted: 0 to 2"):
        split([ask("a"), ask("b"), ask("c"), ask("C")], held_out, seed=0)


def test_without_removes_every_prompt_that_another_set_asks():
    left = without([ask("a"), ask("b"), ask("c")], [ask("A")], [ask(" c ")])
    assert [question(prompt) for prompt in left] == ["b"]


@given(st.lists(st.text(alphabet="aAbB \n", min_size=1, max_size=4), min_size=2, max_size=30), st.integers(0, 5))
def test_no_question_is_ever_on_both_sides(texts, seed):
    prompts = [ask(text) for text in texts]
    unique = len(merged(prompts)[0])
    train, held_out = split(prompts, unique // 2, seed)
    asked, kept = {question(p) for p in train}, {question(p) for p in held_out}
    assert not asked & kept
    assert (len(asked | kept), len(held_out)) == (unique, unique // 2)
