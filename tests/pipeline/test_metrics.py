"""A meter counts what is declared; told not to, it counts nothing for Prometheus, and a status has what it needs."""

from __future__ import annotations

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
