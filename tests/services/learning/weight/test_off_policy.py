"""Off-policy corrections against the worked numbers of their methods."""

from __future__ import annotations

import pytest
import torch

from services.learning.proximal import proximal
from services.learning.weight.cispo import Cispo
from services.learning.weight.m2_mask import M2Mask
from services.learning.weight.m2po import M2po, threshold
from services.learning.weight.masked_is import MaskedIs
from services.learning.weight.opsm import Opsm
from services.learning.weight.ppo_clip import PpoClip
from services.learning.weight.rec import Rec
from services.learning.weight.reject import Reject
from services.learning.weight.tis import Tis
from services.learning.weight.tis_normalized import TisNormalized
from services.learning.weight.topr import Topr
from services.learning.weight.vespo import Vespo
from tests.services.learning.numbers import ADVANTAGE, BEHAVIOUR, LOGP, PROX, batch_of, near, pull, ragged, weigh

A2 = batch_of(BEHAVIOUR, PROX)


def decoupled(behaviour_weight) -> float:
    """The value of the decoupled loss over 7 tokens, from the clip part and a behaviour weight [N, T]."""
    advantage_NT = torch.tensor(ADVANTAGE, dtype=torch.float64)[:, None].expand(2, 4)
    ratio_NT, _ = weigh(PpoClip(dual=None), A2, LOGP, ADVANTAGE)
    clipped_NT = torch.where(advantage_NT > 0, ratio_NT.clamp(max=1.2), ratio_NT.clamp(min=0.8))
    return float((-advantage_NT * clipped_NT * behaviour_weight)[A2.mask_NT].sum() / 7)


def test_decoupled_ppo_mask_at_five_mask_at_two_and_truncation_at_two():
    for part, wanted in (
        (MaskedIs(low=0.0, high=5.0), -0.616630),
        (MaskedIs(low=0.0, high=2.0), -0.328951),
        (Tis(cap=2.0), -0.587476),
    ):
        assert decoupled(pull(part, A2, LOGP, ADVANTAGE)) == pytest.approx(wanted, abs=1e-5)


def test_the_log_linear_and_the_linear_proximal_policy():
    batch = batch_of([[-1, -0.5, -2, -0.7]], version=7)
    batch.version_NT[:] = torch.tensor([4, 6, 6, 6])
    logp_NT = ragged([[-0.6, -0.6, -1.3, -0.5]])
    near(proximal("loglinear", batch, logp_NT), [[-0.733333, -0.5, -2, -0.7]])
    near(proximal("linear", batch, logp_NT), [[-0.716414, -0.5, -2, -0.7]])
    assert proximal("recompute", batch, logp_NT) is logp_NT
    batch.version_NT[:] = 7
    near(proximal("loglinear", batch, logp_NT), [[-1, -0.5, -2, -0.7]])


def test_tis_batch_normalised_token_weights():
    near(
        pull(TisNormalized(cap=2.0), A2, LOGP, ADVANTAGE),
        [[1.035757, 0.848006, 1.874384, 0.937192], [0.848006, 1.144689, 0.311964]],
    )


def test_tis_batch_normalised_sequence_weights_are_divided_by_their_mean():
    found = pull(TisNormalized(cap=2.0, level="sequence"), A2, LOGP, ADVANTAGE)[:, 0]
    near(found, [2 / 1.183940, 0.367879 / 1.183940])


def test_icepop_drops_what_lies_outside_its_bounds():
    near(
        pull(MaskedIs(low=0.5, high=2.0), A2, LOGP, ADVANTAGE),
        [[1.105171, 0.904837, 0, 1], [0.904837, 1.221403, 0]],
    )


def test_masked_is_of_the_whole_answer_and_geometric_masks():
    sequence = MaskedIs(low=0.5, high=5.0, bound="sequence", weight="sequence")
    near(pull(sequence, A2, LOGP, ADVANTAGE), [[2.225541] * 4, [0.0] * 3])
    geometric = MaskedIs(low=0.9, high=1.3, bound="geometric", weight="token")
    near(pull(geometric, A2, LOGP, ADVANTAGE), [[1.105171, 0.904837, 2.225541, 1], [0.0] * 3])
    geometric = MaskedIs(low=0.7, high=1.2, bound="geometric", weight="geometric")
    near(pull(geometric, A2, LOGP, ADVANTAGE), [[0.0] * 4, [0.716531] * 3])


