"""The audit of dependencies finds what is unpinned, broken, changed and holed; silence is no answer."""

from __future__ import annotations

from importlib import metadata

from tests import audit_deps

LOCK = {"one": "1.0", "two": "2.0"}


def test_a_package_of_another_version_than_the_lock_files_is_named():
    assert list(audit_deps.unpinned({"one": "1.0", "sluice": "0", "pip": "1"}, LOCK)) == []
    assert list(audit_deps.unpinned({"two": "2.1", "three": "3"}, LOCK)) == [
        "three 3 is installed; constraints.txt names none",
        "two 2.1 is installed; constraints.txt names 2.0",
    ]


def test_a_requirement_that_does_not_hold_is_named_and_another_platforms_is_not():
    requires = {"one": ["two>=2.1", "four; sys_platform == 'win32'", "five; extra == 'more'", "Two <3"]}
    assert list(audit_deps.broken(requires, LOCK)) == ["one asks for two>=2.1; installed: 2.0"]


def test_a_changed_file_is_named(tmp_path):
    info = tmp_path / "one-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
    (info / "RECORD").write_text("one.py,sha256=LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564,3\n")
    package = metadata.Distribution.at(info)
    (tmp_path / "one.py").write_text("foo")
    assert list(audit_deps.changed(package)) == []
    (tmp_path / "one.py").write_text("bar")
    assert list(audit_deps.changed(package)) == ["one.py of one is not what its wheel holds"]


def test_what_could_not_be_asked_about_is_not_taken_for_good():
    report = {
        "dependencies": [
            {"name": "one", "version": "1.0", "vulns": [{"id": "X-1", "fix_versions": ["1.1"]}]},
            {"name": "two", "skip_reason": "not found"},
        ]
    }
    assert audit_deps.known(report) == (["one 1.0: X-1, fixed in 1.1"], ["two"])


def test_the_lock_file_names_each_package_once():
    lines = [line for line in audit_deps.LOCK.read_text().splitlines() if "==" in line and not line.startswith("#")]
    assert len(audit_deps.locked("\n".join(lines))) == len(lines) > 100
