"""Fills the page: facts and tables as plain data, then one template with everything escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from pipeline.report.charts import charts
from pipeline.report.data import RunData
from pipeline.report.second_looks import second_looks
from pipeline.report.svg import compact, percent

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def render(run: RunData) -> str:
    """The report as one HTML document: no script, nothing loaded from elsewhere, every text escaped."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, trim_blocks=True)
    environment.filters["share"] = lambda value: "" if value is None else f"{value:.3f}"
    return environment.get_template(TEMPLATE.name).render(
        run=run,
        summary=run.summary,
        title=run.summary.get("run", "run"),
        facts=facts(run),
        evaluations=evaluations(run.summary),
        charts=charts(run),
        audit=audit_numbers(run.audit),
        clean=is_clean(run.audit),
        looks=second_looks(run),
    )


def facts(run: RunData) -> list[tuple[str, str, str]]:
    """The tiles at the top: (heading, value, what it means), for what the summary holds."""
    summary = run.summary
    before, after = headline(summary.get("eval_before", {})), headline(summary.get("eval_after", {}))
    known = [
        ("Held-out accuracy", f"{_share(before)} \u2192 {_share(after)}", "before and after"),
        ("Steps", _number(summary.get("steps")), "optimiser steps that stand"),
        (
            "Rollouts trained",
            _number(summary.get("rollouts_trained")),
            f"{_rate(summary, 'rollouts_per_s')} per second",
        ),
        ("Wall time", _duration(summary.get("wall_s")), f"{_rate(summary, 'tokens_per_s')} tokens per second"),
        ("Mean lag", _number(summary.get("lag_mean")), f"versions; at most {_number(summary.get('lag_max'))}"),
        ("Overlap", _share(summary.get("overlap")), "of the time sampling and training together"),
    ]
    return [fact for fact in known if fact[1].strip(" \u2192\u2013")]


def headline(evaluation: dict[str, Any]) -> float | None:
    """The number that stands for an evaluation: mean@n, else pass@1."""
    names = sorted((name for name in evaluation if name.startswith("mean@")), key=len) + ["pass@1"]
    return next((evaluation[name] for name in names if name in evaluation), None)


ALWAYS_SHOWN = ("requested", "trained", "in_flight", "lost", "trained_twice", "problems")
"""Numbers of the audit that are shown when they are 0, too."""


def evaluations(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the accuracy table: (metric, before, after)."""
    before, after = summary.get("eval_before", {}), summary.get("eval_after", {})
    names = sorted(dict.fromkeys([*before, *after]), key=_place)
    return [(name, _metric(name, before.get(name)), _metric(name, after.get(name))) for name in names]


def _place(name: str) -> tuple[int, int]:
    """Accuracies first, by how many samples they are of; then what describes the evaluation."""
    kind, _, samples = name.partition("@")
    return ("mean", "pass", "greedy").index(kind) if samples or kind == "greedy" else 3, int(samples or 0)


def audit_numbers(audit: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, how many) of the account: numbers as they are, lists by their length, tables as their entries."""
    found: list[tuple[str, str]] = []
    for name, value in audit.items():
        heading = name.replace("_", " ")
        if isinstance(value, bool) or value is None:
            continue
        if not value and name not in ALWAYS_SHOWN:
            continue
        if isinstance(value, dict):
            found += [(f"{heading}: {key}", _number(n)) for key, n in value.items() if isinstance(n, int | float)]
        elif isinstance(value, int | float | list):
            found.append((heading, _number(len(value) if isinstance(value, list) else value)))
    return found


def is_clean(audit: dict[str, Any]) -> bool | None:
    """Nothing lost, nothing trained twice, no contradiction; None without an audit."""
    if not audit:
        return None
    return bool(audit.get("clean", True)) and not any(audit.get(name) for name in ("lost", "trained_twice"))


def _metric(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    is_share = name == "greedy" or name.startswith(("mean@", "pass@"))
    return f"{value:.1%}" if is_share else _number(value)


def _share(value: Any) -> str:
    return percent(value) if isinstance(value, int | float) else "\u2013"


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:,}" if isinstance(value, int) else compact(round(value, 3))


def _rate(summary: dict[str, Any], name: str) -> str:
    value = summary.get(name)
    return f"{value:,.0f}" if isinstance(value, int | float) else "\u2013"


def _duration(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
