"""Which checkpoints a start may go by."""

from services.learning.restore import in_force
from sluice.v1 import training_pb2


def checkpoints(*stamps):
    return [training_pb2.Checkpoint(epoch=epoch, step=step, uri=f"{epoch}/{step}") for epoch, step in stamps]


def test_the_newest_comes_first_and_the_last_record_of_a_step_counts():
    found = in_force(checkpoints((1, 0), (1, 5), (1, 10), (1, 10)))
    assert [(one.epoch, one.step) for one in found] == [(1, 10), (1, 5), (1, 0)]


def test_what_a_later_epoch_went_back_behind_is_never_gone_back_to():
    """Epoch 2 fell back to step 5 and began there: step 10 of epoch 1 is void, though its files may be whole again."""
    found = in_force(checkpoints((1, 0), (1, 5), (1, 10), (2, 5)))
    assert [one.uri for one in found] == ["2/5", "1/0"]


def test_steps_reached_again_stand_in_their_new_epoch():
    found = in_force(checkpoints((1, 0), (1, 5), (1, 10), (2, 5), (2, 10), (3, 10), (3, 15)))
    assert [one.uri for one in found] == ["3/15", "3/10", "2/5", "1/0"]
