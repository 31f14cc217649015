"""Pruned rollouts and two engines in a worker, all the way round: every rollout still has exactly one end."""

from __future__ import annotations

import pytest

from tests.journey.harness import Running, audit


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_that_prunes_heats_and_has_two_engines_in_a_worker_loses_nothing(tmp_path):
    guidance = [{"name": "arrol", "look_at": 2}, {"name": "hapo_temperature"}]
    sets = {"generation.guidance": guidance, "generation.replicas": 2, "generation.max_tokens": 24}
    with Running(tmp_path / "run", sets=sets) as run:
        assert run.wait() == 0, run.said() + run.logs()
    account = audit(tmp_path / "run")
    assert account["dropped"].get("pruned", 0) > 0 and account["trained"] > 0
    dropped = sum(account["dropped"].values())
    assert account["requested"] == account["trained"] + dropped + account["expired"]
