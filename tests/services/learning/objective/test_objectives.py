"""Objectives: each worked number, and each paper's loss written out one rollout at a time against the part's gradient.

The value forms below loop over groups and pairs as the papers write them, and import nothing of the parts.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from pipeline import parts
from pipeline.errors import UserError
from services.learning.advantage.own_group import OwnGroup
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.denominator.token_mean import TokenMean
from services.learning.estimator import Estimator
from services.learning.likelihood import Forward
from services.learning.objective.copg import Copg
from services.learning.objective.disco import Disco
from services.learning.objective.dno import Dno
from services.learning.objective.dpo import Dpo
from services.learning.objective.drpo import Drpo
from services.learning.objective.hpt import Hpt
from services.learning.objective.reg_grpo import RegGrpo
from services.learning.objective.sdpo import Sdpo
from services.learning.objective.srpo import Srpo
from services.learning.objective.trpa import Trpa
from services.learning.pairs import preference
from services.learning.weight.ppo_clip import PpoClip
from sluice.v1 import rollout_pb2
from tests.services.learning.rollouts import call, group, member, rewarded
from tests.services.learning.steps import begun, forward, gradient, step

INJECTED = rollout_pb2.TOKEN_KIND_INJECTED


def f64(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found, *wanted, tolerance=1e-5):
    torch.testing.assert_close(torch.as_tensor(found).double().flatten(), f64(*wanted), atol=tolerance, rtol=0)


def routes(objective, value, seed: int, spread: float = 0.3, weights=()):
    """The part's gradient and the value form's, on a random ragged step."""
    batch, advantage_N, logp_NT = step(seed, spread)
    estimator = Estimator(weights, TokenMean() if weights else None, objective=objective)
    ready = begun(estimator, batch, advantage_N, logp_NT)
    found = estimator.loss(ready, forward(batch, logp_NT), advantage_N).total
    wanted = value(batch, logp_NT, forward(batch, logp_NT), advantage_N)
    mine, papers = gradient(found, logp_NT), gradient(wanted, logp_NT)
    assert papers.abs().max() > 1e-4
    torch.testing.assert_close(mine, papers, atol=1e-8, rtol=1e-8)


def groups_of(batch: Batch) -> list[list[int]]:
    rows = batch.group_N.tolist()
    return [[i for i, g in enumerate(rows) if g == group] for group in range(batch.groups)]


def mean_score(batch, logp_NT, i):
    return logp_NT[i][batch.mask_NT[i]].mean()


def total(batch, logp_NT, below_NT, i):
    return (logp_NT - below_NT)[i][batch.mask_NT[i]].sum()


def hinge(batch, logp_NT, beta, delta):
    kl = (batch.prox_NT - logp_NT)[batch.mask_NT].mean()
    return (beta * (kl - delta)).clamp(min=0).detach() * kl


# -- DisCO and DRPO


@pytest.mark.parametrize(("tau", "wanted"), [(None, 0.25), (1.0, 0.219070), (10.0, 0.246875)])
def test_disco_gain_of_two_right_and_two_wrong(tau, wanted):
    close(Disco(tau=tau).gain(rewarded([1, 1, 0, 0]), f64(-0.3, -0.5, -0.4, -0.9)), wanted)


@pytest.mark.parametrize(("tau", "wanted"), [(1.0, (0.622459, 0.377541)), (10.0, (0.512497, 0.487503))])
def test_disco_pushes_the_likelier_wrong_rollout_harder(tau, wanted):
    score_N = f64(-0.3, -0.5, -0.4, -0.9).requires_grad_()
    Disco(tau=tau).gain(rewarded([1, 1, 0, 0]), score_N).sum().backward()
    close(score_N.grad, 0.5, 0.5, *(-each for each in wanted))


def test_disco_prices_kl_above_delta():
    batch = rewarded([1, 0])
    batch = batch.with_signals(step_logp=batch.prox_NT - 2e-4)
    logp_NT = (batch.prox_NT - 2e-4).requires_grad_()
    part = Disco()
    priced = batch.with_signals(**part.over_step(batch))
    close(priced.signals["kl_price"], 0.1, 0.1)
    from services.learning.discriminative import penalty

    close(penalty(priced, Forward(logp_NT)), 2e-5, tolerance=1e-12)
    gained = batch.with_signals(step_logp=batch.prox_NT + 1.0)
    close(part.over_step(gained)["kl_price"], 0.0, 0.0)


def test_disco_scores_by_log_prob_and_by_ratio():
    from services.learning.discriminative import scores

    batch = collate([group("g", [member([call([3, 4], [-1.0, -1.0])], True)])], 0, 8, dtype=torch.float64)
    one = Forward(f64([-0.9, -1.3]))
    close(scores(batch, one, "ratio"), 0.922995)
    close(scores(batch, one, "logp"), -1.1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("score", "tau"), [("logp", 10.0), ("ratio", 1.0), ("logp", None)])
def test_disco_two_routes(seed, score, tau):
    def value(batch, logp_NT, _, __):
        ratio_NT = (logp_NT - batch.prox_NT).exp()
        gains = []
        for rows in groups_of(batch):
            said = {i: mean_score(batch, logp_NT if score == "logp" else ratio_NT, i) for i in rows}
            right = [said[i] for i in rows if batch.reward_N[i] == 1]
            wrong = [said[i] for i in rows if batch.reward_N[i] == 0]
            if right and wrong:
                bad = torch.stack(wrong)
                against = bad.mean() if tau is None else tau * (bad / tau).exp().mean().log()
                gains.append(torch.stack(right).mean() - against)
        return -sum(gains) / batch.groups + hinge(batch, logp_NT, 2.0, 0.01)

    routes(Disco(score=score, tau=tau, beta=2.0, delta=0.01), value, seed)


@pytest.mark.parametrize(("lam", "wanted"), [(0.1, (0.993307, 0.006693)), (1.0, (0.622459, 0.377541))])
def test_drpo_prefers_the_shorter_right_rollout(lam, wanted):
    weight_N = Drpo(lam=lam).preference(f64(0.25, 0.75))
    close(weight_N / weight_N.sum(), *wanted)


def test_drpo_gain():
    made = [member([call([3] * n)], right, index=i) for i, (n, right) in enumerate([(2, 1), (6, 1), (4, 0), (4, 0)])]
    batch = collate([group("g", made)], 0, 8, dtype=torch.float64)
    batch = dataclasses.replace(batch, reward_N=batch.accuracy_N)
    close(Drpo().gain(batch, f64(-0.3, -0.5, -0.4, -0.9)), 0.345537)


@pytest.mark.parametrize("seed", range(3))
def test_drpo_two_routes(seed):
    def value(batch, logp_NT, _, __):
        gains = []
        for rows in groups_of(batch):
            right = [i for i in rows if batch.reward_N[i] == 1]
            wrong = [mean_score(batch, logp_NT, i) for i in rows if batch.reward_N[i] == 0]
            if right and wrong:
                pull = [math.exp((1 - int(batch.length_N[i]) / 6) / 0.3) for i in right]
                good = sum(p / sum(pull) * mean_score(batch, logp_NT, i) for p, i in zip(pull, right, strict=True))
                gains.append(good - 10 * (torch.stack(wrong) / 10).exp().mean().log())
        return -sum(gains) / batch.groups + hinge(batch, logp_NT, 2.0, 0.01)

    routes(Drpo(lam=0.3, beta=2.0, delta=0.01), value, seed)


# -- pairs


def test_dno_pairs_need_a_margin_that_a_teachers_answer_has_to_double():
    kinds = [INJECTED]
    made = [member([call([3], token_kinds=kinds)], 1.0, rewards={"judge": 5.0})]
    made += [member([call([3])], rewards={"judge": s}, index=1 + i) for i, s in enumerate((6.0, 4.0, 3.0, 5.0, 2.0))]
    batch = collate([group("g", made)], 0, 8, dtype=torch.float64)
    names = ["gold", "s1", "s2", "s3", "s4", "s5"]
    found = {(names[i], names[j]) for i, j in zip(*(x.tolist() for x in Dno(score="judge").pairs(batch)), strict=True)}
    assert found == {
        ("gold", "s3"), ("gold", "s5"), ("s1", "gold"), ("s1", "s2"), ("s1", "s3"), ("s1", "s4"), ("s1", "s5"),
        ("s4", "s2"), ("s4", "s3"), ("s4", "s5"),
    }  # fmt: skip


def test_dno_loss_of_a_pair():
    close(preference(f64(0.1 * (0.4 + 0.2))), 0.663597)


def test_dpo_conservative_loss_of_a_pair():
    close(preference(f64(0.1 * (1.2 + 0.4)), smoothing=0.25), 0.656344)
    close(preference(f64(0.1 * (1.2 + 0.4))), 0.616344)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_two_routes(seed, smoothing):
    def value(batch, logp_NT, _, __):
        losses = []
        for rows in groups_of(batch):
            for i, j in itertools.permutations(rows, 2):
                if batch.reward_N[i] > batch.reward_N[j]:
                    ref_NT = batch.signals["ref_logp"]
                    h = 0.5 * (total(batch, logp_NT, ref_NT, i) - total(batch, logp_NT, ref_NT, j))
                    losses.append(-(1 - smoothing) * logsigmoid(h) - smoothing * logsigmoid(-h))
        return torch.stack(losses).mean()

    routes(Dpo(beta=0.5, smoothing=smoothing), value, seed)


@pytest.mark.parametrize("seed", range(3))
def test_dno_two_routes(seed):
    def value(batch, logp_NT, _, __):
        losses = []
        for rows in groups_of(batch):
            for i, j in itertools.permutations(rows, 2):
                if batch.reward_N[i] - batch.reward_N[j] >= 1:
                    gap = total(batch, logp_NT, batch.prox_NT, i) - total(batch, logp_NT, batch.prox_NT, j)
                    losses.append(-torch.log(1 / (1 + (-0.3 * gap).exp())))
        return torch.stack(losses).mean()

    routes(Dno(eta=0.3, floor=1.0), value, seed)


def test_trpa_compares_levels_and_falls_back_to_the_level_alone():
    part, score_N = Trpa(), f64(0.30, 0.10, -0.20, 0.05)
    batch = rewarded([1, 0, 0, 0])
    close(part.by_prompt(batch, score_N, torch.tensor([1, 2, 2, 3])), 0.671964)
    close(part.by_prompt(batch, score_N, torch.tensor([1, 1, 1, 1])), 0.666338)
    close(part.by_prompt(batch, score_N, torch.tensor([3, 3, 3, 3])), 0.728838)


def test_trpa_levels_come_from_the_verdicts():
    names = ("CORRECT", "WRONG", "PARTIAL", "TIMEOUT", "UNPARSABLE", "VIOLATION")
    outcomes = [getattr(rollout_pb2, f"VERDICT_OUTCOME_{name}") for name in names]
    made = [member([call([3])], outcome=outcome, index=i) for i, outcome in enumerate(outcomes)]
    cut = member([call([3])], outcome=rollout_pb2.VERDICT_OUTCOME_WRONG, index=9)
    cut.rollout.ending = rollout_pb2.ENDING_LENGTH
    batch = collate([group("g", [*made, cut])], 0, 8, dtype=torch.float64)
    assert Trpa().levels(batch).tolist() == [1, 2, 2, 3, 4, 4, 3]


@pytest.mark.parametrize("seed", range(3))
def test_trpa_two_routes(seed):
    def value(batch, logp_NT, _, __):
        ref_NT, prompts = batch.signals["ref_logp"], []
        for rows in groups_of(batch):
            s = {i: mean_score(batch, logp_NT, i) - mean_score(batch, ref_NT, i) for i in rows}
            right = [i for i in rows if batch.accuracy_N[i] == 1]
            wrong = [i for i in rows if batch.accuracy_N[i] == 0]
            losses = [-logsigmoid(0.25 * (s[i] - s[j])) for i in right for j in wrong]
            losses = losses or [-logsigmoid(s[i] if right else -s[i]) for i in rows]
            prompts.append(torch.stack(losses).mean())
        d = (batch.prox_NT - logp_NT)[batch.mask_NT]
        return torch.stack(prompts).mean() + 0.5 * (d.exp() - 1 - d).mean()

    routes(Trpa(trust=0.5), value, seed)


def test_copg_of_two_and_three_rollouts():
    two, gap_N = rewarded([1, 0.2]), f64(0.5, -0.3).requires_grad_()
    loss = Copg().by_rollout(two, gap_N).sum()
    close(-loss.detach(), 0.608)
    loss.backward()
    close(gap_N.grad, -0.72, 0.72)
    squared = Copg(form="squared")
    close(squared.by_rollout(two, gap_N.detach()).sum(), 0.5184)
    three, gap_N = rewarded([1, 0.2, 0.5]), f64(0.5, -0.3, 0.1).requires_grad_()
    loss = squared.by_rollout(three, gap_N).sum()
    close(loss.detach(), 0.3988)
    loss.backward()
    close(gap_N.grad, -0.118, 0.098, 0.02)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["contrast", "squared"])
def test_copg_two_routes(seed, form):
    def value(batch, logp_NT, _, __):
        ref_NT, losses = batch.signals["ref_logp"], []
        for rows in groups_of(batch):
            seen = {i: batch.reward_N[i] - 0.3 * total(batch, logp_NT, ref_NT, i) for i in rows}
            pairs = [(seen[i] - seen[j]) ** 2 for i, j in itertools.combinations(rows, 2)]
            losses.append(sum(pairs) / (len(rows) - 1) / (1 if form == "squared" else 2 * 0.3))
        return sum(losses) / batch.groups

    routes(Copg(beta=0.3, form=form), value, seed)


@pytest.mark.parametrize(("ddof", "wanted"), [(0, 0.102633), (1, 0.076975)])
def test_reg_grpo_regresses_the_normalised_reward(ddof, wanted):
    part, batch = RegGrpo(ddof=ddof, eps=1e-12), rewarded([1, 0, 0, 1])
    found_N = part.found(batch, f64(0.2, -0.1, 0, 0.3))
    close(((part.wanted(batch) - found_N) ** 2).mean(), wanted)
    if ddof == 0:
        close(found_N, 0.632456, -1.264911, -0.632456, 1.264911)
        close(part.wanted(batch), 1, -1, -1, 1)


def test_reg_grpo_is_finite_where_the_policy_has_not_moved():
    part, batch = RegGrpo(eps=1e-3), rewarded([1, 0, 0, 1])
    rho_N = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    ((part.wanted(batch) - part.found(batch, rho_N)) ** 2).sum().backward()
    assert rho_N.grad.isfinite().all() and (rho_N.grad[[0, 3]] < 0).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", ["std", "none"])
def test_reg_grpo_two_routes(seed, scale):
    def value(batch, logp_NT, _, __):
        losses = []
        for rows in groups_of(batch):
            rho = torch.stack([total(batch, logp_NT, batch.prox_NT, i) for i in rows])
            found = rho - rho.mean()
            if scale == "std":
                found = found / (rho.var(correction=0) + 1e-8).sqrt().add(1e-4)
            reward = batch.reward_N[rows]
            std = reward.std(correction=0)
            wanted = (reward - reward.mean()) / std if std > 0 else torch.zeros_like(reward)
            losses.append((wanted - found) ** 2)
        return torch.cat(losses).mean()

    routes(RegGrpo(scale=scale, eps=1e-4), value, seed)


# -- distillation and imitation

TEACHER, STUDENT = f64(0.7, 0.2, 0.1).log(), f64(0.4, 0.4, 0.2).log()


@pytest.mark.parametrize(("alpha", "wanted"), [(0.0, 0.183787), (1.0, 0.192042), (0.5, 0.046201)])
def test_sdpo_divergences_over_the_whole_vocabulary(alpha, wanted):
    for rest in ("bucket", "renormalise"):
        close(Sdpo(alpha=alpha, rest=rest).divergence(TEACHER, STUDENT), wanted)


def test_sdpo_divergence_over_the_likeliest_tokens():
    """With the first two tokens the bucket holds the third, so nothing is lost; renormalised, it is."""
    close(Sdpo().divergence(TEACHER[:2], STUDENT[:2]), 0.183787)
    close(Sdpo(rest="renormalise").divergence(TEACHER[:2], STUDENT[:2]), 0.163441)


def test_sdpo_on_the_sampled_token():
    batch = collate([group("g", [member([call([3])], True)])], 0, 8, dtype=torch.float64)
    batch = batch.with_signals(teacher_logp=TEACHER[:1][None], taught=f64(1))
    logp_NT = STUDENT[:1][None].clone().requires_grad_()
    found_NT = Sdpo(alpha=1.0, form="sampled", clip=None).per_token(batch, Forward(logp_NT))
    close(found_NT.detach(), 0.512771)
    close(gradient(found_NT.sum(), logp_NT), math.log(0.4 / 0.7))
    with pytest.raises(UserError, match="alpha is 0.0"):
        parts.load("learning.objective", "sdpo", form="sampled")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_sdpo_two_routes(seed, alpha):
    def value(batch, logp_NT, seen, _):
        summed = 0.0
        for i, t in batch.mask_NT.nonzero().tolist():
            p, q = batch.signals["teacher_top"][i, t].exp(), seen.signals["picked"][i, t].exp()
            p, q = torch.cat([p, 1 - p.sum()[None]]), torch.cat([q, 1 - q.sum()[None]])
            if alpha in (0.0, 1.0):
                kl = (p * (p / q).log()).sum() if alpha == 0 else (q * (q / p).log()).sum()
            else:
                m = (1 - alpha) * q + alpha * p
                kl = (1 - alpha) * (q * (q / m).log()).sum() + alpha * (p * (p / m).log()).sum()
            summed = summed + kl * (logp_NT - batch.prox_NT)[i, t].exp().clamp(max=2.0).detach()
        return summed / batch.mask_NT.sum()

    routes(Sdpo(alpha=alpha), value, seed)


def test_srpo_weighs_by_the_teachers_certainty_and_has_one_denominator():
    made = [member([call([3, 4, 5])], False), member([call([3, 4])], True, index=1)]
    batch = collate([group("g", made)], 0, 8, dtype=torch.float64)
    entropy_NT = torch.cat([f64([0.1, 1.2, 0.5]), torch.zeros(1, 3).double()])
    batch = batch.with_signals(taught=f64(1, 1), teacher_entropy=entropy_NT)
    part = Srpo()
    batch = batch.with_signals(**part.over_step(batch))
    weight_NT = part.weights(batch)
    close(weight_NT[0], 1.497610, 0.498511, 1.003878)
    assert part.routed(batch).tolist() == [[True] * 3, [False] * 3]
    loss = ((weight_NT[0] * f64(0.2, 0.4, 0.1)).sum() - 0.5 - 0.5) / batch.denominators.tokens
    close(loss, -0.080137)


@pytest.mark.parametrize("seed", range(3))
def test_srpo_two_routes(seed):
    def value(batch, logp_NT, seen, advantage_N):
        distilled, weights, plain = [], [], []
        for i, t in batch.mask_NT.nonzero().tolist():
            ratio = (logp_NT - batch.prox_NT)[i, t].exp()
            if batch.accuracy_N[i] == 1:
                a = advantage_N[i]
                plain.append(torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.28)))
                continue
            p, q = batch.signals["teacher_top"][i, t].exp(), seen.signals["picked"][i, t].exp()
            p, q = torch.cat([p, 1 - p.sum()[None]]), torch.cat([q, 1 - q.sum()[None]])
            distilled.append((p * (p / q).log()).sum() * ratio.detach().clamp(max=2.0))
            weights.append(torch.exp(-batch.signals["teacher_entropy"][i, t]))
        weight = torch.stack(weights)
        return (sum(plain) + (weight / weight.mean() * torch.stack(distilled)).sum()) / batch.mask_NT.sum()

    routes(Srpo(), value, seed, weights=(PpoClip(high=0.28, dual=None),))


def with_demonstration(right: int, wrong: int) -> Batch:
    made = [member([call([3])], i < right, index=i) for i in range(right + wrong)]
    made.append(member([call([4, 5], token_kinds=[INJECTED] * 2)], True, index=99))
    batch = collate([group("g", made)], 0, 8, dtype=torch.float64)
    return dataclasses.replace(batch, reward_N=batch.accuracy_N)


@pytest.mark.parametrize(("gate", "wanted"), [(0, "SRRR"), (2, "SSRR")])
def test_hpt_imitates_where_few_rollouts_are_right(gate, wanted):
    found = ""
    for right in (0, 2, 3, 8):
        imitated_NT, learning_N = Hpt(gate=gate).routes(with_demonstration(right, 8 - right))
        assert bool(imitated_NT.any()) != bool(learning_N.any())
        found += "S" if imitated_NT.any() else "R"
        assert int(imitated_NT.sum()) in (0, 2) and int(learning_N.sum()) in (0, 8)
    assert found == wanted


def test_hpt_compares_own_rollouts_only():
    close(OwnGroup()(with_demonstration(1, 3)), 0.75, -0.25, -0.25, -0.25, 0)


@pytest.mark.parametrize("right", [0, 2])
def test_hpt_two_routes(right):
    batch = with_demonstration(right, 4 - right)
    advantage_N = OwnGroup()(batch)
    logp_NT = (-torch.rand(batch.token_NT.shape, dtype=torch.float64)).requires_grad_()
    estimator = Estimator((), objective=Hpt(sft=0.3))
    found = estimator.loss(begun(estimator, batch, advantage_N, logp_NT), Forward(logp_NT), advantage_N).total
    if right:
        wanted = -sum(advantage_N[i] * logp_NT[i, 0] for i in range(4)) / 4 / 8
    else:
        wanted = -0.3 * (logp_NT[4, 0] + logp_NT[4, 1]) / 2
    torch.testing.assert_close(gradient(found, logp_NT), gradient(wanted, logp_NT), atol=1e-8, rtol=1e-8)
