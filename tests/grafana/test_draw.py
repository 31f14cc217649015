"""The page of panels: what a person does wrong is one sentence; what it draws is looked at in test_observe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.report import svg

ROOT = Path(__file__).parents[2]


def test_a_prometheus_that_is_not_there_is_one_sentence_and_no_page(tmp_path):
    page = tmp_path / "panels.html"
    command = [sys.executable, "grafana/draw.py", str(page), "--prometheus", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
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
