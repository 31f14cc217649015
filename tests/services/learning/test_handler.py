"""The learner on a real log: whatever it is killed between, every requested rollout ends once."""

import random

import pytest

from pipeline.audit import audit_log
from tests.services.learning.world import NAMES, World, kinds


def audited(world):
    return audit_log(world.log, NAMES, world.now_ms)


def test_a_run_ends_with_every_rollout_accounted_for(tmp_path):
    world = World(tmp_path).run()
    audit = audited(world)
    assert audit.clean, audit
    assert audit.in_flight == 0 and audit.finished and audit.steps == 8
    assert audit.requested == sum(request.n for request in world.held("requests"))
    assert audit.trained and audit.superseded


def killer(chances, limit=25):
    """Dies around every transaction with chance one in `chances`, `limit` times at most."""
    dice, left = random.Random(1), [limit]

    def kill(sends):
        if left[0] and dice.randrange(chances) == 0:
            left[0] -= 1
            return dice.choice(["before", "after"])
        return ""

    return kill


def once(kind, when, number=1):
    """Dies around the `number`-th transaction that writes such a noun."""
    left = [number]

    def kill(sends):
        if kind in kinds(sends):
            left[0] -= 1
            return when if left[0] == 0 else ""
        return ""

    return kill


@pytest.mark.parametrize("seed", range(6))
def test_killed_between_any_two_transactions_nothing_is_lost_or_trained_twice(tmp_path, seed):
    world = World(tmp_path, seed=seed).run(killer(4))
    audit = audited(world)
    assert audit.clean, audit
    assert audit.in_flight == 0 and world.kills >= audit.epochs - 1 > 5
    for said, found in world.trainer.seen:
        assert said.sha256 == found.rollout_sha256


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["Rewind", "WeightChunk", "WeightManifest", "TrainStep", "DropNotice", "Checkpoint"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_killed_around_a_noun(tmp_path, kind, when, number):
    world = World(tmp_path, seed=number).run(once(kind, when, number))
    audit = audited(world)
    assert audit.clean and audit.in_flight == 0, audit
    assert audit.steps == 8
    versions = [manifest.version for manifest in world.held("weights-manifest")]
    assert versions == sorted(set(versions))
