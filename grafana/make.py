"""Writes the dashboards: `python grafana/make.py`; a test holds the files to it.

Overview: does it learn, how fast, what is the bottleneck. Flow: who waits for whom. One for each service; SLOs.
Every query names declared metrics only (`pipeline/metrics.py`), and every declared metric is on some panel.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUN = 'run="$run"'
INFRA = 'outcome="infra_error"'
WIDTH, HEIGHT = 12, 8


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

BOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "overview": ("Overview", (STEP, ACCURACY, ROLLOUTS, WAITS, LAG, DROPS, OUTCOMES, BUSY)),
    "flow": (
        "Flow",
        (
            WAITS,
            BUSY,
            BACKLOG,
            LAG,
            Panel(
                "Staleness, all of it",
                "Rollouts trained, by versions behind.",
                "short",
                (
                    (
                        f"sum by (le) (increase(sluice_learning_lag_versions_bucket{{{RUN}}}[$__rate_interval]))",
                        "{{le}}",
                    ),
                ),
                "heat",
            ),
            Panel(
                "Gate",
                "Rollouts out, and places free.",
                "short",
                ((gauge("sluice_difficulty_outstanding"), "out"), (gauge("sluice_difficulty_room"), "free")),
            ),
            VERSIONS,
            APPLY,
            one(
                "In flight",
                "Records taken and not finished.",
                "short",
                gauge("sluice_stage_in_flight", fold="sum"),
                "{{service}}",
            ),
            one(
                "Buffered groups",
                "In the learner.",
                "short",
                gauge("sluice_learning_buffered_groups", "where"),
                "{{where}}",
            ),
            one(
                "Records",
                "Read a second.",
                "short",
                rate("sluice_stage_records_total", "topic, result"),
                "{{topic}} {{result}}",
            ),
            one("Written", "Records a second.", "short", rate("sluice_stage_sent_total", "topic"), "{{topic}}"),
            one("Written bytes", "A second.", "Bps", rate("sluice_stage_sent_bytes_total", "topic"), "{{topic}}"),
            one(
                "CPU of log and codec",
                "Cores.",
                "short",
                rate("sluice_log_cpu_seconds_total", "service"),
                "{{service}}",
            ),
        ),
    ),
    "generation": (
        "Generation",
        (
            one(
                "Tokens a second",
                "Of each worker.",
                "short",
                rate("sluice_generation_tokens_total", "instance"),
                "{{instance}}",
            ),
            one(
                "Rollouts",
                "Ended a second, by how.",
                "short",
                rate("sluice_generation_rollouts_total", "ending"),
                "{{ending}}",
            ),
            one(
                "Running",
                "Sequences in the engines.",
                "short",
                gauge("sluice_generation_running", "instance"),
                "{{instance}}",
            ),
            Panel("Length", "Tokens of a rollout.", "short", quantiles("sluice_generation_response_tokens")),
            VERSIONS,
            APPLY,
            Panel("Standing still", "For new weights.", "s", quantiles("sluice_generation_apply_seconds")),
            one("Size of a version", "On the log.", "bytes", gauge("sluice_generation_weights_bytes")),
            one(
                "Density",
                "Changed values of a version.",
                "percentunit",
                gauge("sluice_generation_weights_density_ratio"),
            ),
            one(
                "Versions refused",
                "A second.",
                "short",
                rate("sluice_generation_weights_refused_total", "reason"),
                "{{reason}}",
            ),
        ),
    ),
    "verification": (
        "Verification",
        (
            OUTCOMES,
            one(
                "Checks",
                "Verdicts a second.",
                "short",
                rate("sluice_verification_verdicts_total", "check"),
                "{{check}}",
            ),
            Panel("Time of a check", "Wall time.", "s", quantiles("sluice_verification_seconds", "check")),
            one("Retries", "A second.", "short", rate("sluice_verification_retries_total", "reason"), "{{reason}}"),
            BACKLOG,
        ),
    ),
    "difficulty": (
        "Difficulty",
        (
            one("Prompts", "Known.", "short", gauge("sluice_difficulty_prompts"), "prompts", "number"),
            one(
                "Beliefs",
                "Share of prompts.",
                "percentunit",
                gauge("sluice_difficulty_believed_share", "belief"),
                "{{belief}}",
            ),
            one("Entropy", "Mean of the posteriors, nats.", "short", gauge("sluice_difficulty_entropy_nats")),
            one("Requests", "A second.", "short", rate("sluice_difficulty_requests_total")),
            one("Informative share", "See pipeline/metrics.py.", "short", gauge("sluice_difficulty_informative_share")),
            one(
                "Calibration error ratio",
                "See pipeline/metrics.py.",
                "short",
                gauge("sluice_difficulty_calibration_error_ratio"),
            ),
            one("Brier ratio", "See pipeline/metrics.py.", "short", gauge("sluice_difficulty_brier_ratio")),
            Panel(
                "Restore",
                "Time to fold the posterior.",
                "s",
                ((f"sluice_difficulty_restore_seconds_sum{{{RUN}}}", "seconds"),),
            ),
        ),
    ),
    "learning": (
        "Learning",
        (
            ACCURACY,
            one("Reward", "Mean.", "short", learned("reward_mean")),
            one("Loss", "Of the last step.", "short", learned("loss")),
            ESS,
            Panel(
                "Ratios", "Quantiles.", "short", tuple((learned(f"ratio_p{q}"), f"p{q}") for q in ("01", "50", "99"))
            ),
            GAP,
            one("KL from the behaviour policy", "Nats a token.", "short", learned("kl")),
            one("Entropy", "Nats a token.", "short", learned("entropy")),
            one("Clipped", "Share of tokens.", "percentunit", learned("clip_share")),
            Panel("Time of a step", "Optimiser steps.", "s", quantiles("sluice_learning_step_seconds")),
            one("Tokens a second", "Trained.", "short", rate("sluice_learning_tokens_total")),
            DROPS,
            one("Steps", "A second.", "short", rate("sluice_learning_step_seconds_count")),
        ),
    ),
    "slos": (
        "SLOs",
        (
            one(
                "Freshness",
                "Share of trained rollouts within 4 versions.",
                "percentunit",
                f'sum(rate(sluice_learning_lag_versions_bucket{{{RUN},le="4.0"}}[$__rate_interval]))'
                f" / sum(rate(sluice_learning_lag_versions_count{{{RUN}}}[$__rate_interval]))",
            ),
            one(
                "Checks of ours that fail",
                "Bound: 1 %.",
                "percentunit",
                f"({rate('sluice_verification_verdicts_total', where=INFRA)} or vector(0))"
                f" / sum(rate(sluice_verification_verdicts_total{{{RUN}}}[$__rate_interval]))",
            ),
            one(
                "Since the last progress",
                "Of the slowest worker.",
                "s",
                f"time() - min by (service) (sluice_stage_progress_timestamp_seconds{{{RUN}}})",
                "{{service}}",
            ),
            one(
                "Age of the checkpoint",
                "The newest.",
                "s",
                f"time() - max(sluice_learning_checkpoint_timestamp_seconds{{{RUN}}})",
            ),
            one(
                "Versions behind",
                "The last worker; the bound is max_lag.",
                "short",
                f"max(sluice_learning_version{{{RUN}}}) - min(sluice_generation_version{{{RUN}}})",
            ),
            one("Bound", "max_lag.", "short", gauge("sluice_learning_max_lag"), "max_lag", "number"),
            one(
                "States",
                "Workers in each.",
                "short",
                gauge("sluice_stage_state_info", "service, state", fold="sum"),
                "{{service}} {{state}}",
            ),
            Panel("Commits", "Time of a transaction.", "s", quantiles("sluice_stage_transaction_seconds")),
            one(
                "Transactions",
                "A second, by result.",
                "short",
                rate("sluice_stage_transactions_total", "result"),
                "{{result}}",
            ),
            one(
                "Calls",
                "gRPC, a second.",
                "short",
                rate("sluice_stage_calls_total", "method, code"),
                "{{method}} {{code}}",
            ),
            Panel("Time of a call", "gRPC.", "s", quantiles("sluice_stage_call_seconds")),
            one(
                "Calls refused", "A second.", "short", rate("sluice_stage_calls_refused_total", "reason"), "{{reason}}"
            ),
            one(
                "Dead letters",
                "A second.",
                "short",
                rate("sluice_stage_records_total", "service", 'result="dead_lettered"'),
                "{{service}}",
            ),
        ),
    ),
}


def build(uid: str, title: str, panels: Sequence[Panel]) -> dashboard.Dashboard:
    """A dashboard: two panels in a row, a variable for the data source and one for the run."""
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    run = (
        dashboard.QueryVariable("run")
        .label("Run")
        .datasource(SOURCE)
        .query("label_values(sluice_stage_progress_timestamp_seconds, run)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
    made = (
        dashboard.Dashboard(f"Sluice: {title}")
        .uid(f"sluice-{uid}")
        .tags(["sluice"])
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(source)
        .with_variable(run)
    )
    for panel in panels:
        made = made.with_panel(drawn(panel))
    return made


def drawn(panel: Panel) -> timeseries.Panel | stat.Panel | heatmap.Panel:
    """A panel for Grafana."""
    made = {"lines": timeseries.Panel, "number": stat.Panel, "heat": heatmap.Panel}[panel.kind]()
    made = (
        made.title(panel.title).description(panel.says).unit(panel.unit).datasource(SOURCE).span(WIDTH).height(HEIGHT)
    )
    for number, (query, legend) in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query).legend_format(legend or panel.title).ref_id(chr(ord("A") + number))
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
