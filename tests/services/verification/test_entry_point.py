import sys
from contextlib import closing

import pytest

from pipeline import config, parts
from pipeline.errors import UserError
from services.verification import checker
from services.verification.pool import Pool
from sluice.v1.prompt_pb2 import CheckSpec
from tests.services.verification.packages import install

CHECK = '''
"""Right when the answer is the word of the house."""
from dataclasses import dataclass

from services.verification.finding import correct, wrong


@dataclass(frozen=True)
class House:
    word: str = "sluice"

    version = "3"

    def __call__(self, answer_text, spec):
        return correct() if answer_text == self.word else wrong()
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package, as pip leaves one behind: a module and its metadata."""
    install(tmp_path, "house_checks", CHECK, "house = house_checks:House")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("house_checks", None)


def test_a_packages_check_is_found_by_its_entry_point_and_listed(package):
    house = parts.load("verification.check", "house", word="lock")
    assert house("lock", CheckSpec()).name == "CORRECT"
    listed = {name: (title, version) for name, title, version, _ in checker.titles()}
    assert listed["house"] == ("Right when the answer is the word of the house.", "3")


def test_a_packages_check_runs_in_a_worker_like_any_other_and_its_knobs_come_from_the_run(package):
    run = config.parse({"verification": {"checks": {"house": {"word": "lock"}}}})
    with closing(Pool(workers=1)) as pool:
        check = checker.Checker(pool, run.verification.checks)
        found = check.findings([checker.Question(said, CheckSpec(check="house")) for said in ("lock", "sluice")])
    assert [one.name for one in found] == ["CORRECT", "WRONG"]
    assert check.version("house") == "3"


def test_an_unknown_check_is_refused_with_the_names_that_exist(package):
    with pytest.raises(UserError, match=r"'hose'; accepted: .*house"):
        parts.load("verification.check", "hose")
