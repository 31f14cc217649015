"""The dashboards, panel by panel.

Overview: does it learn, how fast, what is the bottleneck. Flow: who waits for whom. One for each service; SLOs.
"""

from __future__ import annotations

from panels import (
    ACCURACY,
    APPLY,
    BACKLOG,
    BUSY,
    DROPS,
    ESS,
    GAP,
    LAG,
    OUTCOMES,
    ROLLOUTS,
    RUN,
    STEP,
    VERSIONS,
    WAITS,
    Panel,
    gauge,
    learned,
    looked,
    one,
    quantiles,
    rate,
)

INFRA = 'outcome="infra_error"'
OBSERVED, PREDICTED = 'of="observed"', 'of="predicted"'
STALE = 'reason="stale"'
TRAINED = rate("sluice_learning_rollouts_total")

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
            Panel(
                "Running",
                "Sequences in the engines, and how many each lets in.",
                "short",
                (
                    (gauge("sluice_generation_running", "instance"), "{{instance}}"),
                    (gauge("sluice_generation_admitted", "instance"), "{{instance}} at most"),
                ),
            ),
            Panel(
                "Lag at the start",
                "Versions behind the newest one heard of, of requests when they were begun.",
                "short",
                quantiles("sluice_generation_lag_versions"),
            ),
            one(
                "Engines",
                "Replicas of a worker that live.",
                "short",
                gauge("sluice_generation_replicas", "instance"),
                "{{instance}}",
            ),
            one(
                "Key-value cache",
                "Share in use.",
                "percentunit",
                gauge("sluice_generation_kv_used_ratio", "instance"),
                "{{instance}}",
            ),
            one(
                "Handed back",
                "Requests a second given to another worker, by what they lacked here.",
                "short",
                rate("sluice_generation_handed_back_total", "reason"),
                "{{reason}}",
            ),
            Panel(
                "Guided and pruned",
                "Rollouts a second: with guidance in their context, by its kind; ended early.",
                "short",
                (
                    (rate("sluice_generation_guided_total", "kind"), "{{kind}}"),
                    (rate("sluice_generation_pruned_total"), "pruned"),
                ),
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
            Panel(
                "Errors of a check",
                "Of an hour's second looks: wrong answers accepted, of the wrong; right ones rejected, of the right.",
                "percentunit",
                (
                    (looked("false_positive", "true_negative"), "false positives {{check}}"),
                    (looked("false_negative", "true_positive"), "false negatives {{check}}"),
                ),
            ),
            one(
                "Second looks",
                "Verdicts a second, by what the first check is beside the stronger one.",
                "short",
                rate("sluice_verification_second_looks_total", "found"),
                "{{found}}",
            ),
            one(
                "Reward without the hidden check",
                "Standard errors by which both the reward and its gap to the hidden check have risen; alarm above 4.",
                "short",
                gauge("sluice_verification_reward_drift_sigmas", "instance"),
                "{{instance}}",
            ),
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
            Panel(
                "Lag of outcomes",
                "Versions behind the newest one heard of, of rollouts whose outcome is observed.",
                "short",
                quantiles("sluice_difficulty_lag_versions"),
            ),
            one(
                "Informative share",
                "Groups with right and wrong answers, since difficulty started: as believed at issue, as came back.",
                "percentunit",
                gauge("sluice_difficulty_informative_share", "of"),
                "{{of}}",
            ),
            one(
                "Calibration error",
                "Mean distance of the observed pass rate from the predicted, by tenths of it; 0: beliefs are true.",
                "short",
                gauge("sluice_difficulty_calibration_error_ratio"),
            ),
            one(
                "Brier score",
                "Mean squared distance of a predicted pass rate from the outcome; saying one half always gets 0.25.",
                "short",
                gauge("sluice_difficulty_brier_ratio"),
            ),
            one(
                "Calibration by tenth",
                "Observed less predicted pass rate, by tenth of the predicted; above 0: better than was believed.",
                "short",
                f"{gauge('sluice_difficulty_pass_rate_ratio', 'bin', OBSERVED)}"
                f" - {gauge('sluice_difficulty_pass_rate_ratio', 'bin', PREDICTED)}",
                "{{bin}}",
            ),
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
            one(
                "Drops by difficulty",
                "Rollouts dropped a second, by the pass rate believed of their prompt: hard under 1/3, easy over 2/3.",
                "short",
                rate("sluice_learning_drops_total", "difficulty"),
                "{{difficulty}}",
            ),
            one("Steps", "A second.", "short", rate("sluice_learning_step_seconds_count")),
        ),
    ),
    "slos": (
        "SLOs",
        (
            one(
                "Freshness",
                "Trained rollouts, as a share of them and of those dropped as older than max_lag. Bound: 95 %.",
                "percentunit",
                f"{TRAINED} / ({TRAINED} + {rate('sluice_learning_drops_total', where=STALE)})",
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
                "Spans",
                "Of traces, a second, by result.",
                "short",
                rate("sluice_stage_spans_total", "result"),
                "{{result}}",
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