def test_geometric_and_k3_rejection_worked_numbers():
    d_NT = ragged(PROX) - ragged(BEHAVIOUR)
    near(Reject(statistic="k1").measure(A2, d_NT)[:, 0], [-0.2, 0.333333])
    near(Reject(statistic="k3").measure(A2, d_NT)[:, 0], [0.108887, 0.153037])
    for inverse in (False, True):
        part = Reject(statistic="k1", low=0.9, high=1.2, inverse=inverse)
        assert not pull(part, A2, LOGP, ADVANTAGE).any()
    near(pull(Reject(statistic="k3", high=0.12), A2, LOGP, ADVANTAGE), [[1.0] * 4, [0.0] * 3])


def test_rejection_bounds_hold_for_the_ratio_and_mirrored_for_its_inverse():
    keep = [bool(pull(Reject(low=0.8, high=1.25, inverse=i), A2, LOGP, ADVANTAGE)[0, 0]) for i in (False, True)]
    assert keep == [True, True]
    keep = [bool(pull(Reject(low=0.9, high=1.25, inverse=i), A2, LOGP, ADVANTAGE)[0, 0]) for i in (False, True)]
    assert keep == [True, False]  # rho 1.2214 is inside, 1/rho 0.8187 is not


def test_rejection_levels_token_sum_and_maximum():
    token = Reject(statistic="k2", level="token", high=0.1)
    near(pull(token, A2, LOGP, ADVANTAGE), [[1, 1, 0, 1], [1, 1, 0]])
    near(pull(Reject(level="seq_sum", low=0.4, high=3.0), A2, LOGP, ADVANTAGE), [[1.0] * 4, [0.0] * 3])
    near(pull(Reject(statistic="k2", level="seq_max", high=0.5), A2, LOGP, ADVANTAGE), [[1.0] * 4, [0.0] * 3])


def test_opsm_drops_wrong_answers_that_the_policy_has_left():
    batch = batch_of([[0.0], [0.0], [0.0]])
    near(pull(Opsm(), batch, [[-0.3], [-0.7], [-0.9]], [-1.0, -1.0, 1.0]), [[1.0], [0.0], [1.0]])


def test_aipo_coefficients_and_the_form_without_a_gradient_beyond_the_cap():
    advantage_NT = torch.tensor(ADVANTAGE, dtype=torch.float64)[:, None]
    near(
        pull(Tis(cap=2.0, of="policy"), A2, LOGP, ADVANTAGE) * advantage_NT,
        [[1.491825, 0.904837, 2, 1.221403], [-0.409365, -0.552585, -0.166436]],
    )
    near(
        pull(MaskedIs(low=0.0, high=2.0, of="policy"), A2, LOGP, ADVANTAGE) * advantage_NT,
        [[1.491825, 0.904837, 0, 1.221403], [-0.409365, -0.552585, -0.166436]],
    )


def test_cispo_weights_and_loss():
    found = pull(Cispo(), batch_of(BEHAVIOUR), LOGP, ADVANTAGE)
    near(found, [[1.28, 0.904837, 1.28, 1.221403], [0.818731, 1.105171, 0.332871]])
    value = -(found * torch.tensor(ADVANTAGE).double()[:, None] * ragged(LOGP)).sum() / 7
    assert float(value) == pytest.approx(0.348601, abs=1e-5)


def test_cispo_unified_mask_closes_what_ppo_would_clip():
    near(pull(Cispo(mask=True), batch_of(BEHAVIOUR), LOGP, [1.0, 1.0])[:1], [[0, 0.904837, 0, 1.221403]])


def test_m2po_threshold_is_a_data_value_and_the_bounds_have_floors():
    logp = [[0.05, 0.1, 0.3, 0.9, -0.2]]
    batch = batch_of([[0.0] * 5])
    square = torch.tensor([0.0025, 0.01, 0.09, 0.81], dtype=torch.float64)
    assert float(square.mean()) == pytest.approx(0.228125)
    tau = float(threshold(square, 0.04))
    assert tau == pytest.approx(0.1)
    near(1 - torch.exp(-torch.tensor([tau])), [0.095163])
    near(torch.exp(torch.tensor([tau])) - 1, [0.105171])
    weight, mask = weigh(M2po(), batch, logp, [1.0])
    value = -torch.where(mask > 0, weight, torch.full_like(weight, 1.5))
    near(value, [[-1.051271, -1.105171, -1.349859, -1.5, -0.818731]])
    assert float(value.mean()) == pytest.approx(-1.165006, abs=1e-5)


def test_m2po_inside_its_budget_does_not_clip_and_a_first_square_over_it_clips_at_once():
    assert float(threshold(torch.tensor([0.01, 0.02]).double(), 0.04)) == float("inf")
    assert float(threshold(torch.zeros(0).double(), 0.04)) == float("inf")
    assert float(threshold(torch.tensor([0.3, 0.5]).double(), 0.04)) == 0.0
    part = M2po(budget=10.0)
    near(pull(part, batch_of([[0.0, 0.0]]), [[2.0, -2.0]], [1.0]), [[7.389056, 0.135335]])


