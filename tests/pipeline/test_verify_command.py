import io
import json

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.cli import main

ROWS = [
    {"answer": "<answer>a</answer>", "expected": "a", "label": True},
    {"answer": "A", "expected": "a", "label": 1},
    {"answer": "b", "expected": "a", "label": "wrong"},
    {"answer": "a", "expected": "a", "label": False},
    {"answer": "", "expected": "a", "label": 0},
]
HANGS = '''
"""Never comes to an end, and fails at 'x'."""
from dataclasses import dataclass

from services.verification.finding import correct


@dataclass(frozen=True)
class Hangs:
    version = "1"
    cpu_s = 0.3

    def __call__(self, answer_text, spec):
        while answer_text == "hang":
            pass
        if answer_text == "x":
            raise RuntimeError("no")
        return correct()
'''


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def audited(capsys, *argv):
    """What an audit says, as JSON."""
    assert main(["verify", "audit", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


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


def test_a_labelled_sample_gives_both_error_rates_with_intervals(capsys, tmp_path):
    found = audited(capsys, lines(tmp_path / "d.jsonl", ROWS), "--check", "exact")
    assert (found["labelled"], found["decided"], found["apart"]) == (5, 5, {})
    false_positive, false_negative = found["false_positive_rate"], found["false_negative_rate"]
    assert (false_positive["count"], false_positive["of"], false_positive["rate"]) == (1, 3, pytest.approx(1 / 3))
    assert (false_negative["count"], false_negative["of"], false_negative["rate"]) == (1, 2, 0.5)
    # Wilson of 1 of 2, z = 1.959964: (0.5 + z^2 / 4) / (1 + z^2 / 2), plus and minus.
    assert (false_negative["low"], false_negative["high"]) == pytest.approx((0.09453, 0.90547), abs=1e-5)
    assert [one["where"].rpartition(" ")[2] for one in found["misjudged"]] == ["2", "4"]


def test_knobs_make_it_an_audit_of_another_check(capsys, tmp_path):
    found = audited(capsys, lines(tmp_path / "d.jsonl", ROWS), "--check", "exact", "--set", "case=fold")
    assert found["false_negative_rate"]["count"] == 0


def test_columns_may_have_other_names_and_lie_in_parquet(capsys, tmp_path):
    rows = [{"said": "7 7", "spec": '{"low": 2}', "good": True}, {"said": "7", "spec": '{"low": 2}', "good": True}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    columns = ["--column", "answer=said", "--column", "label=good"]
    found = audited(capsys, str(tmp_path / "d.parquet"), "--check", "length", *columns)
    assert (found["false_negative_rate"]["count"], found["false_negative_rate"]["of"]) == (1, 2)


def test_what_a_check_did_not_decide_is_counted_apart_and_never_as_wrong(capsys, tmp_path):
    (tmp_path / "hangs.py").write_text(HANGS)
    rows = [{"answer": one, "label": True} for one in ("a", "hang", "x", "b")]
    found = audited(capsys, lines(tmp_path / "d.jsonl", rows), "--check", str(tmp_path / "hangs.py"))
    assert found["apart"] == {"TIMEOUT": 1, "INFRA_ERROR": 1}
    assert (found["false_negative_rate"]["count"], found["false_negative_rate"]["of"]) == (0, 2)


def test_people_see_the_rates_and_the_answers_that_were_misjudged(capsys, tmp_path):
    assert main(["verify", "audit", lines(tmp_path / "d.jsonl", ROWS), "--check", "exact"]) == 0
    said = capsys.readouterr().out
    assert "33.3% (6.1% to 79.2%), 1 of 3" in said
    assert "line 4: CORRECT, labelled wrong" in " ".join(said.split())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "a", "label": "maybe"}, "line 2: label is 'maybe'"),
        ({"answer": "a", "label": None}, "line 2: label is None"),
        ({"answer": "a", "label": 2}, "line 2: label is 2"),
        ({"answer": 3, "label": True}, "line 2: answer is '3'"),
        ({"label": True}, "line 2: the column is 'answer'"),
        ({"answer": "a", "label": True, "spec": {"odd": 1}}, "line 2: length: a key of spec is 'odd'"),
    ],
)
def test_a_bad_row_is_named_with_its_line(capsys, tmp_path, row, said):
    file = lines(tmp_path / "d.jsonl", [{"answer": "a", "label": True, "spec": {"low": 1}}, row])
    assert main(["verify", "audit", file, "--check", "length"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "accepted:" in error


@pytest.mark.parametrize(
    "argv",
    [["audit"], ["audit", "none.jsonl", "--check", "exact"], ["audit", "d.csv", "--check", "exact"], ["exact", "more"]]
    + [["audit", "d.jsonl", "--check", "exact", "--column", "gold=x"]],
)
def test_an_audit_that_cannot_be_made_is_said_in_one_sentence(capsys, argv):
    assert main(["verify", *argv]) == 2
    assert "accepted:" in capsys.readouterr().err
