"""From protobuf rollouts to tensors: one call, several calls, rewritten contexts, branches."""

from __future__ import annotations

import math

import torch

from services.learning.collate import collate, flaw
from sluice.v1 import rollout_pb2
from tests.services.learning.rollouts import call, group, member, random_groups, with_fields

Place = rollout_pb2.CallPlace


def make(*members, version=5):
    return collate([group("g", members)], version=version, max_tokens=8)


def test_a_single_call_lies_behind_its_context():
    batch = make(member([call([7, 8, 9], [-0.1, -0.2, -0.3], context=[1, 2], version=4)]))
    assert batch.input_SL.tolist() == [[1, 2, 7, 8, 9]]
    assert batch.token_NT.tolist() == [[7, 8, 9]]
    assert batch.position_NT.tolist() == [[2, 3, 4]]
    assert batch.lag_NT.tolist() == [[1, 1, 1]]
    assert batch.mask_NT.all() and batch.context_N.tolist() == [2]
    torch.testing.assert_close(batch.behaviour_NT, torch.tensor([[-0.1, -0.2, -0.3]]))


def test_a_call_that_keeps_everything_before_it_lengthens_the_same_sequence():
    second = call([5], [-0.5], context=[3], kept_tokens=4, place=Place(turn=1))
    batch = make(member([call([7, 8], context=[1, 2]), second]))
    assert batch.input_SL.tolist() == [[1, 2, 7, 8, 3, 5]]
    assert batch.token_NT.tolist() == [[7, 8, 5]]
    assert batch.position_NT.tolist() == [[2, 3, 5]]
    assert batch.turn_NT.tolist() == [[0, 0, 1]] and batch.call_NT.tolist() == [[0, 0, 1]]


def test_a_call_that_rewrites_its_context_begins_another_sequence_of_the_same_rollout():
    second = call([5], context=[9, 9], kept_tokens=1)
    batch = make(member([call([7, 8], context=[1, 2]), second]), member([call([4], context=[6])]))
    assert batch.input_SL.tolist() == [[1, 2, 7, 8], [1, 9, 9, 5], [6, 4, 0, 0]]
    assert batch.row_S.tolist() == [0, 0, 1]
    assert batch.sequence_NT.tolist() == [[0, 0, 1], [2, 0, 0]]
    assert batch.denominators.tokens == 4 and batch.denominators.rows == 2


def test_two_branches_of_one_call_each_train_their_own_tokens_once():
    branch = {"context": [], "kept_tokens": 3}
    calls = [
        call([7], context=[1, 2]),
        call([5], place=Place(parent_call=0, turn=1), **branch),
        call([6], place=Place(parent_call=0, turn=1), **branch),
    ]
    batch = make(member(calls))
    assert batch.input_SL.tolist() == [[1, 2, 7, 5], [1, 2, 7, 6]]
    assert batch.sequence_NT.tolist() == [[0, 0, 1]] and batch.token_NT.tolist() == [[7, 5, 6]]


def test_injected_tokens_and_untrainable_calls_are_not_trained_on():
    kinds = [rollout_pb2.TOKEN_KIND_INJECTED, rollout_pb2.TOKEN_KIND_THOUGHT, rollout_pb2.TOKEN_KIND_UNSPECIFIED]
    batch = make(member([call([7, 8, 9], token_kinds=kinds), call([3], kept_tokens=5, place=Place(trainable=False))]))
    assert batch.mask_NT.tolist() == [[False, True, True, False]]
    assert batch.denominators.tokens == 2


def test_versions_and_temperatures_follow_the_spans():
    one = call([7, 8, 9])
    del one.spans[:]
    one.spans.add(first_token=0, version=2, temperature=1.0)
    one.spans.add(first_token=2, version=5, temperature=0.5)
    batch = make(member([one]))
    assert batch.version_NT.tolist() == [[2, 2, 5]] and batch.temperature_NT.tolist() == [[1.0, 1.0, 0.5]]


def test_an_empty_response_is_a_row_without_tokens():
    batch = make(member([call([])]), member([call([3, 4])], right=True))
    assert batch.length_N.tolist() == [0, 2] and batch.mask_NT.tolist() == [[False, False], [True, True]]
    only_empty = make(member([call([])]), member([]))
    assert only_empty.token_NT.shape == (2, 0) and only_empty.denominators.tokens == 0


def test_verdicts_beliefs_and_raw_rewards_become_columns():
    batch = make(
        member([call([3])], right=True, belief=0.25, rewards={"format": 1.0}),
        member([call([3])], rewards={"style": 0.5}),
    )
    assert batch.accuracy_N.tolist() == [1.0, 0.0]
    assert batch.belief_N[0] == 0.25 and math.isnan(batch.belief_N[1])
    assert batch.rewards["format"][0] == 1.0 and math.isnan(batch.rewards["format"][1])
    assert batch.rewards["style"][1] == 0.5


def test_side_arrays_run_along_the_tokens():
    array = rollout_pb2.SideArray(name="entropy", values=[0.5, 0.25])
    batch = make(member([call([3, 4], side=[array])]), member([call([3])]))
    assert batch.side["entropy"][0].tolist() == [0.5, 0.25] and math.isnan(batch.side["entropy"][1, 0])


def test_what_cannot_be_trained_on_is_named():
    assert flaw(member([call([3, 4], [-1.0])])) == "malformed"
    assert flaw(member([call([3], temperature=0.0)])) == "untrainable_temperature"
    assert flaw(member([call([3], context=[])])) == "malformed"
    assert flaw(member([call([3], kept_tokens=9), call([3], kept_tokens=9)])) == "malformed"
    assert flaw(member([call([3])])) is None and flaw(member([])) is None


def test_rows_cut_padding_and_renumber_sequences():
    batch = collate(random_groups(groups=3), version=3, max_tokens=6)
    part = batch.rows([5, 2])
    assert len(part) == 2 and part.members == (batch.members[2], batch.members[5])
    assert part.token_NT.shape[1] == int(part.length_N.max())
    assert part.denominators == batch.denominators
    for row, old in enumerate((2, 5)):
        n = int(batch.length_N[old])
        spots = part.input_SL[part.sequence_NT[row, :n], part.position_NT[row, :n]]
        assert spots.tolist() == batch.token_NT[old, :n].tolist()
    assert part.group_N.tolist() == [0, 1]


def test_rows_cut_signals_too():
    batch = collate(random_groups(groups=2), version=3, max_tokens=6)
    batch = batch.with_signals(advantage=torch.arange(8.0), ref_logp=batch.behaviour_NT)
    part = batch.rows([1])
    assert part.signals["advantage"].tolist() == [1.0]
    assert part.signals["ref_logp"].shape == part.token_NT.shape
    assert len(with_fields(part, version=9)) == 1
