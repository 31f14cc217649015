"""The run file's sections that say how answers are checked: whole, or refused with what is accepted."""

import pytest

from pipeline import config, partspec
from pipeline.errors import UserError
from pipeline.knobs import REQUIRED


def verification(**fields):
    return config.parse({"verification": fields}).verification


def test_a_second_look_is_a_share_a_check_with_its_knobs_and_what_it_is_told():
    look = verification(second_look={"share": 0.02, "check": {"name": "exact", "case": "fold"}, "spec": {}}).second_look
    assert (look.share, look.part(), look.spec) == (0.02, ("exact", {"case": "fold"}), {})
    assert verification().second_look.share == 0


def test_knobs_of_checks_are_the_runs():
    judge = {"url": "http://host/v1", "model": "m"}
    assert verification(checks={"judge": judge}).checks == {"judge": judge}


def test_a_second_look_may_change_between_two_starts_and_is_no_other_run():
    changes = dict(config.fields())
    assert {changes[f"verification.second_look.{name}"] for name in ("share", "check", "spec", "window")} == {"restart"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"second_look": {"share": 0.1}}, "share is 0.1 without a check"),
        ({"second_look": {"share": 2, "check": {"name": "exact"}}}, "verification.second_look.share is 2"),
        ({"second_look": {"share": 0.1, "check": {"name": "exakt"}}}, "'exakt'"),
        ({"second_look": {"check": {"name": "ranking", "k": 0}}}, "knob 'k'"),
        ({"second_look": {"shares": 0.1}}, "'verification.second_look.shares' is no field; accepted: check, share"),
        ({"checks": {"judge": {"url": "http://host"}}}, "needs the knob 'model'"),
        ({"checks": {"no_such": {}}}, "'no_such'"),
    ],
)
def test_what_cannot_be_used_is_named(fields, said):
    with pytest.raises(UserError) as error:
        verification(**fields)
    assert said in str(error.value)
    assert "accepted" in str(error.value)


@pytest.mark.parametrize("name", partspec.names("verification.check"))
def test_the_knobs_of_every_check_can_be_read_without_importing_it(name):
    for knob in partspec.read("verification.check", name).knobs:
        assert knob.default is REQUIRED or knob.fits(knob.default), knob
        assert not isinstance(knob.choices, str), knob


def test_several_ranks_are_not_put_on_one_named_gpu():
    with pytest.raises(UserError, match="'cuda:1' with learning.ranks of 2; accepted: auto, cpu or cuda"):
        config.parse({"model": {"device": "cuda:1"}, "learning": {"ranks": 2}})
    assert config.parse({"model": {"device": "cuda"}, "learning": {"ranks": 2}}).learning.ranks == 2
