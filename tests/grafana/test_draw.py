"""The page of panels: what a person does wrong is one sentence; what it draws is looked at in test_observe."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report import svg

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def listening(found: list[str]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a Prometheus that knows of the runs `found` and no values, and what it is asked."""
    asked: list[dict[str, str]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            asked.append(dict(urllib.parse.parse_qsl(query)))
            data = found if path.endswith("/values") else {"result": []}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": data}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def draw(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "grafana/draw.py", str(page), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("chosen", "pattern"), [((), ".*"), (("--namespace", "rl"), "rl")])
def test_a_panel_asks_for_the_run_in_the_namespace_that_is_chosen_or_in_every_one(tmp_path, chosen, pattern):
    with listening(["spell"]) as (address, asked):
        done = draw(tmp_path / "panels.html", "--prometheus", address, *chosen)
    assert done.returncode == 0, done.stderr
    known, *queries = asked
    assert known["match[]"] == f'sluice_stage_busy_seconds_total{{namespace=~"{pattern}"}}'
    assert queries and all(f'run="spell",namespace=~"{pattern}"' in one["query"] for one in queries)
    assert not [one["query"] for one in queries if "$" in one["query"]]


def test_a_namespace_without_a_run_is_one_sentence(tmp_path):
    with listening([]) as (address, _):
        done = draw(tmp_path / "panels.html", "--prometheus", address, "--namespace", "rl")
    assert (done.returncode, done.stderr) == (2, "sluice: --run is ''; accepted: none, it knows no run there yet\n")


def test_a_prometheus_that_is_not_there_is_one_sentence_and_no_page(tmp_path):
    page = tmp_path / "panels.html"
    done = draw(page, "--prometheus", "http://127.0.0.1:9")
    assert done.returncode == 2 and not page.exists()
    assert done.stderr.startswith("sluice: http://127.0.0.1:9 does not answer as a Prometheus does: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ((0.0, 4.0), (">0<", ">4<")),
        ((-4.0, 4.0), (">-4<", ">0<", ">4<")),
        ((-4.0, -2.0), (">-4<", ">0<")),
        ((0.0, 0.0), (">0<", ">1<")),
    ],
)
def test_the_axis_of_a_plot_holds_every_value(values, marks):
    plot = svg.lines([svg.Line("a", list(enumerate(values)), "red")], "step")
    assert all(mark in plot for mark in marks)
    heights = [float(pair.split(",")[1]) for pair in plot.split('points="')[1].split('"')[0].split()]
    assert all(svg.TOP <= height <= svg.TOP + svg.INNER_H for height in heights)
