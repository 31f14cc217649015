"""The dashboards as one page, where there is no Grafana: `python grafana/draw.py PAGE.html`.

Every panel's queries are put to the Prometheus of `make observe`, or to another, over the last minutes, and drawn as
the report draws; a panel whose queries find nothing says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boards import BOARDS
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from panels import Panel

from pipeline.errors import UserError
from pipeline.report import svg
from pipeline.report.charts import colour

HERE = Path(__file__).parent
COLOURS = 7
POINTS = 120
"""Points of a line, about."""
FEW = 3
"""Fewer points than these are drawn as dots: one point alone is no line."""


@dataclass(frozen=True)
class Source:
    """A Prometheus, the run that is asked for, its namespace (a pattern), how far back, a rate's window, seconds."""

    address: str
    run: str
    namespace: str
    back: float
    rate: float

    def ask(self, path: str, **query: object) -> list:
        """What it answers. Raises `UserError` when it does not."""
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                data = json.load(answer)["data"]
                return data["result"] if isinstance(data, dict) else list(data)
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            raise UserError(f"{self.address} does not answer as a Prometheus does: {error}") from error

    def filled(self, query: str, window: float) -> str:
        """A query with the dashboards' variables put in.

        >>> Source("", "spell", "rl", 600, 30).filled('m{run="$run",namespace=~"$namespace"}[$__rate_interval]', 30)
        'm{run="spell",namespace=~"rl"}[30s]'
        """
        for name, value in (("__rate_interval", f"{window:.0f}s"), ("run", self.run), ("namespace", self.namespace)):
            query = query.replace(f"${name}", value)
        return query

    def lines(self, panel: Panel) -> list[svg.Line]:
        """Every series of a panel: (minutes, value), minutes up to 0, which is now."""
        now = time.time()
        found: list[tuple[str, list[svg.Point]]] = []
        every = max(2.0, self.back / POINTS)
        for query, legend in panel.queries:
            text = self.filled(query, max(self.rate, every))
            for series in self.ask("query_range", query=text, start=now - self.back, end=now, step=every):
                points = [((at - now) / 60, float(value)) for at, value in series["values"]]
                name = named(legend or panel.title, series["metric"])
                kept = [point for point in points if math.isfinite(point[1])]
                found.append((name, kept))
        if panel.kind == "heat":
            found.sort(key=lambda one: float(one[0]))  # a bucket is named by its upper end
        some = [(name, points) for name, points in found if points]
        return [
            svg.Line(name, points, colour(number % COLOURS + 1), dots=len(points) < FEW)
            for number, (name, points) in enumerate(some)
        ]


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with its labels filled in.

    >>> named("{{service}} {{way}}", {"service": "learning", "way": "in"})
    'learning in'
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip()


def written(unit: str) -> Callable[[float], str]:
    """How a value of Grafana's unit is written."""
    if unit == "percentunit":
        return svg.percent
    return lambda value: f"{svg.compact(value)} {unit}" if unit in ("s", "Bps", "bytes") else svg.compact(value)


def drawn(source: Source, panel: Panel) -> dict[str, object]:
    """A panel for the page. A heat map is drawn as lines, one for each of its buckets; a number as its line."""
    lines = source.lines(panel)
    plot = svg.lines(lines, "minutes", written(panel.unit)) if lines else Markup("")
    return {"title": panel.title, "says": panel.says, "plot": plot, "legend": [(one.name, one.colour) for one in lines]}


def page(source: Source) -> str:
    """The page."""
    folders = [HERE, HERE.parent / "pipeline/report"]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, trim_blocks=True)
    boards = [(title, [drawn(source, panel) for panel in panels]) for title, panels in BOARDS.values()]
    return environment.get_template("panels.html.jinja").render(boards=boards, run=source.run)


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description="The dashboards as one page, from a Prometheus.")
    parser.add_argument("page", type=Path, help="the file that is written")
    parser.add_argument("--prometheus", default="http://localhost:9099", help="its address")
    parser.add_argument("--run", default="", help="the run; the one that it knows when there is one")
    parser.add_argument("--namespace", default=".*", help="the run's namespace, as a pattern; every one by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="how far back")
    parser.add_argument("--rate", type=float, default=30.0, help="seconds that a rate is taken over: four scrapes")
    args = parser.parse_args()
    try:
        if not args.page.absolute().parent.is_dir():
            raise UserError(f"page {str(args.page)!r} is in no folder; accepted: a file in a folder that exists")
        source = Source(args.prometheus.rstrip("/"), args.run, args.namespace, args.minutes * 60, args.rate)
        known = f'sluice_stage_busy_seconds_total{{namespace=~"{args.namespace}"}}'
        runs = source.ask("label/run/values", **{"match[]": known})
        if (args.run or len(runs) != 1) and args.run not in runs:
            raise UserError(f"--run is {args.run!r}; accepted: {', '.join(runs) or 'none, it knows no run there yet'}")
        args.page.write_text(page(dataclasses.replace(source, run=args.run or runs[0])))
    except UserError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 2
    print(f"{args.page} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
