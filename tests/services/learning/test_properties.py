"""What holds for every weight and regularizer part, found by walking the folders: there is no list to keep."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline import partspec
from services.learning.batch import Batch
from services.learning.denominator.token_mean import TokenMean
from services.learning.estimator import Estimator
from services.learning.likelihood import Forward
from tests.services.learning.rollouts import with_fields
from tests.services.learning.steps import begun, gradient, loaded, step

PARTS = [(room, name) for room in ("learning.weight", "learning.regularizer") for name in partspec.names(room)]
every_part = pytest.mark.parametrize(("room", "name"), PARTS)
few = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 10_000)
spreads = st.sampled_from([0.05, 0.5, 3.0])
GAPS = (25.0, -25.0, math.inf, -math.inf, math.nan)


def estimator(room: str, name: str) -> Estimator:
    part = loaded(room, name)
    if room == "learning.weight":
        return Estimator((part,), TokenMean())
    return Estimator((), TokenMean(), ((name, part),))


def route(one: Estimator, batch: Batch, advantage: Tensor, logp_NT: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, d loss / d logp) of a batch that the whole step has been derived for."""
    finite_NT = logp_NT.nan_to_num(0.0, 0.0, 0.0)
    forward = Forward(logp_NT, {"entropy": finite_NT**2 / 2, "value": finite_NT / 2})
    total = one.loss(batch, forward, advantage).total
    return total.detach(), gradient(total, logp_NT)


def whole(one: Estimator, batch: Batch, advantage: Tensor, logp_NT: Tensor) -> tuple[Tensor, Tensor]:
    return route(one, begun(one, batch, advantage, logp_NT), advantage, logp_NT)


