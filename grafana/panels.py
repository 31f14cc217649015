"""A panel, and the queries that panels are made of. Every query names declared metrics only."""

from __future__ import annotations

from dataclasses import dataclass

RUN = 'run="$run",namespace=~"$namespace"'
"""Two namespaces may have a run of one name. "All" is .*, which also matches where no `namespace` was scraped."""


@dataclass(frozen=True)
class Panel:
    """One panel: queries as (PromQL, legend). `kind`: lines, number or heat."""

    title: str
    says: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "lines"


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Sum of a counter's rate."""
    labels = ",".join(part for part in (RUN, where) if part)
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def gauge(metric: str, by: str = "service", where: str = "", fold: str = "max") -> str:
    """A gauge over its workers."""
    labels = ",".join(part for part in (RUN, where) if part)
    return f"{fold} by ({by}) ({metric}{{{labels}}})"


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 95th percentile of a histogram."""
    keep = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    buckets = f"sum by ({keep}) (rate({metric}_bucket{{{RUN}}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {buckets})", f"p{round(q * 100)}{legend}") for q in (0.5, 0.95))


def mean(metric: str) -> str:
    """Mean of a histogram."""
    total = " / ".join(f"sum(rate({metric}_{end}{{{RUN}}}[$__rate_interval]))" for end in ("sum", "count"))
    return total


def one(title: str, says: str, unit: str, query: str, legend: str = "", kind: str = "lines") -> Panel:
    """A panel of one query."""
    return Panel(title, says, unit, ((query, legend),), kind)


def looked(error: str, right: str) -> str:
    """Rate of one kind of error among an hour's second looks."""
    counted, metric = 'sum by (check) (increase({}{{{},found=~"{}"}}[1h]))', "sluice_verification_second_looks_total"
    return f"{counted.format(metric, RUN, error)} / {counted.format(metric, RUN, f'{error}|{right}')}"


def learned(name: str) -> str:
    """A number of the last step."""
    return f'sluice_learning_stat{{{RUN},name="{name}"}}'


ACCURACY = one("Accuracy", "Of the rollouts trained on.", "percentunit", mean("sluice_learning_accuracy_ratio"))
STEP = one("Step", "Optimiser steps done.", "short", gauge("sluice_learning_step"), "step", "number")
ROLLOUTS = Panel(
    "Rollouts a second",
    "Asked for, said, checked, trained: where a line falls away from the one before, there is the bottleneck.",
    "short",
    (
        (rate("sluice_difficulty_rollouts_requested_total"), "asked for"),
        (rate("sluice_generation_rollouts_total"), "said"),
        (rate("sluice_verification_verdicts_total"), "checked"),
        (rate("sluice_learning_rollouts_total"), "trained"),
    ),
)
WAITS = one(
    "Who waits for whom",
    "Share of time that a worker of a service waited, by what for: the service that never waits is the bottleneck.",
    "percentunit",
    f"avg by (service, reason) (rate(sluice_stage_wait_seconds_total{{{RUN}}}[$__rate_interval]))",
    "{{service}}: {{reason}}",
)
BUSY = one(
    "Busy",
    "Share of time that a worker worked.",
    "percentunit",
    f"avg by (service) (rate(sluice_stage_busy_seconds_total{{{RUN}}}[$__rate_interval]))",
    "{{service}}",
)
LAG = Panel(
    "Staleness", "Versions behind, of rollouts when trained.", "short", quantiles("sluice_learning_lag_versions")
)
DROPS = one("Drops", "Rollouts dropped a second.", "short", rate("sluice_learning_drops_total", "reason"), "{{reason}}")
BACKLOG = one("Backlog", "Records that wait.", "short", gauge("sluice_stage_backlog", "service, topic"), "{{topic}}")
VERSIONS = Panel(
    "Versions",
    "In force, and applied by each rollout worker.",
    "short",
    (
        (gauge("sluice_learning_version"), "learning"),
        (gauge("sluice_generation_version", "instance"), "{{instance}}"),
    ),
)
APPLY = Panel(
    "Publish to apply",
    "Age of a version when a worker applied it.",
    "s",
    quantiles("sluice_generation_publish_to_apply_seconds"),
)
OUTCOMES = one(
    "Verdicts", "A second, by outcome.", "short", rate("sluice_verification_verdicts_total", "outcome"), "{{outcome}}"
)
ESS = one("Effective sample size", "Of the importance ratios, share of tokens.", "percentunit", learned("ess"))
GAP = one("Engine and trainer", "Gap of log-probs under the same weights, nats.", "short", learned("logprob_gap_mean"))
