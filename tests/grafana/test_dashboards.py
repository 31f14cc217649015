"""Dashboards and alerts: generated, parsed, about declared metrics only; each alert fires and is quiet by promtool."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml

from pipeline import cli
from pipeline.metrics import METRICS
from pipeline.tally import HISTOGRAM

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
ALERTS = Path(__file__).parent / "alerts.yaml"
RULES = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"][0]["rules"]
RUNBOOKS = sorted((GRAFANA / "runbooks").glob("*.md"))
DECLARED = {
    metric.name + end: metric
    for metric in METRICS
    for end in (("_bucket", "_sum", "_count") if metric.kind == HISTOGRAM else ("",))
}

RUN_IS = (
    "\n`RUN` is the run's directory; on a cluster, "
    "`kubectl exec NAME-learning-0 -- sluice ... /var/lib/sluice` asks the learner's.\n"
)


def queries() -> list[tuple[str, str, str]]:
    """(board, panel, query) of every target."""
    return [
        (uid, panel["title"], target["expr"])
        for uid, board in BOARDS.items()
        for panel in board["panels"]
        for target in panel["targets"]
    ]


def filled(query: str, run: str = "r") -> str:
    return query.replace("$__rate_interval", "1m").replace("$run", run).replace("$namespace", ".*")


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """(metric, labels) that a query names."""
    promql_parser.parse(query)
    found = re.findall(r"(sluice_\w+)(?:\{([^}]*)\})?", query)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))) for name, labels in found]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        say = pytest.fail if "promtool" in os.environ.get("SLUICE_REQUIRE", "") else pytest.skip
        say("'promtool' is not installed; Debian's package prometheus brings it")
    return subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_dashboards_are_what_the_code_makes():
    sys.path.insert(0, str(GRAFANA))
    import write_dashboards

    made = write_dashboards.files()
    assert {file.name: file.read_text() for file in made} == {file.name: text for file, text in made.items()}
    assert set(BOARDS) == {file.stem for file in made}


@pytest.mark.parametrize(("board", "panel", "query"), queries())
def test_a_query_parses_and_names_declared_metrics_with_their_labels(board, panel, query):
    for name, labels in selectors(filled(query)):
        assert name in DECLARED, name
        assert labels <= {*DECLARED[name].labels, "namespace", "run", "service", "le"}, (name, labels)


def test_every_declared_metric_is_on_some_panel():
    shown = {DECLARED[name].name for _, _, query in queries() for name, _ in selectors(filled(query))}
    assert {metric.name for metric in METRICS} - shown == set()


def test_every_panel_asks_the_chosen_source_for_the_chosen_run_of_the_chosen_namespace():
    for uid, board in BOARDS.items():
        assert board["uid"] == f"sluice-{uid}"
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace", "run"]
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]
            named = [name for target in panel["targets"] for name in selectors(filled(target["expr"]))]
            assert named and all({"run", "namespace"} <= labels for _, labels in named)


def test_all_namespaces_are_chosen_at_first_and_match_where_the_label_was_never_scraped():
    for board in BOARDS.values():
        _, namespace, run = board["templating"]["list"]
        assert namespace["includeAll"] and namespace["current"]["value"] == "$__all"
        assert re.fullmatch(namespace["allValue"], "") is not None
        assert run["query"] == 'label_values(sluice_stage_busy_seconds_total{namespace=~"$namespace"}, run)'


def test_exemplars_are_drawn_where_a_histograms_quantiles_are_and_nowhere_else():
    for board in BOARDS.values():
        for panel in board["panels"]:
            drawn = [target.get("exemplar", False) for target in panel["targets"]]
            assert drawn == ["histogram_quantile" in target["expr"] for target in panel["targets"]], panel["title"]


def test_every_panel_says_itself_what_it_shows():
    assert not [panel for board in BOARDS.values() for panel in board["panels"] if ".py" in panel["description"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_declared_metrics_and_has_a_runbook_and_two_tests(rule):
    for name, labels in selectors(rule["expr"]):
        assert name in DECLARED, name
        assert labels <= {*DECLARED[name].labels, "run", "service"}
    assert (ROOT / rule["annotations"]["runbook"]).read_text().startswith(f"# {rule['alert']}\n")
    tested = {one["name"] for one in yaml.safe_load(ALERTS.read_text())["tests"]}
    assert {f"{rule['alert']} fires", f"{rule['alert']} is quiet"} <= tested


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_holds_runs_of_one_name_in_two_namespaces_apart(rule):
    folds = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
    assert all({"namespace", "run"} <= set(fold.split(", ")) for fold in folds)
    assert "without" not in rule["expr"] and "ignoring" not in rule["expr"]
    assert not re.search(r"\b(?:sum|max|min|count|group|avg)\s*\(", rule["expr"]), "a fold over every run"
    assert "{{ with $labels.namespace }}{{ . }}/{{ end }}{{ $labels.run }}" in rule["annotations"]["summary"]


def test_every_alert_fires_where_it_should_and_nowhere_else():
    done = promtool("test", "rules", "tests/grafana/alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_runbook_is_without_its_alert():
    assert {path.stem for path in RUNBOOKS} == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda path: path.stem)
def test_the_commands_of_a_runbook_are_such_as_sluice_takes(runbook):
    told = re.findall(r"`sluice ([^`]*)`", runbook.read_text().removesuffix(RUN_IS))
    for command in told:
        cli._parser().parse_args(re.sub(r"\bN\b", "7", command).split())


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_whose_commands_name_a_run_says_what_that_is_on_a_cluster(runbook):
    text = runbook.read_text()
    assert text.endswith(RUN_IS) == ("RUN" in text.removesuffix(RUN_IS)), runbook
