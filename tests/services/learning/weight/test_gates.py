"""Trust regions, gates and token weights against the worked numbers of their methods."""

from __future__ import annotations

import pytest
import torch

from services.learning.covariance import covariance
from services.learning.lottery import tickets
from services.learning.weight.ace import Ace
from services.learning.weight.clip_cov import ClipCov
from services.learning.weight.d3s_tokens import D3sTokens
from services.learning.weight.dppo import Dppo, bernoulli_kl
from services.learning.weight.etr import Etr
from services.learning.weight.gmpo import Gmpo
from services.learning.weight.gspo import Gspo
from services.learning.weight.gtpo_conflict import GtpoConflict
from services.learning.weight.hapo import Hapo
from services.learning.weight.ppo_clip import PpoClip
from services.learning.weight.ratio import Ratio
from services.learning.weight.sapo import Sapo
from tests.services.learning.numbers import ADVANTAGE, BEHAVIOUR, LOGP, PROX, batch_of, near, pull, ragged, weigh

A2 = batch_of(BEHAVIOUR, PROX)


def logs(ratios):
    return torch.log(torch.tensor([ratios], dtype=torch.float64))


def test_gspo_sequence_ratios_and_loss():
    weight, mask = weigh(Gspo(), A2, LOGP, ADVANTAGE)
    near(weight[:, 0], [1.105171, 0.935507])
    assert not mask.any()  # A > 0 above 1.0004, A < 0 below 0.9997
    advantage = torch.tensor(ADVANTAGE, dtype=torch.float64)
    clipped = -advantage * torch.where(advantage > 0, weight[:, 0].clamp(max=1.0004), weight[:, 0].clamp(min=0.9997))
    near(clipped, [-1.0004, 0.49985])
    assert float(clipped.mean()) == pytest.approx(-0.250275)
    near(pull(Gspo(), A2, LOGP, [-1.0, 0.5])[:, 0], [1.105171, 0.935507])


def test_gspo_is_flat_beyond_its_limit():
    batch = batch_of([[0.0], [0.0]])
    near(pull(Gspo(), batch, [[10.5], [9.5]], [-1.0, -1.0]) > 0, [[0.0], [1.0]])


def test_gmpo_geometric_mean_of_clipped_ratios():
    batch = batch_of([[0.0, 0.0]])
    near(pull(Gmpo(), batch, [[0.6, -0.1]], [1.0]), [[0.0, 1.161834]])
    near(pull(Gmpo(), batch, [[0.6, -0.1]], [-1.0]), [[1.284025, 1.284025]])


def test_the_plain_ratio_is_flat_beyond_the_clamp():
    near(pull(Ratio(), batch_of([[0.0] * 3]), [[0.1, -0.7, 25.0]], [1.0]), [[1.105171, 0.496585, 0]])


def test_dppo_masks_in_probability():
    p, q = logs([0.9, 0.5, 0.2, 0.05]), logs([0.6, 0.45, 0.5, 0.3])
    batch, advantage = batch_of(q.tolist()), torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    for divergence in ("tv", "kl"):
        _, mask = weigh(Dppo(divergence=divergence), batch, p, advantage)
        near(mask, [[0, 1, 0, 0]])
    near(bernoulli_kl(q.exp(), p.exp()), [[0.311239, 0.005008, 0.223144, 0.323761]])


def test_dppo_keeps_a_far_token_that_moves_back():
    p, q = logs([0.9, 0.2]), logs([0.5, 0.5])
    back = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    for divergence, wanted in (("tv", [1, 1]), ("kl", [1, 1]), ("both", [0, 0])):
        _, mask = weigh(Dppo(divergence=divergence), batch_of(q.tolist()), p, back)
        near(mask, [wanted])


def test_prime_rl_token_losses():
    p, q = logs([0.9, 0.5, 0.2, 0.05]), logs([0.6, 0.45, 0.5, 0.3])
    batch, advantage = batch_of(q.tolist()), torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    value = -advantage * pull(Dppo(), batch, p, advantage) + 1e-3 * (p - q) ** 2
    near(value, [[0.000164, -1.1111, 0.00084, 0.00321]], 5e-6)
    assert float(value.mean()) == pytest.approx(-0.276721, abs=1e-5)


