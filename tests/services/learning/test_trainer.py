"""The trainer: one step against a plain loop, cuts that change nothing, drops, state, forgetting."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from pipeline.errors import UserError
from pipeline.recipe import load_recipe, shipped
from services.learning import checkpoint
from services.learning.group import Group
from services.learning.model import Compute
from services.learning.trainer import Trainer
from sluice.v1 import rollout_pb2
from tests.services.learning.rollouts import call, group, member, random_groups, tiny_model

Outcome = rollout_pb2


SPINE = ("grpo", "dapo", "rloo", "dr_grpo", "spo_single_stream", "grpo_tis")
RECIPES = [name if name in SPINE else pytest.param(name, marks=pytest.mark.long) for name in shipped()]
"""Every recipe; those that other tests do not build on are run with the long tests."""


def trainer(recipe, model=None, budget=16_384, lr=0.0, **more):
    changed = load_recipe({"base": recipe, "optimizer": {"name": "adamw", "lr": lr, "clip_norm": None}, **more})
    return Trainer(model or tiny_model(), changed, max_tokens=6, compute=Compute(token_budget=budget))


def groups_for(recipe: str, seed: int = 0) -> list[Group]:
    return random_groups(seed, groups=12 if recipe.startswith("spo") else 5, size=1 if recipe.startswith("spo") else 4)


def gradients(one: Trainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in one.model.parameters()])


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def test_a_grpo_step_has_the_gradient_of_a_plain_loop():
    """The synchronous limit: written from the paper, one rollout at a time, with no padding and nothing shared."""
    model, made = tiny_model(), random_groups(1)
    one = trainer("grpo", model)
    result = one.step(made, version=3)
    found = gradients(one)

    model.zero_grad()
    total = 0.0
    for each in made:
        rewards = torch.tensor([m.verdict.accuracy for m in each.members], dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for m, advantage in zip(each.members, advantages, strict=True):
            said = m.rollout.calls[0]
            context, tokens = list(said.context_tokens), list(said.tokens)
            logits = (
                model(torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1] / said.spans[0].temperature
            )
            logp = logits.log_softmax(-1)[range(len(tokens)), tokens]
            ratio = (logp - torch.tensor(said.logprobs, dtype=torch.float64)).exp()
            loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
            if advantage < 0:
                loss = torch.minimum(loss, -advantage * 3.0)
            total = total + loss.mean() / 16
    total.backward()
    assert difference(found, gradients(one)) < 1e-6  # behaviour log-probs are float32 on the wire
    assert result.metrics["grad_norm"] == pytest.approx(float(found.norm()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_micro_batches_do_not_change_the_gradient(recipe):
    whole, cut = trainer(recipe), trainer(recipe, budget=16)
    first, second = whole.step(groups_for(recipe), 3), cut.step(groups_for(recipe), 3)
    assert difference(gradients(cut), gradients(whole)) < 1e-9
    shared = first.metrics.keys() & second.metrics.keys()
    assert {k: first.metrics[k] for k in shared} == pytest.approx({k: second.metrics[k] for k in shared}, rel=1e-6)


@pytest.mark.parametrize("recipe", ["grpo", "dapo"])
def test_micro_batches_do_not_change_a_denominator_that_shrinks(recipe):
    more = {"denominator": {"name": "token_mean", "shrink": True}}
    whole, cut = trainer(recipe, **more), trainer(recipe, budget=16, **more)
    whole.step(groups_for(recipe), 3)
    cut.step(groups_for(recipe), 3)
    assert difference(gradients(cut), gradients(whole)) < 1e-9


@pytest.mark.parametrize("recipe", RECIPES)
def test_padding_does_not_change_the_loss(recipe):
    made = groups_for(recipe)
    long_context = member([call([3], context=[4] * 30)], outcome=Outcome.VERDICT_OUTCOME_WRONG, prompt="x")
    padded = trainer(recipe, budget=10**9)
    alone = trainer(recipe, budget=1)
    both = [*made, group("x", [long_context, dataclasses.replace(long_context)])]
    a, b = padded.step(both, 3), alone.step(both, 3)
    assert a.metrics["loss"] == pytest.approx(b.metrics["loss"], rel=1e-9)
    assert difference(gradients(alone), gradients(padded)) < 1e-9


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_order_of_rollouts_does_not_change_the_gradient(recipe):
    made = groups_for(recipe)
    turned = [Group(g.group_id, g.prompt_id, g.members[::-1]) for g in reversed(made)]
    one, other = trainer(recipe), trainer(recipe)
    one.step(made, 3)
    other.step(turned, 3)
    assert difference(gradients(other), gradients(one)) < 1e-9


def test_temperature_is_applied_to_the_learners_log_probs():
    model = tiny_model()
    one = trainer("grpo", model)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 5]])).logits[0, 1] / 0.5
    logp = float(logits.log_softmax(-1)[5])
    pair = [member([call([5], [logp], temperature=0.5, version=1)], right) for right in (True, False)]
    result = one.step([group("g", pair)], version=1)
    assert result.metrics["logprob_gap_max"] < 1e-6 and result.metrics["ratio_mean"] == pytest.approx(1.0)


def test_uses_say_weight_advantage_and_lag():
    made = random_groups(2)
    result = trainer("grpo").step(made, version=7)
    assert len(result.uses) == 16 and result.dropped == () and not result.skipped
    assert [use.group_id for use in result.uses[:4]] == ["q0"] * 4 and result.uses[0].use == 1
    tokens = sum(m.tokens for g in made for m in g.members)
    lags = [7 - s.version for g in made for m in g.members for s in m.rollout.calls[0].spans for _ in range(m.tokens)]
    assert result.metrics["lag_mean"] == pytest.approx(sum(lags) / tokens)
    assert result.uses[0].lag == pytest.approx(7 - made[0].members[0].rollout.calls[0].spans[0].version)


def test_a_failure_of_ours_is_dropped_before_the_group_is_compared():
    ours = member([call([3, 4])], outcome=Outcome.VERDICT_OUTCOME_INFRA_ERROR, index=3)
    mixed = group("g", [member([call([3])], True), member([call([3])], False, index=1), ours])
    result = trainer("grpo").step([mixed], 0)
    assert [(m.name, reason) for m, reason in result.dropped] == [(("r", 3), "infra_error")]
    assert [round(use.advantage, 4) for use in result.uses] == [0.7071, -0.7071]


def test_every_drop_has_its_reason():
    right, wrong = member([call([3])], True), member([call([3])], False, index=1)
    malformed = member([call([3, 4], [-1.0])], True, index=2)
    not_run = member([], outcome=Outcome.VERDICT_OUTCOME_NOT_RUN, index=3)
    groups = [
        group("mixed", [right, wrong, malformed]),
        group("equal", [right, right]),
        group("short", [right, not_run]),
    ]
    result = trainer("dapo").step(groups, 0)
    reasons = [reason for _, reason in result.dropped]
    assert reasons == ["malformed", "degenerate_group", "degenerate_group", "short_group", "not_run"]
    assert len(result.uses) == 2 and result.metrics["rows"] == 2


def test_degenerate_groups_are_refused_as_they_close():
    right, wrong = member([call([3])], True), member([call([3])], False, index=1)
    dapo, grpo = trainer("dapo"), trainer("grpo")
    assert dapo.refuses(group("g", [right, right])) == "degenerate_group"
    assert dapo.refuses(group("g", [right, wrong])) == ""
    assert grpo.refuses(group("g", [right, right])) == ""
    assert grpo.refuses(group("g", [right])) == "short_group"
    failed = member([], outcome=Outcome.VERDICT_OUTCOME_NOT_RUN)
    assert grpo.refuses(group("g", [failed, failed])) == "not_run"
    assert grpo.refuses(group("g", [])) == "empty_group"


def test_a_step_without_a_trainable_token_is_skipped():
    one = trainer("grpo", lr=1.0)
    before = [p.clone() for p in one.model.parameters()]
    empty = [member([call([])], right, index=i) for i, right in enumerate((True, False))]
    result = one.step([group("g", empty)], 0)
    assert result.skipped == "empty_step" and {reason for _, reason in result.dropped} == {"empty_step"}
    assert all(torch.equal(a, b) for a, b in zip(before, one.model.parameters(), strict=True))
    assert one.step([], 0).skipped == "empty_step"


def test_an_empty_response_beside_others_is_trained_with_weight_zero():
    pair = [member([call([])], True), member([call([3])], False, index=1)]
    result = trainer("grpo").step([group("g", pair)], 0)
    assert [use.weight for use in result.uses][0] == 0 and math.isfinite(result.metrics["loss"])


def test_a_gradient_that_is_not_finite_skips_the_step_and_says_so():
    one = trainer("grpo", lr=1.0)
    with torch.no_grad():
        next(one.model.parameters())[3] = math.nan
    before = {name: p.clone() for name, p in one.model.named_parameters()}
    result = one.step(random_groups(3), 3)
    assert result.skipped == "nan_step" and result.uses == ()
    assert {reason for _, reason in result.dropped} == {"nan_step"} and len(result.dropped) == 16
    assert one.steps == 0
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(parameter, before[name], equal_nan=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_right_all_wrong_and_groups_of_one_are_finite(recipe):
    right, wrong = member([call([3, 4])], True, belief=0.5), member([call([3])], False, belief=0.5, index=1)
    one = trainer(recipe, lr=1e-3)
    for made in ([group("a", [right, right])], [group("b", [wrong, wrong])], [group("c", [right])]):
        result = one.step(made, 1)
        assert all(math.isfinite(value) for value in result.metrics.values())
        assert len(result.uses) + len(result.dropped) == len(made[0].members)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_state_goes_through_a_checkpoint_and_on_to_the_same_weights(recipe, tmp_path):
    more = {"regularizers": ["kl"]} if recipe == "grpo" else {}
    one = trainer(recipe, tiny_model(), lr=1e-2, **more)
    one.step(groups_for(recipe, 1), 3)
    saved = checkpoint.save(tmp_path, 1, 1, one.state())
    other = trainer(recipe, tiny_model(seed=9), lr=1e-2, **more)
    other.load_state(checkpoint.load(tmp_path, saved.name, saved.sha256))
    results = [each.step(groups_for(recipe, 1), 3) for each in (one, other)]
    for (name, a), (_, b) in zip(one.weights(), other.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    assert results[0].metrics == results[1].metrics
    assert [s.SerializeToString() for s in results[0].shifts] == [s.SerializeToString() for s in results[1].shifts]


def test_a_state_of_another_model_is_refused():
    one, other = trainer("grpo"), trainer("grpo", torch.nn.Module.to(tiny_model(), torch.float64))
    state = one.state()
    state["model"] = {name: t for name, t in state["model"].items() if "layers.1" not in name}
    with pytest.raises(UserError, match=r"differ in the tensor 'model\.layers\.1"):
        other.load_state(state)


def test_weights_are_in_the_serving_dtype_and_tied_ones_come_once():
    one = trainer("grpo")
    names = [name for name, _ in one.weights("bfloat16")]
    assert names == sorted(set(names)) and "lm_head.weight" not in names
    assert {tensor.dtype for _, tensor in one.weights("bfloat16")} == {torch.bfloat16}


def test_spo_reports_how_far_each_prompt_moved_since_its_last_visit():
    model = tiny_model()
    one = trainer("spo_single_stream", model, lr=1e-2)
    tokens, fresh = [5, 6, 7], itertools.count()

    def logp() -> torch.Tensor:
        with torch.no_grad():
            logits = model(torch.tensor([[1, 2, *tokens]])).logits[0, 1:-1]
        return logits.log_softmax(-1)[range(3), tokens]

    def visit(prompt: str, right: bool):
        said = member([call(tokens, logp().tolist())], right, prompt=prompt, belief=0.5)
        other = member([call([9], [-1.0])], not right, prompt=f"other-{next(fresh)}", belief=0.5)
        return one.step([group(prompt, [said]), group("other", [other])], 0)

    assert visit("a", True).shifts == ()
    stored = logp()
    visit("b", False)
    shifts = {shift.prompt_id: shift.mean_abs_logprob_change for shift in visit("a", True).shifts}
    assert shifts.keys() == {"a"}
    assert shifts["a"] == pytest.approx(float((stored - logp()).abs().mean()), rel=1e-5)


def test_the_reference_policy_stays_where_it_was():
    one = trainer("grpo", lr=1e-2, regularizers=[{"name": "kl", "coef": 1.0}])
    assert one.step(random_groups(4), 3).metrics["loss_kl"] == pytest.approx(0.0, abs=1e-9)
    assert one.step(random_groups(4), 3).metrics["loss_kl"] > 0


def test_entropy_comes_with_a_gradient_when_a_regularizer_needs_it():
    plain, bonus = trainer("grpo"), trainer("grpo", regularizers=[{"name": "entropy", "coef": 1.0}])
    a, b = plain.step(random_groups(5), 3), bonus.step(random_groups(5), 3)
    assert b.metrics["loss_entropy"] == pytest.approx(-b.metrics["entropy"])
    assert 0 < b.metrics["entropy"] <= math.log(11)
    assert a.metrics["grad_norm"] != pytest.approx(b.metrics["grad_norm"])


def test_gradient_checkpointing_and_logit_chunks_do_not_change_the_gradient():
    plain = trainer("grpo")
    plain.step(random_groups(6), 3)
    recipe = load_recipe({"base": "grpo", "optimizer": {"name": "adamw", "lr": 0.0, "clip_norm": None},
                          "likelihood": {"name": "token", "chunk": 40}})  # fmt: skip
    thrifty = Trainer(tiny_model(), recipe, 6, Compute(gradient_checkpointing=True))
    thrifty.step(random_groups(6), 3)
    assert difference(gradients(thrifty), gradients(plain)) < 1e-9


def test_training_on_what_is_right_makes_it_likelier():
    model = tiny_model()
    one = trainer("grpo", model, lr=1e-2)

    def chance() -> float:
        with torch.no_grad():
            return float(model(torch.tensor([[1, 2]])).logits[0, -1].softmax(-1)[5])

    before = chance()
    for _ in range(5):
        with torch.no_grad():
            logp = model(torch.tensor([[1, 2]])).logits[0, -1].log_softmax(-1)
        pair = [member([call([t], [float(logp[t])])], t == 5, index=i) for i, t in enumerate((5, 6, 7, 8))]
        one.step([group("g", pair)], 0)
    assert chance() > before