def widened(batch: Batch, by: int, junk: float) -> Batch:
    """The same rollouts with `by` more columns of padding, which holds junk wherever it is of no consequence."""

    def pad(x: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(x, (0, by), value=value)

    zero = ("mask_NT", "sequence_NT", "position_NT", "token_NT", "kind_NT", "call_NT", "turn_NT", "version_NT")
    changed = {
        field.name: pad(getattr(batch, field.name), 0 if field.name in zero else junk)
        for field in dataclasses.fields(batch)
        if field.name.endswith("_NT")
    }
    signals = {
        name: pad(x.movedim(1, -1), junk).movedim(-1, 1) if x.dim() > 1 else x for name, x in batch.signals.items()
    }
    return with_fields(batch, **changed, signals=signals)


@every_part
@few
@given(seed=seeds, spread=spreads, by=st.integers(1, 4), junk=st.sampled_from([0.0, 7.0, -30.0]))
def test_padding_never_changes_the_loss(room, name, seed, spread, by, junk):
    batch, advantage_N, logp_NT = step(seed, spread)
    one = estimator(room, name)
    value, found = whole(one, batch, advantage_N, logp_NT)
    wide_NT = torch.nn.functional.pad(logp_NT.detach(), (0, by), value=junk).requires_grad_()
    other, wide = whole(one, widened(batch, by, junk), advantage_N, wide_NT)
    torch.testing.assert_close(other, value)
    torch.testing.assert_close(wide[:, : found.shape[1]], found)
    assert (wide[:, found.shape[1] :] == 0).all()


@every_part
@few
@given(seed=seeds, spread=spreads)
def test_tokens_that_are_not_trained_on_have_no_gradient(room, name, seed, spread):
    batch, advantage_N, logp_NT = step(seed, spread)
    tools_NT = torch.rand(batch.mask_NT.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    batch = with_fields(batch, mask_NT=batch.mask_NT & ~tools_NT).counted()
    _, found = whole(estimator(room, name), batch, advantage_N, logp_NT)
    assert found.isfinite().all() and (found[~batch.mask_NT] == 0).all()


@every_part
@few
@given(seed=seeds, data=st.data())
def test_impossible_tokens_leave_everything_finite(room, name, seed, data):
    """Log-ratios of 25 nats, log-probs of minus infinity under any policy."""
    batch, advantage_N, logp_NT = step(seed)
    values_NT = logp_NT.detach().clone()
    for row in range(len(batch)):
        where = data.draw(st.sampled_from(["policy", "behaviour", "prox_logp", "ref_logp", "none"]))
        gap = data.draw(st.sampled_from(GAPS))
        if where == "policy":
            values_NT[row, 0] = batch.prox_NT[row, 0] + gap
        elif where == "behaviour":
            batch.behaviour_NT[row, 0] = -math.inf
        elif where != "none":
            batch.signals[where][row, 0] = -math.inf
    value, found = whole(estimator(room, name), batch, advantage_N, values_NT.requires_grad_())
    assert value.isfinite() and found.isfinite().all()


@every_part
@few
@given(
    seed=seeds,
    size=st.sampled_from([1, 3]),
    reward=st.sampled_from([0.0, 1.0, None]),
    flat=st.sampled_from([0.0, 1.0, -1.0, None]),
    empty=st.booleans(),
)
def test_odd_groups_are_defined_and_finite(room, name, seed, size, reward, flat, empty):
    """Groups of one, all right, all wrong, equal advantages, rollouts without a trained token."""
    batch, advantage_N, logp_NT = step(seed, groups=2, size=size)
    if reward is not None:
        equal_N = torch.full_like(batch.reward_N, reward)
        batch = with_fields(batch, reward_N=equal_N, accuracy_N=equal_N)
    if flat is not None:
        advantage_N = torch.full_like(advantage_N, flat)
    if empty:
        batch.mask_NT[0] = False
        batch = with_fields(batch, length_N=batch.length_N.index_fill(0, torch.tensor([0]), 0)).counted()
    value, found = whole(estimator(room, name), batch, advantage_N, logp_NT)
    assert value.isfinite() and found.isfinite().all()
    assert not empty or (found[0] == 0).all()


@every_part
def test_a_step_without_a_trained_token_is_zero(room, name):
    batch, advantage_N, logp_NT = step(1)
    batch = with_fields(batch, mask_NT=torch.zeros_like(batch.mask_NT)).counted()
    value, found = whole(estimator(room, name), batch, advantage_N, logp_NT)
    assert value == 0 and (found == 0).all()


@every_part
@few
@given(seed=seeds, spread=spreads, token_level=st.booleans())
def test_micro_batches_of_whole_groups_sum_to_the_gradient_of_the_step(room, name, seed, spread, token_level):
    """What takes the whole step to know is made before the cut, and a part that reads log-probs for it says `needs`."""
    batch, advantage, logp_NT = step(seed, spread, groups=5, size=3)
    if token_level:
        generator = torch.Generator().manual_seed(seed)
        advantage = torch.randn(logp_NT.shape, generator=generator, dtype=torch.float64)
    one = estimator(room, name)
    ready = begun(one, batch, advantage, logp_NT)
    value, found = route(one, ready, advantage, logp_NT)
    total, summed = 0.0, torch.zeros_like(found)
    for rows in ([0, 1, 2], [3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]):
        micro = ready.rows(rows)
        width = micro.token_NT.shape[1]
        piece_NT = logp_NT.detach()[rows, :width].clone().requires_grad_()
        piece, pulled = route(one, micro, micro.signals["advantage"], piece_NT)
        total = total + piece
        summed[rows, :width] += pulled
    torch.testing.assert_close(total, value)
    torch.testing.assert_close(summed, found)


@every_part
def test_a_part_that_reads_the_policy_before_the_cut_says_so(room, name):
    part = loaded(room, name)
    if not hasattr(part, "over_step"):
        return
    batch, advantage_N, _ = step(3)
    told = {"advantage", "prox_logp"} | partspec.read(room, name).needs
    known = {made: x for made, x in batch.signals.items() if made in told or made.partition("_")[0] in told}
    found = part.over_step(with_fields(batch, signals=known | {"advantage": advantage_N}))
    assert found and all(len(x) == len(batch) and x.shape[1:] in ((), batch.token_NT.shape[1:]) for x in found.values())