@pytest.mark.parametrize(
    ("advantage", "ratio", "wanted"),
    [(1, 0.5, 0.470007), (1, 0.9, 0.897754), (1, 1, 1), (1, 1.5, 1.410022), (1, 3, 1.259923)]
    + [(-1, 0.5, 0.467070), (-1, 0.9, 0.897524), (-1, 1, 1), (-1, 1.5, 1.401210), (-1, 3, 1.166336)],
)
def test_sapo_gradient_weight(advantage, ratio, wanted):
    near(pull(Sapo(), batch_of([[0.0]]), logs([float(ratio)]), [float(advantage)]), [[wanted]])


@pytest.mark.parametrize(
    ("advantage", "p", "eps"),
    [(1.732, 0.25, 0.340338), (-0.577, 0.25, 0.271759), (1.0, 0.5, 0.3125), (0.378, 0.875, 0.242842)],
)
def test_etr_widths_of_the_guess(advantage, p, eps):
    found = Etr().width(torch.tensor(advantage).double(), torch.tensor(p).double())
    assert float(found) == pytest.approx(eps, abs=1e-5)


def test_etr_reads_the_accuracy_of_the_group():
    batch = batch_of([[0.0]] * 4, reward=[1.0, 1.0, 0.0, 0.0])  # p = .5: width .3125 at |A| = 1
    advantage = [1.0] * 4
    logp = logs([1.31, 1.32, 1.0, 0.5]).T
    near(pull(Etr(), batch, logp, advantage)[:, 0], [1.31, 0.0, 1.0, 0.5])


def test_ace_scales_overconfident_errors():
    batch = batch_of([[0.0]] * 4, ref_logp=[[0.0]] * 4)
    advantage = torch.tensor([[-1.0], [-1.0], [-1.0], [1.0]], dtype=torch.float64)
    found = pull(Ace(), batch, [[-2.0], [0.0], [1.0], [3.0]], advantage) * advantage
    near(found[:, 0], [-1.126928, -1.693147, -2.313262, 1])


def test_ngrpo_clips_less_where_the_advantage_is_negative():
    part = PpoClip(low=0.16, high=0.24, dual=None)
    near(pull(part, batch_of([[0.0] * 2]), logs([1.23, 1.25]), [1.0]), [[1.23, 0.0]])
    near(pull(part, batch_of([[0.0] * 2]), logs([0.85, 0.83]), [-1.0]), [[0.85, 0.0]])


COV = {"logp": [[-0.1, -0.2, -2.0, -3.0]], "advantage": torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)}


def test_the_covariance_of_log_probs_and_advantages():
    batch = batch_of([[0.0] * 4]).with_signals(advantage=COV["advantage"])
    near(covariance(batch, ragged(COV["logp"]))[0], [[1.225, -1.125, -0.675, 1.675]])


def test_clip_cov_draws_among_the_tokens_of_high_covariance():
    batch = batch_of(COV["logp"])
    _, one = weigh(ClipCov(), batch, **COV)
    drawn = (one == 0).nonzero()[:, 1].tolist()
    assert len(drawn) == 1 and drawn[0] in (0, 3)
    _, both = weigh(ClipCov(share=0.5), batch, **COV)
    near(both, [[0, 1, 1, 0]])
    _, none = weigh(ClipCov(cov_low=2.0), batch, **COV)
    near(none, [[1, 1, 1, 1]])


def test_tickets_are_uniform_and_depend_on_the_token_alone():
    batch = batch_of([[0.0] * 50] * 40)
    found = tickets(batch)
    assert found.min() >= 0 and found.max() < 1 and abs(float(found.mean()) - 0.5) < 0.02
    assert len(found.unique()) == 2000
    torch.testing.assert_close(tickets(batch.rows([7, 3])), found[[3, 7]])


ENTROPY = [[0.01, 0.05, 0.2, 0.8, 1.6]]


def hapo(part, logp, advantage=1.0):
    batch = batch_of([[0.0] * 5], entropy=ENTROPY)
    return pull(part, batch, logp, [advantage]), part.over_step(batch)["hapo_h"]


