"""`sluice audit` of a run at work: what is under way is in flight, and nothing is missed because it came meanwhile.

Its learner has two ranks, started, told and ended as a user's are; killed they are in tests/chaos.
"""

from __future__ import annotations

from tests.journey.harness import Running, audit


def test_a_run_at_work_is_accounted_for_at_every_moment(tmp_path):
    directory = tmp_path / "run"
    with Running(directory, {"learning.steps": 100_000, "learning.ranks": 2, "evaluate.prompts": 0}) as run:
        at = run.until(lambda view: view.step >= 2, "the second step").step
        accounts = [audit(directory) for _ in range(4)]
        run.until(lambda view: view.step > at, "a step meanwhile")
    assert [account["lost"] for account in accounts] == [0] * 4
    assert all(account["in_flight"] > 0 and not account["finished"] for account in accounts)
    requested = [account["requested"] for account in accounts]
    assert requested == sorted(requested) and requested[0] < requested[-1]
