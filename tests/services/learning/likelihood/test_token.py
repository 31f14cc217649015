"""Log-probs of sampled tokens, in any layout."""

from __future__ import annotations

import math

import pytest
import torch

from services.learning import sharing
from services.learning.collate import collate
from services.learning.likelihood.token import Token
from services.learning.sharing import padded, pays, shared
from sluice.v1 import rollout_pb2
from tests.services.learning.rollouts import call, group, member, random_groups, tiny_model

Place = rollout_pb2.CallPlace


def same_context(seed: int, groups: int = 3, context: int = 9):
    """Groups whose members share a context, ragged."""
    made = []
    for each in random_groups(seed, groups=groups, longest=4):
        members = []
        for index, one in enumerate(each.members):
            said = rollout_pb2.Call()
            said.CopyFrom(one.rollout.calls[0])
            said.context_tokens[:] = [(seed + i) % 11 for i in range(context)]
            members.append(member([said], bool(one.verdict.accuracy), index=index))
        made.append(group(each.group_id, members))
    return made


def branching():
    """A group with a tree, a second turn, a rewritten context, and answers that begin alike."""
    context = [1, 2, 3, 4, 5, 6]
    tree = [
        call([7, 8], context=context),
        call([5], context=[9], kept_tokens=8, place=Place(parent_call=0, turn=1)),
        call([6, 6], context=[9], kept_tokens=8, place=Place(parent_call=0, turn=1)),
    ]
    rewritten = [call([7], context=context), call([4], context=[3], kept_tokens=2)]
    return [group("g", [member(tree), member(rewritten), member([call([7, 8, 9], context=context)])])]


def logp_and_gradient(batch, share: bool):
    model = tiny_model()
    part = Token(share=share)
    logp_NT = part(model, batch).logp_NT
    (logp_NT * torch.arange(1.0, logp_NT.numel() + 1).view_as(logp_NT)).sum().backward()
    return logp_NT.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("groups", [same_context(1), same_context(2, groups=1), branching(), random_groups(3)])
def test_reading_a_common_context_once_changes_neither_log_probs_nor_gradient(groups, monkeypatch):
    monkeypatch.setattr(sharing, "WORTH", math.inf)
    batch = collate(groups, 3, 6, dtype=torch.float64)
    (one, one_gradient), (other, other_gradient) = (logp_and_gradient(batch, share) for share in (True, False))
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    # The model's norms are float32 inside: what is summed before them is rounded.
    assert float((one_gradient - other_gradient).norm() / other_gradient.norm()) < 1e-6


def test_a_group_is_packed_behind_its_context():
    members = [member([call(tokens, context=[1, 2, 3])]) for tokens in ([5, 6], [7], [5, 8, 9])]
    layout = shared(collate([group("g", members)], 0, 6))
    assert layout.input_BL.tolist() == [[1, 2, 3, 5, 5, 8]]
    assert layout.position_BL.tolist() == [[0, 1, 2, 3, 3, 4]]
    assert layout.place_NT.tolist()[0][:2] == [2, 3] and layout.place_NT.tolist()[2] == [2, 4, 5]
    assert layout.mask_B1LL[0, 0].long().tolist()[5] == [1, 1, 1, 0, 1, 1]


def test_the_last_token_of_a_sequence_is_not_read():
    batch = collate([group("g", [member([call([5, 6], context=[1, 2])])])], 0, 6)
    assert padded(batch).input_BL.tolist() == [[1, 2, 5]]


def test_sharing_pays_for_long_contexts_and_not_for_long_answers():
    def made(context, answer):
        members = [member([call([1000 + i] * answer, context=list(range(context)))]) for i in range(8)]
        return collate([group("g", members)], 0, answer)

    assert pays(made(200, 20), hidden=128)
    assert not pays(made(20, 1000), hidden=128)


def test_a_model_with_a_sliding_window_is_left_alone():
    model = tiny_model()
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not sharing.supported(model)
    assert sharing.supported(tiny_model())


def test_chunks_of_logits_and_entropy_agree_with_the_whole():
    batch = collate(random_groups(1), 3, 6, dtype=torch.float64)
    model = tiny_model()
    whole, cut = Token()(model, batch, {"entropy"}), Token(chunk=30)(model, batch, {"entropy"})
    torch.testing.assert_close(whole.logp_NT, cut.logp_NT)
    torch.testing.assert_close(whole.signals["entropy"], cut.signals["entropy"])


def test_logits_and_hidden_states_come_along_when_wanted():
    batch = collate(random_groups(1), 3, 6, dtype=torch.float64)
    found = Token()(tiny_model(), batch, {"logits", "hidden"})
    tau_NT1 = batch.temperature_NT[..., None].double()
    logp_NTV = (found.signals["logits"].double() / tau_NT1).log_softmax(-1)
    picked = logp_NTV.gather(2, batch.token_NT[..., None]).squeeze(2)
    torch.testing.assert_close(picked[batch.valid_NT], found.logp_NT[batch.valid_NT], atol=1e-5, rtol=0)
    assert found.signals["hidden"].shape == (*batch.token_NT.shape, 16)


def test_a_batch_without_tokens_has_no_log_probs():
    batch = collate([group("g", [member([call([])]), member([])])], 0, 6)
    assert Token()(tiny_model(dtype=torch.float32), batch).logp_NT.shape == (2, 0)


def test_tempered_log_probs_are_of_a_colder_and_a_hotter_policy():
    model = tiny_model()
    batch = collate([group("g", [member([call([5, 6], temperature=0.7)])])], 0, 6, dtype=torch.float64)
    with torch.no_grad():
        found = Token(cold=0.5, hot=2.0)(model, batch, {"tempered"}).signals["tempered"]
        logits = model(torch.tensor([[1, 2, 5, 6]])).logits[0, 1:-1]
    for place, temper in enumerate((0.5, 2.0)):
        wanted = (logits / (0.7 * temper)).log_softmax(-1)[range(2), [5, 6]]
        torch.testing.assert_close(found[0, :, place], wanted, atol=1e-6, rtol=1e-6)
