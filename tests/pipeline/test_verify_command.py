import io

import pytest

from pipeline.cli import main


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["exact", "--expected", "7", "--answer", "7"], 0, "CORRECT, accuracy 1"),
        (["exact", "--expected", "7", "--answer", "8"], 1, "WRONG, accuracy 0"),
        (["exact", "--expected", "a", "--answer", "A", "--set", "case=fold"], 0, "CORRECT"),
        (["length", "--spec", '{"low": 1, "high": 2}', "--answer", "abc"], 1, "length -0.5"),
        ([], 0, "math "),
    ],
)
def test_an_answer_is_checked_by_hand(capsys, argv, code, said):
    assert main(["verify", *argv]) == code
    assert said in capsys.readouterr().out


def test_the_answer_may_come_from_stdin(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("7"))
    assert main(["verify", "exact", "--expected", "7"]) == 0


@pytest.mark.parametrize("argv", [["no_such"], ["exact", "--set", "case"], ["length", "--spec", "{"]])
def test_what_cannot_be_used_is_said_in_one_sentence(capsys, argv):
    assert main(["verify", *argv, "--answer", "x"]) == 2
    assert "accepted:" in capsys.readouterr().err
