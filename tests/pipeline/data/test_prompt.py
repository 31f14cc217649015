"""A prompt's id is stable: the data set's own, or made from its content."""

import subprocess
import sys

import pytest

from pipeline.data.prompt import build, text_of, turns_of
from pipeline.digest import prompt_digest, rollout_sha256
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2, rollout_pb2

FOUR = prompt_pb2.CheckSpec(check="exact", answer="4")

SAME_IN_EVERY_PROCESS = """
from pipeline.data.prompt import build
from sluice.v1 import prompt_pb2
print(build([("user", "2 + 2")], prompt_pb2.CheckSpec(check="exact", answer="4")).prompt_id)
"""


def test_an_id_made_from_content_is_the_same_in_another_process():
    run = [sys.executable, "-c", SAME_IN_EVERY_PROCESS]
    said = {
        subprocess.run(run, env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{build([('user', '2 + 2')], FOUR).prompt_id}\n".encode()}


def test_another_answer_is_another_prompt_and_another_label_is_not():
    one = build([("user", "2 + 2")], FOUR, family="sums")
    assert one.prompt_id == build([("user", "2 + 2")], FOUR, family="additions").prompt_id
    assert one.prompt_id != build([("user", "2 + 2")], prompt_pb2.CheckSpec(check="exact", answer="5")).prompt_id


def test_the_data_sets_own_id_wins_and_the_digest_is_still_that_of_the_content():
    prompt = build([("user", "2 + 2")], FOUR, "row-7")
    assert (prompt.prompt_id, prompt.digest) == ("row-7", prompt_digest(build([("user", "2 + 2")], FOUR)))


def test_the_question_is_the_last_thing_a_user_says():
    prompt = build([("user", "hello"), ("assistant", "yes?"), ("user", "2 + 2")], FOUR, system="Be brief.")
    assert text_of(prompt) == "2 + 2"
    assert prompt.messages[0].role == "system"


@pytest.mark.parametrize(
    "value", ["", "  ", None, [], 7, [{"role": "robot", "content": "hi"}], [{"role": "user"}], ["hi"]]
)
def test_what_is_no_conversation_is_refused_with_its_place(value):
    with pytest.raises(UserError, match="row 3 .*accepted"):
        turns_of(value, "row 3")


def test_moving_text_between_messages_changes_the_digest():
    one, two = build([("user", "ab"), ("user", "c")], FOUR), build([("user", "a"), ("user", "bc")], FOUR)
    assert one.digest != two.digest


def test_a_rollouts_digest_covers_its_key_its_tokens_and_its_ending_and_nothing_else():
    rollout = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id="r", index=1, attempt=1),
        calls=[rollout_pb2.Call(tokens=[5, 6])],
        ending=rollout_pb2.ENDING_STOP,
    )
    digest = rollout_sha256(rollout)
    rollout.worker_id = "generation-1"
    assert rollout_sha256(rollout) == digest
    rollout.calls[0].tokens[1] = 7
    assert rollout_sha256(rollout) != digest
    rollout.calls[0].tokens[1] = 6
    rollout.ending = rollout_pb2.ENDING_LENGTH
    assert rollout_sha256(rollout) != digest
