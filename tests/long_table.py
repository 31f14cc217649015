"""The table of the last `make test-long`: `docs/test-long.md`, from pytest's own reports of it.

python -m tests.long_table REPORT.xml...      several when it was run in parts; of a test in two the later one counts
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.table import machine, table

PAGE = Path(__file__).parents[1] / "docs" / "test-long.md"


@dataclass
class Row:
    """One test file: how many tests passed, failed and were skipped, seconds in all and of the longest."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    longest: float = 0.0


def rows(cases: Iterable[ElementTree.Element]) -> dict[str, Row]:
    """A row for every test file."""
    found: dict[str, Row] = defaultdict(Row)
    for case in cases:
        row = found[case.get("classname", "").replace(".", "/") + ".py"]
        outcomes = {child.tag for child in case}
        row.failed += bool(outcomes & {"failure", "error"})
        row.skipped += "skipped" in outcomes
        row.passed += not outcomes & {"failure", "error", "skipped"}
        seconds = float(case.get("time", 0))
        row.seconds, row.longest = row.seconds + seconds, max(row.longest, seconds)
    return dict(sorted(found.items()))


def page(*reports: str) -> str:
    """The page, from pytest's reports in JUnit's form."""
    cases = [case for report in reports for case in ElementTree.fromstring(report).iter("testcase")]
    found = rows({(case.get("classname"), case.get("name")): case for case in cases}.values())
    lines = [[name, r.passed, r.failed, r.skipped, r.seconds, r.longest] for name, r in found.items()]
    header = ["tests", "passed", "failed", "skipped", "seconds", "longest"]
    totals = [sum(line[n] for line in lines) for n in range(1, 5)]  # type: ignore[misc]
    lines.append(["all", *totals, max((row.longest for row in found.values()), default=0.0)])
    parts = f" In {len(reports)} parts." if len(reports) > 1 else ""
    return f"# The last `make test-long`\n\n{machine()}.{parts}\n\n{table(header, lines)}\n"


if __name__ == "__main__":
    PAGE.write_text(page(*(Path(name).read_text() for name in sys.argv[1:])))
    print(PAGE.read_text())
