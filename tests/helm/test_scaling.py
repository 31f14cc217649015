"""KEDA's scaler of rollout workers: the rendered query by promtool, and what the rendered formula makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from chart import CHART, name, of, render

WHO = 'run="fleet",namespace="rl",service="learning",instance="learning-0"'
STALE = f'sluice_learning_drops_total{{{WHO},reason="stale"}}'
OTHER = f'sluice_learning_drops_total{{{WHO},reason="degenerate_group"}}'
TRAINED = f"sluice_learning_rollouts_total{{{WHO}}}"
ANOTHER_RUN = STALE.replace("fleet", "other")
STATES = {
    "fresh": ({STALE: "0x60", TRAINED: "0+90x60", OTHER: "0+50x60"}, True),
    "a few are dropped as stale": ({STALE: "0+3x60", TRAINED: "0+97x60"}, True),
    "many are dropped as stale": ({STALE: "0+6x60", TRAINED: "0+94x60"}, False),
    "all are dropped as stale": ({STALE: "0+90x60", TRAINED: "0x60"}, False),
    "all are dropped as stale and none was ever trained": ({STALE: "0+90x60"}, False),
    "they were stale half an hour ago": ({STALE: "0+90x20 1800x40", TRAINED: "0x20 0+90x40"}, True),
    "the learner has done nothing yet": ({STALE: "0x60", TRAINED: "0x60"}, True),
    "another run is stale": ({ANOTHER_RUN: "0+90x60", STALE: "0x60", TRAINED: "0+90x60"}, True),
    "there is no data": ({}, True),
}


def generation(**run) -> dict:
    """Its ScaledObject, of the fleet example with these fields of the run file."""
    values = yaml.safe_load((CHART / "examples/spot-rollout-fleet.yaml").read_text())
    values["run"] |= run
    (one,) = [o for o in of(render(values), "ScaledObject") if name(o).endswith("generation")]
    return one["spec"]


def triggers(spec: dict) -> dict[str, dict]:
    return {trigger["name"]: trigger["metadata"] for trigger in spec["triggers"]}


def condition(spec: dict) -> str:
    """When it scales: `staleness < NUMBER`."""
    when, _, then = spec["advanced"]["scalingModifiers"]["formula"].partition(" ? ")
    assert then == "lag : workers * 32"
    return when


def promtool(folder: Path, tests: list[dict]) -> None:
    if shutil.which("promtool") is None:
        say = pytest.fail if "promtool" in os.environ.get("SLUICE_REQUIRE", "") else pytest.skip
        say("'promtool' is not installed; Debian's package prometheus brings it")
    (folder / "test.yaml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}))
    command = ["promtool", "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("max_lag", [0, 2, 8])
def test_generation_scales_on_its_lag_and_is_held_by_what_is_dropped_at_any_max_lag(max_lag):
    spec = generation(max_lag=max_lag)
    found = triggers(spec)
    assert condition(spec) == "staleness < 0.05" and found["staleness"]["threshold"] == "0.05"
    assert set(found) == {"lag", "staleness", "workers"}
    assert found["lag"]["topic"] == "sluice.fleet.requests"
    assert found["lag"]["consumerGroup"] == "sluice.fleet.generation"


def test_rollout_workers_are_added_while_data_is_fresh_and_not_while_much_of_it_is_dropped_as_stale(tmp_path):
    spec = generation()
    query = triggers(spec)["staleness"]["query"]
    scales = condition(spec).replace("staleness < ", f"({query}) < bool ")
    tests = [
        {
            "name": state,
            "interval": "1m",
            "input_series": [{"series": one, "values": values} for one, values in series.items()],
            "promql_expr_test": [
                {"expr": scales, "eval_time": "50m", "exp_samples": [{"labels": "{}", "value": int(wanted)}]}
            ],
        }
        for state, (series, wanted) in STATES.items()
    ]
    promtool(tmp_path, tests)
