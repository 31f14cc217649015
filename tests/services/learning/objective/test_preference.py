"""Pairwise objectives: each worked number, and each paper's loss written out pair by pair against the gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import logsigmoid

from services.learning.collate import collate
from services.learning.objective.copg import Copg
from services.learning.objective.dno import Dno
from services.learning.objective.dpo import Dpo
from services.learning.objective.reg_grpo import RegGrpo
from services.learning.objective.trpa import Trpa
from services.learning.pairs import preference
from sluice.v1 import rollout_pb2
from tests.services.learning.objective.value_routes import close, f64, groups_of, mean_score, routes, total
from tests.services.learning.rollouts import call, group, member, rewarded

INJECTED = rollout_pb2.TOKEN_KIND_INJECTED


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
