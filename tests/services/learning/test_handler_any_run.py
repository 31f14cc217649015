"""Any small run with any settings, killed anywhere, its checkpoints damaged, stopped and gone on with: always clean."""

import random
from dataclasses import replace

import pytest

from pipeline.audit import audit_log
from services.learning.handler import Settings
from services.learning.replay.fifo import Fifo
from sluice.v1 import control_pb2
from tests.services.learning.world import NAMES, World, kinds


def world_of(dice, folder):
    settings = Settings(
        steps=dice.randint(3, 10),
        batch_groups=dice.randint(1, 4),
        max_lag=dice.randint(1, 3),
        checkpoint_every=dice.randint(1, 4),
        publish_every=dice.choice([1, 1, 2]),
        notice_every_ms=dice.choice([0, 0, 2000]),
    )
    world = World(folder, seed=dice.randrange(10**6), open_requests=dice.randint(6, 14), settings=settings)
    times = {"grace_ms": dice.choice([500, 5000]), "deadline_ms": dice.choice([8000, 20000])}
    replay = Fifo(max_uses=dice.choice([1, 1, 2, 3]), reuse_max_lag=dice.randint(0, 5))
    return replace(world, replay=replay, **times)


def trouble(dice, root):
    """Dies around transactions, and damages the newest checkpoint now and then while an older one is left."""
    deaths, damages, chance = [dice.randint(0, 20)], [dice.choice([0, 0, 1, 2])], dice.randint(3, 12)

    def kill(sends):
        folders = list((root / "checkpoints").iterdir()) if damages[0] else []
        if damages[0] and "Outcome" in kinds(sends) and len(folders) >= 2 and dice.random() < 0.3:
            damages[0] -= 1
            newest = max(folders, key=lambda path: path.stat().st_mtime_ns)
            (newest / "model.safetensors").write_bytes(b"damaged")
            return dice.choice(["before", "after"])
        if deaths[0] and dice.randrange(chance) == 0:
            deaths[0] -= 1
            return dice.choice(["before", "after"])
        return ""

    return kill


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_any_run_is_clean(tmp_path, seed):
    dice = random.Random(seed)
    world = world_of(dice, tmp_path)
    kill = trouble(dice, tmp_path)
    for stop_at in dice.choice([[None], [2, None]]):
        world.write(("control", "run", control_pb2.Control(phase=control_pb2.PHASE_RUNNING)))
        world.run(kill, stop_at=stop_at, moments=60)
        audit = audit_log(world.log, NAMES, world.now_ms)
        assert audit.clean and audit.in_flight == 0 and world.places() == 0, audit
    assert audit.steps == world.settings.steps
    assert all(said.sha256 == found.rollout_sha256 for said, found in world.trainer.seen)
