"""Rows of files and data sets: columns by name, and every fault is one sentence that says where it is."""

import importlib
import json

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.data.load import load_source
from pipeline.errors import UserError

ROWS = [
    {"prompt": "2 + 2", "answer": "4", "n": "a", "how": "count"},
    {"prompt": [{"role": "user", "content": "3 + 3"}], "answer": 6, "n": "b", "how": None},
]


def written(path, *lines: str | bytes) -> str:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return str(path)


def test_json_lines_hold_texts_or_whole_conversations(tmp_path):
    path = written(tmp_path / "sums.jsonl", *map(json.dumps, ROWS))
    one, two = load_source("jsonl", path=path, prompt_id="n", solution="how", check="math").prompts()
    assert (one.prompt_id, one.check.check, one.check.answer, one.reference_solution) == ("a", "math", "4", "count")
    assert (two.prompt_id, two.check.answer, two.messages[0].parts[0].text) == ("b", "6", "3 + 3")
    assert one.family == "sums"


SOLVED = "48 / 2 = <<48/2=24>>24 clips in May.\nAltogether 48 + 24 = <<48+24=72>>72 clips.\n#### 72"
"""As GSM8K writes its column `answer`."""


def test_the_answer_may_stand_behind_a_mark_in_its_column(tmp_path):
    rows = [{"question": "clips?", "answer": SOLVED}, {"question": "more?", "answer": "#### 1 was wrong\n#### 1,024"}]
    path = written(tmp_path / "sums.jsonl", *map(json.dumps, rows))
    knobs = {"prompt": "question", "check": "math", "answer_after": "####", "solution": "answer"}
    one, two = load_source("jsonl", path=path, **knobs).prompts()
    assert (one.check.answer, one.reference_solution) == ("72", SOLVED)
    assert two.check.answer == "1,024"
    check = importlib.import_module("pipeline.parts").load("verification.check", "math")
    assert check("so it is \\boxed{72}", one.check).name == "CORRECT"


@pytest.mark.parametrize("answer", ["so it is 72", "72 ####", 72])
def test_a_row_without_the_mark_or_with_nothing_behind_it_is_refused(tmp_path, answer):
    rows = [{"prompt": "clips?", "answer": SOLVED}, {"prompt": "more?", "answer": answer}]
    path = written(tmp_path / "sums.jsonl", *map(json.dumps, rows))
    with pytest.raises(UserError, match="line 2: column 'answer' is .*72.* with answer_after '####'; accepted: that"):
        list(load_source("jsonl", path=path, answer_after="####").prompts())


def test_what_only_the_stronger_check_is_told_stands_in_columns_of_its_own_and_changes_no_id(tmp_path):
    rows = [{"prompt": "2 + 2", "answer": "4", "tests": {"low": 1}, "gold": 4}, {"prompt": "x", "answer": "y"}]
    rows[1] |= {"tests": None, "gold": None}
    path = written(tmp_path / "sums.jsonl", *map(json.dumps, rows))
    one, two = load_source("jsonl", path=path, hidden_spec="tests", hidden_answer="gold").prompts()
    assert (one.hidden.check, one.hidden.answer, one.hidden.spec_json) == ("", "4", '{"low": 1}')
    assert not two.HasField("hidden")
    assert [one.prompt_id, two.prompt_id] == [prompt.prompt_id for prompt in load_source("jsonl", path=path).prompts()]


def test_parquet_gives_the_same_prompts_as_json_lines(tmp_path):
    rows = [{"question": f"{i} + 1", "answer": str(i + 1)} for i in range(5)]
    lines = written(tmp_path / "sums.jsonl", *map(json.dumps, rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "sums.parquet")
    both = [
        list(load_source("jsonl", path=p, prompt="question").prompts()) for p in (lines, str(tmp_path / "sums.parquet"))
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 5


def test_a_local_folder_loads_as_a_hugging_face_data_set(tmp_path):
    written(tmp_path / "train.jsonl", json.dumps({"question": "2 + 2", "answer": "4"}))
    (prompt,) = load_source("huggingface", path=str(tmp_path), prompt="question").prompts()
    assert (prompt.check.answer, prompt.family) == ("4", tmp_path.name)
    with pytest.raises(UserError, match="row 0: the column is 'prompt'; accepted: answer, question"):
        list(load_source("huggingface", path=str(tmp_path)).prompts())
    with pytest.raises(UserError, match="split 'dev' cannot be loaded"):
        list(load_source("huggingface", path=str(tmp_path), split="dev").prompts())


GOOD = json.dumps({"prompt": "2 + 2", "answer": "4"})


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([GOOD, '{"prompt": "2 + 2"}'], r"line 2: the column is 'answer'; accepted: prompt"),
        ([GOOD, "", GOOD], r"line 2 is empty; accepted: one JSON object in every line"),
        ([GOOD, GOOD, '{"prompt": "2 +'], r"line 3 is no JSON \(.*accepted: one object"),
        ([GOOD, b'{"prompt": "\xff", "answer": "4"}'], r"line 2 is no JSON \(.*UTF-8"),
        ([GOOD, "{}"], r"line 2 is \{\}; accepted: one JSON object that is not empty"),
        ([GOOD, "[1]"], r"line 2 is \[1\]; accepted: one JSON object"),
        ([GOOD, '{"prompt": "", "answer": "4"}'], r"line 2: column 'prompt' is ''; accepted: a text"),
        ([GOOD, '{"prompt": "2 + 2", "answer": null}'], r"line 2: column 'answer' is empty"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_line_and_column(tmp_path, lines, sentence):
    path = written(tmp_path / "sums.jsonl", *lines)
    with pytest.raises(UserError, match=r"sums\.jsonl' " + sentence) as raised:
        list(load_source("jsonl", path=path).prompts())
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_empty_or_of_another_kind_is_refused(tmp_path):
    (tmp_path / "none.jsonl").touch()
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    for name, sentence in {
        "gone.jsonl": "does not exist",
        "words.txt": "accepted: a file that ends in .jsonl",
        "none.jsonl": "holds no rows",
        "bad.parquet": "no readable Parquet file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            list(load_source("jsonl", path=str(tmp_path / name)).prompts())
