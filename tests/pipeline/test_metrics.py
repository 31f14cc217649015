"""A meter counts what is declared; told not to, it counts nothing for Prometheus, and a status has what it needs."""

from __future__ import annotations

import threading

import pytest

from pipeline.metrics import Meter

COUNTED = {"sluice_stage_busy_seconds_total", "sluice_generation_tokens_total", "sluice_generation_running"}


def work(meter: Meter) -> set[str]:
    meter.worked(2.5)
    meter.add("sluice_generation_tokens_total", 7)
    meter.set("sluice_generation_running", 3)
    meter.observe("sluice_generation_response_tokens", 7)
    return {name.partition("{")[0] for name in meter.values() if name.startswith("sluice_")}


@pytest.mark.parametrize("said", ["", "off"])
def test_counting_can_be_turned_off_and_a_status_still_says_how_busy_it_was(monkeypatch, said):
    monkeypatch.setenv("SLUICE_METRICS", said)
    meter = Meter("generation", "generation-0")
    found = work(meter)
    assert found == set() if said else found > COUNTED
    assert meter.busy_s == 2.5


def test_what_is_not_declared_is_not_counted():
    with pytest.raises(KeyError):
        Meter("generation", "generation-0").add("sluice_generation_surprises_total")


def test_labels_are_told_apart_by_name_in_whatever_order_they_are_given():
    meter = Meter("verification", "v")
    for _ in range(2):
        meter.add("sluice_verification_verdicts_total", check="math", outcome="wrong")
        meter.add("sluice_verification_verdicts_total", outcome="wrong", check="math")
    meter.add("sluice_verification_verdicts_total", check="wrong", outcome="math")
    values = {name: value for name, value in meter.values().items() if "verdicts_total" in name}
    assert values == {
        'sluice_verification_verdicts_total{check="math",outcome="wrong"}': 4,
        'sluice_verification_verdicts_total{check="wrong",outcome="math"}': 1,
    }


def test_threads_that_count_a_metric_for_the_first_time_together_count_into_one():
    meter, ready = Meter("generation", "g"), threading.Barrier(8)

    def count() -> None:
        ready.wait(10)
        for _ in range(500):
            meter.add("sluice_generation_rollouts_total", ending="eos")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert meter.values()['sluice_generation_rollouts_total{ending="eos"}'] == 4000


def test_a_worker_that_has_only_started_shows_no_progress_and_its_status_counts_from_the_start():
    meter = Meter("learning", "learning-0")
    shown = "sluice_stage_progress_timestamp_seconds"
    assert shown not in meter.values() and meter.progress_at >= meter.started
    meter.progress()
    assert meter.values()[shown] == meter.progress_at
