"""A real Prometheus scrapes a real run, and has data for every panel."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/journey")]
from harness import Running  # noqa: E402

PORT = 9191
SILENT = {"Versions refused", "Retries", "Calls refused", "Spans", "Handed back", "Guided and pruned"}
SILENT |= {"Second looks", "Errors of a check", "Reward without the hidden check"}
"""What does not happen in a good run, or in this one: no series, which is the answer wanted."""
NOTHING_NOW = {"Time of a call"}
"""Quantiles of what did not happen in the last half minute: no number that could be drawn."""


def filled(query: str) -> str:
    """A query with the dashboards' variables put in; of this run no namespace is scraped."""
    return query.replace("$__rate_interval", "30s").replace("$run", "small").replace("$namespace", ".*")


def ask(query: str) -> list:
    """What Prometheus answers; nothing while it does not listen yet."""
    url = f"http://127.0.0.1:{PORT}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.URLError:
        return []


@pytest.mark.long
def test_a_real_prometheus_has_data_for_every_panel(tmp_path):
    panels = {
        (board["uid"], panel["title"], filled(target["expr"]))
        for board in (json.loads(path.read_text()) for path in (ROOT / "grafana/dashboards").glob("*.json"))
        for panel in board["panels"]
        for target in panel["targets"]
    }
    with Running(tmp_path / "run", {"learning.steps": 100000, "evaluate.prompts": 2, "data.held_out": 8}) as run:
        run.until(lambda view: view.step >= 1, "a step", 400)
        command = [sys.executable, "grafana/observe.py", str(run.directory), "--port", str(PORT)]
        observer = subprocess.Popen(
            command, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT}/proto", "PATH": "/usr/bin:/bin"}
        )
        try:
            deadline = time.monotonic() + 180
            missing = panels
            while missing and time.monotonic() < deadline:
                time.sleep(5)
                missing = {one for one in missing if one[1] not in SILENT and not ask(one[2])}
            assert missing == set()
            drawn = tmp_path / "panels.html"
            command = [sys.executable, "grafana/draw.py", str(drawn), "--prometheus", f"http://localhost:{PORT}"]
            subprocess.run(command, cwd=ROOT, check=True, timeout=120)
            cards = drawn.read_text().split('<div class="card">')[1:]
            empty = {card.split("<h3>")[1].split("</h3>")[0] for card in cards if "<svg" not in card}
            assert len(cards) == len({(p[0], p[1]) for p in panels}) and empty <= SILENT | NOTHING_NOW
        finally:
            observer.terminate()
            observer.wait(20)
        assert ask("up") == []  # Prometheus has ended with it
