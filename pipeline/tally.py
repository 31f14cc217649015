"""Counts in memory, told to Prometheus when it asks.

prometheus-client's own counters take a lock and look labels up for every single count, 3 to 9 us in a running service.
Here a batch is counted under one lock, and what a process remembers anyway is read when it is asked for. The library
still says all of it: this is one of its custom collectors.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from pipeline import trace

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
Labels = tuple[str, ...]
Totals = Callable[[], Iterable[tuple[str, float, Mapping[str, str]]]]


@dataclass(frozen=True)
class Metric:
    """One metric. `unit` is what one of it is; `buckets`, their upper bounds, only for a histogram."""

    name: str
    kind: str
    unit: str
    meaning: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """What Prometheus shows as help."""
        return f"{self.meaning} Unit: {self.unit}."


@dataclass
class Cell:
    """A counter or gauge with its labels, or a histogram: `value` is then the sum of what was observed."""

    metric: Metric
    value: float = 0.0
    counts: list[int] = field(default_factory=list)
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The last one of each bucket."""

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.metric.buckets) + 1)

    def buckets(self) -> list[Any]:
        """(upper bound, how many are not above it, exemplar if there is one), the last bound without end."""
        found: list[Any] = []
        below = 0
        for at, bound in enumerate((*self.metric.buckets, float("inf"))):
            below += self.counts[at]
            found.append((floatToGoString(bound), below, self.exemplars.get(at)))
        return found


class Tally:
    """The cells of one process; `totals` are counts that are kept elsewhere. Thread-safe."""

    def __init__(self, declared: Mapping[str, Metric], totals: Totals) -> None:
        self.trace_share = 0.0
        self._declared, self._totals = declared, totals
        self._cells: dict[str, dict[Labels, Cell]] = {}
        self._kept: dict[tuple[Any, ...], Cell] = {}
        self._lock = threading.Lock()

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        with self._lock:
            self._cell(name, labels).value += value

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        with self._lock:
            self._cell(name, labels).value = value

    def observe(self, name: str, values: Iterable[tuple[float, str]], labels: Mapping[str, str]) -> None:
        """Put each (value, request) into its bucket; a request that is traced becomes the bucket's exemplar."""
        with self._lock:
            cell, share = self._cell(name, labels), self.trace_share
            counts, bounds = cell.counts, cell.metric.buckets
            for value, of in values:
                at = bisect_left(bounds, value)
                counts[at] += 1
                cell.value += value
                if share and of and (found := trace.kept(of, share)):
                    cell.exemplars[at] = Exemplar({"trace_id": found}, value, time.time())

    def collect(self) -> Iterator[Family]:
        """What the library asks for: every metric with a value, in the order in which they are declared."""
        with self._lock:
            for name, value, labels in self._totals():
                self._cell(name, labels).value = value
            families = [self._family(self._declared[name]) for name in self._declared if name in self._cells]
        yield from families

    def describe(self) -> Iterable[Family]:
        """Nothing before there is a value: the library asks so that no two collectors share a name."""
        return ()

    def _cell(self, name: str, labels: Mapping[str, str]) -> Cell:
        key = (name, *labels.items())
        found = self._kept.get(key)
        if found is None:
            metric = self._declared[name]
            place = tuple(labels[label] for label in metric.labels)
            found = self._kept[key] = self._cells.setdefault(name, {}).setdefault(place, Cell(metric))
        return found

    def _family(self, metric: Metric) -> Family:
        cells = self._cells[metric.name].items()
        if metric.kind == HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            for place, cell in cells:
                histogram.add_metric(place, cell.buckets(), cell.value)
            return histogram
        family = (CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily)(
            metric.name, metric.text, labels=metric.labels
        )
        for place, cell in cells:
            family.add_metric(place, cell.value)
        return family