def test_m2_mask_drops_the_largest_squares():
    batch = batch_of([[0.0] * 4], prox=[[0.05, 0.1, 0.3, 0.9]])
    near(pull(M2Mask(), batch, [[0.0] * 4], [1.0]), [[1, 1, 1, 0]])
    kept = torch.tensor([0.0025, 0.01, 0.09], dtype=torch.float64)
    assert float(kept.mean()) == pytest.approx(0.034167, abs=1e-6)
    assert float(M2Mask().most(torch.tensor([0.5, 0.7]))) == 0.5  # at least one stays


@pytest.mark.parametrize(
    ("advantage", "ratio", "phi"),
    [(1, 0.5, 1.120422), (1, 2 / 3, 1.208125), (1, 1, 1), (1, 1.5, 0.502043), (1, 3, 0.022309)]
    + [(-1, 0.5, 0.339785), (-1, 1, 1), (-1, 1.5, 1.241593), (-1, 3, 0.494522)],
)
def test_vespo_kernel(advantage, ratio, phi):
    logp = torch.log(torch.tensor([[float(ratio)]], dtype=torch.float64))
    near(pull(Vespo(), batch_of([[0.0]]), logp, [float(advantage)]), [[phi]])


def test_vespo_batch_and_loss():
    logp = ragged([[-1, -0.5, -2], [-0.2, -1, -0.4]])
    prox = logp - ragged([[0.1, -0.05, 0.2], [-0.3, 0.1, 0]])
    found = pull(Vespo(), batch_of(prox.tolist()), logp, [1.0, -1.0])
    near(found[:, 0], [0.703226, 0.788627])
    value = -(found * torch.tensor([[1.0], [-1.0]]).double() * logp).mean()
    assert float(value) == pytest.approx(0.199915, abs=1e-5)


def test_topr_pushes_wrong_answers_only_as_far_as_they_are_likely():
    logp = torch.log(torch.tensor([[0.3], [1.0], [2.5]], dtype=torch.float64))
    batch = batch_of([[0.0]] * 3, reward=[0.0, 0.0, 0.0])
    for part in (Topr(), Topr(level="token"), Topr(positive="reward")):
        near(pull(part, batch, logp, [-1.0] * 3), [[0.3], [1.0], [1.0]])
    near(pull(Topr(), batch, logp, [1.0] * 3), [[1.0]] * 3)
    near(pull(Topr(positive="reward"), batch, logp, [1.0] * 3), [[0.3], [1.0], [1.0]])


def test_topr_takes_the_whole_answer_or_each_token():
    batch = batch_of([[0.0, 0.0]])
    near(pull(Topr(), batch, [[-1.0, 0.5]], [-1.0]), [[0.606531, 0.606531]])
    near(pull(Topr(level="token"), batch, [[-1.0, 0.5]], [-1.0]), [[0.367879, 1.0]])


@pytest.mark.parametrize(
    ("keep", "advantage", "wanted"),
    [
        ("one_side", 1, [1, 1, 1, 1, 0, 0]),
        ("one_side", -1, [0, 0, 1, 1, 1, 1]),
        ("two_side", 1, [0, 0, 1, 1, 0, 0]),
        ("two_side", -1, [0, 0, 1, 1, 0, 0]),
        ("ring", 1, [1, 0, 1, 1, 0, 0]),
        ("ring", -1, [0, 0, 1, 1, 0, 1]),
        ("none", 1, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_rec_indicators(keep, advantage, wanted):
    logp = torch.log(torch.tensor([[0.3, 0.7, 0.9, 1.1, 1.5, 4]], dtype=torch.float64))
    near(pull(Rec(keep=keep), batch_of([[0.0] * 6]), logp, [float(advantage)]), [wanted])


def test_rec_weights_ratio_sequence_and_red_weight():
    batch, logp = batch_of([[0.0, 0.0]]), [[0.1, -0.3]]
    near(pull(Rec(keep="none", weight="ratio"), batch, logp, [1.0]), [[1.105171, 0.740818]])
    near(pull(Rec(keep="sequence_one_side", weight="sequence"), batch, logp, [1.0]), [[0.904837, 0.904837]])
    batch = batch_of([[0.0], [0.0]])
    advantage = torch.tensor([[0.75], [-0.25]], dtype=torch.float64)
    near(
        pull(Rec(keep="none", weight="advantage"), batch, [[0.0], [0.0]], advantage) * advantage, [[1.58775], [-0.1947]]
    )
