"""DisCO and DRPO: each worked number, and each paper's loss written out one group at a time against the gradient."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from services.learning.collate import collate
from services.learning.likelihood import Forward
from services.learning.objective.disco import Disco
from services.learning.objective.drpo import Drpo
from tests.services.learning.objective.value_routes import close, f64, groups_of, hinge, mean_score, routes
from tests.services.learning.rollouts import call, group, member, rewarded


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
