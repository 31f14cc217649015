"""Prompts from a function of the user's."""

import pytest

from pipeline.data.load import load_source
from pipeline.errors import UserError

SOURCE = """
from sluice.v1 import prompt_pb2

def sums(count):
    for i in range(count):
        part = prompt_pb2.Part(text=f"{i} + 1")
        yield prompt_pb2.Prompt(
            messages=[prompt_pb2.Message(role="user", parts=[part])],
            check=prompt_pb2.CheckSpec(check="exact", answer=str(i + 1)),
        )

def texts():
    return ["2 + 2"]

NUMBER = 7
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    (tmp_path / "my_prompts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_functions_prompts_are_given_ids_and_digests():
    made = list(load_source("entry_point", target="my_prompts:sums", arguments={"count": 3}).prompts())
    assert [prompt.check.answer for prompt in made] == ["1", "2", "3"]
    assert all(prompt.prompt_id == prompt.digest.hex()[:24] for prompt in made)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("my_prompts:gone", "no attribute 'gone'.*accepted: package.module:function"),
        ("not_there:sums", "No module named 'not_there'"),
        ("", "accepted: package.module:function"),
        ("my_prompts:NUMBER", "cannot be called; accepted: a function"),
        ("my_prompts:texts", "item 0 is '2 \\+ 2'; accepted: a Prompt with messages"),
    ],
)
def test_a_wrong_target_is_refused(target, sentence):
    with pytest.raises(UserError, match=sentence):
        list(load_source("entry_point", target=target).prompts())
