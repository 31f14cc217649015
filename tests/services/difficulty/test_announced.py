"""Which versions may be observed, over the real embedded log."""

from pipeline import records
from pipeline.topics import Names
from services.difficulty.announced import Announced
from services.difficulty.seen import Versions, read
from sluice.v1 import rollout_pb2, training_pb2, weights_pb2

NAMES = Names("test", "run")


def write(log, *sends):
    writer = log.writer("learning")
    with writer.transaction() as transaction:
        transaction.sends.extend(records.encode(NAMES.topic(topic), "main", noun) for topic, noun in sends)
    writer.close()


def manifest(version):
    return "weights-manifest", weights_pb2.WeightManifest(policy_id="main", version=version)


def step(number):
    return "steps", training_pb2.TrainStep(epoch=1, step=number, version=number + 1)


def test_where_no_weights_were_ever_announced_every_version_is_accepted(log):
    assert Announced(log, NAMES)(7) is None


def test_a_version_is_known_as_soon_as_its_manifest_is_on_the_log(log):
    announced = Announced(log, NAMES)
    write(log, manifest(1))
    assert announced(1) == Versions(0, 1)
    write(log, step(1), manifest(2))
    assert announced(1) == Versions(0, 1)
    assert announced(2) == Versions(0, 2)


def test_what_came_before_the_oldest_step_held_is_forgotten(log):
    write(log, manifest(4), step(1), step(2), step(3))
    log.trim(NAMES.topic("steps"), 0, 2)
    assert Announced(log, NAMES)(4) == Versions(4, 4)


def test_versions_beyond_any_number_are_refused_and_not_wrapped_around():
    verdict = rollout_pb2.Verdict(
        prompt_id="p", accuracy=1.0, outcome=rollout_pb2.VERDICT_OUTCOME_CORRECT, max_version=2**64 - 1
    )
    assert read([verdict], Versions(0, 5)).reasons == ["version_not_announced"]
