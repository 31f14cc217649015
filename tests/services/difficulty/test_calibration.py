"""What is believed against what came back: of requests, of what is told at the door, of groups that lack outcomes."""

from services.difficulty.gauges import gauges
from sluice.v1 import prompt_pb2, rollout_pb2
from tests.services.difficulty.schedulers import build, verdict


def door(prompt_id, accuracy):
    return rollout_pb2.Verdict(
        prompt_id=prompt_id,
        outcome=rollout_pb2.VERDICT_OUTCOME_PARTIAL,
        accuracy=accuracy,
        checker="external",
        purpose=prompt_pb2.PURPOSE_TRAIN,
    )


def broken(request, index):
    found = verdict(request, index, 0.0)
    found.outcome = rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR
    return found


def told(scheduler, *verdicts):
    """What the calibration says when these are committed."""
    scheduler.observe(verdicts)
    scheduler.changed()
    scheduler.committed()
    return scheduler.calibration.numbers()


def test_nothing_is_said_before_an_outcome():
    assert build().calibration.numbers() == {} and "brier" not in gauges(build(), 0)


def test_what_is_told_at_the_door_is_held_against_the_belief_just_before_it():
    scheduler = build()
    first = told(scheduler, door("p0", 1.0), door("p0", 0.0))
    assert (first["brier"], first["predicted_5"], first["observed_5"]) == (0.25, 0.5, 0.5)
    told(scheduler, door("p1", 0.0), door("p1", 0.0))
    mean = scheduler.store.view(scheduler.store.rows.find(["p1"])).all().mean_P[0]
    last = told(scheduler, door("p1", 1.0))
    place = int(mean * 10)
    assert place < 5 and (last[f"predicted_{place}"], last[f"observed_{place}"]) == (mean, 1.0)


def test_what_the_posterior_does_not_see_at_the_door_is_not_counted():
    assert told(build(), door("nobody", 1.0), door("p0", float("nan"))) == {}


def test_observations_that_are_taken_back_are_not_counted():
    scheduler = build()
    scheduler.observe([door("p0", 1.0)])
    scheduler.undo()
    scheduler.committed()
    assert scheduler.calibration.numbers() == {}


def test_a_group_whose_check_failed_once_is_judged_by_its_other_rollouts():
    scheduler = build(n=4)
    request = scheduler.issue(0)[0]
    found = told(scheduler, *[verdict(request, index, float(index == 0)) for index in range(3)], broken(request, 3))
    assert (found["informative_observed"], found["informative_expected"]) == (1.0, 1 - 2 * 0.5**3)


def test_a_group_of_which_nothing_was_found_out_is_left_out():
    scheduler = build(n=4)
    request = scheduler.issue(0)[0]
    assert told(scheduler, *[broken(request, index) for index in range(4)]) == {}
    assert request.request_id not in scheduler.calibration.open
