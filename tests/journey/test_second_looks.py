"""A run whose check accepts whatever was said: a stronger check of half of its rollouts shows it, the reward not."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from pipeline import rollouts
from pipeline.rundir import RunDir
from services.verification.second_look import SecondLook
from sluice.v1 import rollout_pb2
from tests.journey.harness import Running, audit

SHARE = 0.5
SEED = 3


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_check_that_accepts_everything_is_found_out_by_a_second_look(tmp_path):
    words = ["".join(letters) for letters in permutations("abcdef", 3)]
    problems = tmp_path / "words.jsonl"
    rows = [{"word": word, "pattern": "(?s).*", "back": word[::-1]} for word in words]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": str(problems), "prompt": "word", "answer": "pattern", "check": "regex"}
    look = {"share": SHARE, "check": {"name": "exact", "case": "fold"}, "window": 20}
    sets = {"data.sources": [source | {"hidden_answer": "back"}], "verification.second_look": look, "seed": SEED}
    with Running(tmp_path / "run", sets=sets) as run:
        assert run.wait() == 0, run.said() + run.logs()
    audit(tmp_path / "run")
    directory = RunDir.of(tmp_path / "run")
    log = directory.open_log()
    try:
        found = [row for row in rollouts.rows(log, directory.names()) if row["outcome"] == "CORRECT"]
    finally:
        log.close()
    chosen = SecondLook(SHARE, "exact", seed=SEED).chosen
    keys = [rollout_pb2.RolloutKey(**{name: row[name] for name in ("request_id", "index", "attempt")}) for row in found]
    assert len(found) >= 192
    assert [row["hidden_outcome"] is not None for row in found] == [chosen(key) for key in keys]
    assert {row["hidden_checker"] for row in found if row["hidden_outcome"]} == {"exact"}
    assert "WRONG" in {row["hidden_outcome"] for row in found}
    assert all(not row["advantage"] for row in found), "all rewards are equal: what the stronger check says is none"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "How often the check errs" in page
    assert "<td>regex</td><td>exact</td>" in page
