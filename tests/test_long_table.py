"""The table of the long tests counts what pytest reported."""

from __future__ import annotations

from tests.long_table import page

REPORT = """<testsuites><testsuite>
<testcase classname="tests.chaos.test_kills" name="a" time="2.5"/>
<testcase classname="tests.chaos.test_kills" name="b" time="4"><failure message="no"/></testcase>
<testcase classname="tests.pipeline.test_x" name="c" time="1"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_failed_and_a_skipped_test_are_not_counted_as_passed():
    assert "| tests/chaos/test_kills.py | 1 | 1 | 0 | 6.5 | 4 |" in page(REPORT)
    assert "| tests/pipeline/test_x.py | 0 | 0 | 1 | 1 | 1 |" in page(REPORT)
    assert "| all | 1 | 1 | 1 | 7.5 | 4 |" in page(REPORT)


def test_a_run_in_parts_says_so_and_adds_up():
    other = REPORT.replace("test_kills", "test_more")
    assert "In 2 parts." in page(REPORT, other) and "| all | 2 | 2 | 1 | 14 | 4 |" in page(REPORT, other)
    assert "parts" not in page(REPORT)


def test_of_a_test_that_ran_twice_the_later_report_counts():
    mended = '<testsuites><testcase classname="tests.chaos.test_kills" name="b" time="3"/></testsuites>'
    assert "| tests/chaos/test_kills.py | 2 | 0 | 0 | 5.5 | 3 |" in page(REPORT, mended)
