"""Writes the dashboards: `python grafana/write_dashboards.py`; a test holds the files to it.

What is on them is in `boards.py`. Every query names declared metrics only (`pipeline/metrics.py`), and every declared
metric is on some panel.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from boards import BOARDS
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh
from panels import Panel

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 12, 8


def build(uid: str, title: str, panels: Sequence[Panel]) -> dashboard.Dashboard:
    """A dashboard: two panels in a row, variables for the data source, the namespace or all, and the run."""
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    everything = VariableOption(text="All", value="$__all", selected=True)
    namespace = values_of("namespace").include_all(True).all_value(".*").current(everything)
    run = values_of("run", '{namespace=~"$namespace"}')
    made = (
        dashboard.Dashboard(f"Sluice: {title}")
        .uid(f"sluice-{uid}")
        .tags(["sluice"])
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(source)
        .with_variable(namespace)
        .with_variable(run)
    )
    for panel in panels:
        made = made.with_panel(drawn(panel))
    return made


def values_of(label: str, where: str = "") -> dashboard.QueryVariable:
    """A variable for a label of the runs that were scraped."""
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values(sluice_stage_busy_seconds_total{where}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def drawn(panel: Panel) -> timeseries.Panel | stat.Panel | heatmap.Panel:
    """A panel for Grafana."""
    made = {"lines": timeseries.Panel, "number": stat.Panel, "heat": heatmap.Panel}[panel.kind]()
    made = (
        made.title(panel.title).description(panel.says).unit(panel.unit).datasource(SOURCE).span(WIDTH).height(HEIGHT)
    )
    for number, (query, legend) in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query).legend_format(legend or panel.title).ref_id(chr(ord("A") + number))
        if "_bucket{" in query and panel.kind == "lines":  # only a histogram's buckets have exemplars: trace ids
            target = target.exemplar(True)
        made = made.with_target(target.format("heatmap") if panel.kind == "heat" else target)
    return made


def files() -> dict[Path, str]:
    """Every dashboard as JSON."""
    return {
        FOLDER / f"{uid}.json": JSONEncoder(sort_keys=True, indent=1).encode(build(uid, title, panels).build()) + "\n"
        for uid, (title, panels) in BOARDS.items()
    }


def main() -> int:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for file, text in files().items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