def test_hapo_spread_of_the_log_entropy_intended_and_released():
    near(hapo(Hapo(), [[0.0] * 5])[1], [[-1, -0.632718, -0.316359, 0, 1]])
    near(hapo(Hapo(sign_error=True), [[0.0] * 5])[1], [[1, 0.632718, 0.316359, 0, 1]])


def test_hapo_clip_bounds_intended_and_released():
    low, high = Hapo().bounds(hapo(Hapo(), [[0.0] * 5])[1])
    near(low, [[0.4, 0.326544, 0.263272, 0.2, 0.2]])
    near(high, [[0.2, 0.2, 0.2, 0.2, 0.4]])
    low, high = Hapo().bounds(hapo(Hapo(sign_error=True), [[0.0] * 5])[1])
    near(low, [[0.2] * 5])
    near(high, [[0.4, 0.326544, 0.263272, 0.2, 0.4]])


def test_hapo_redistributed_advantage_intended_and_released():
    ratio = torch.tensor([[1, 0.7, 1.05, 1.3, 1]], dtype=torch.float64)
    for part, wanted in (
        (Hapo(), [0, 1, 0.683641, 1, 1]),
        (Hapo(sign_error=True), [1, 1.632718, 1, 1, 1]),
    ):
        batch = batch_of([[0.0] * 5], entropy=ENTROPY)
        weight, _ = weigh(part, batch, ratio.log(), [1.0])
        near(weight / ratio, [wanted])


def test_hapo_equal_entropies_are_plain_ppo():
    batch = batch_of([[0.0] * 3], entropy=[[0.5] * 3])
    ratio = torch.tensor([[1.1, 1.3, 0.5]], dtype=torch.float64)
    near(pull(Hapo(), batch, ratio.log(), [1.0]), [[1.1, 0.0, 0.5]])


TOKENS = [[5, 6, 7, 8, 9], [5, 6, 1, 2, 9], [5, 3, 4, 9], [5, 6, 7, 9]]


def gtpo(part):
    batch = batch_of([[0.0] * len(row) for row in TOKENS], tokens=TOKENS, reward=[1.0, 0.0, 0.0, 1.0])
    return pull(part, batch, [[0.0] * len(row) for row in TOKENS], [1.0] * 4)


def test_gtpo_conflict_tokens_and_their_counts():
    near(gtpo(GtpoConflict(divide=False)), [[2, 2, 1, 1, 2], [0, 0, 1, 1, 0], [0, 1, 1, 0], [2, 2, 1, 2]])
    count = gtpo(GtpoConflict(divide=False)).sum(1) / gtpo(GtpoConflict()).sum(1)
    near(count, [3, 3, 2, 3])


def test_gtpo_loss_value():
    advantage = torch.tensor([0.47, 0, -0.52, 0.45], dtype=torch.float64)
    length = torch.tensor([len(row) for row in TOKENS])
    assert float(-(gtpo(GtpoConflict()).sum(1) / length * advantage).sum()) == pytest.approx(-0.383167, abs=1e-6)


def test_gtpo_a_token_in_both_runs_counts_twice_and_equal_answers_are_all_conflict():
    batch = batch_of([[0.0], [0.0]], tokens=[[4], [4]], reward=[1.0, 0.0])
    near(pull(GtpoConflict(), batch, [[0.0], [0.0]], [1.0, -1.0]), [[4.0], [0.0]])
    flat = batch_of([[0.0], [0.0]], tokens=[[4], [4]], reward=[1.0, 1.0])
    near(pull(GtpoConflict(), flat, [[0.0], [0.0]], [0.0, 0.0]), [[1.0], [1.0]])


def test_d3s_token_selection_and_its_schedule():
    batch = batch_of([[0.0] * 4], entropy=[[0.1, 2, 0.5, 1.2]])
    near(pull(D3sTokens(keep=0.5, final=0.5), batch, [[0.0] * 4], [1.0]), [[0, 1, 0, 1]])
    assert D3sTokens(keep=0.3, final=1.0, steps=500).share(250) == pytest.approx(0.65)
    assert D3sTokens(keep=0.3, final=1.0, steps=500).share(9999) == 1.0
