"""What the service adds to the trainer."""

import os
import time

import pytest

from pipeline.metrics import Meter
from pipeline.recipe import load_recipe
from services.learning.service import Measured, _written_at
from services.learning.trainer import Trainer
from tests.services.learning.rollouts import VOCAB, random_groups, tiny_model


def test_a_group_with_a_token_that_the_model_does_not_have_is_refused():
    measured = Measured(Trainer(tiny_model(), load_recipe("rloo"), 8), Meter("learning", "test"), "float32")
    (group,) = random_groups(1, groups=1, size=3)
    assert measured.refuses(group) == ""
    group.members[1].rollout.calls[0].tokens[0] = VOCAB
    assert measured.refuses(group) == "token_outside_vocabulary"


def test_what_an_alert_waits_for_is_counted_from_0_before_the_first_step():
    meter = Meter("learning", "test")
    Measured(Trainer(tiny_model(), load_recipe("rloo"), 8), meter, "float32")
    drops = 'sluice_learning_drops_total{{difficulty="{1}",reason="{0}"}}'.format
    names = [drops(reason, of) for reason in ("stale", "nan_step") for of in ("hard", "medium", "easy", "unknown")]
    assert [meter.values().get(name) for name in (*names, "sluice_learning_rollouts_total")] == 9 * [0]


def test_a_checkpoint_that_was_loaded_is_as_old_as_its_files(tmp_path):
    os.utime(tmp_path, (1000.0, 1000.0))
    assert _written_at(tmp_path) == 1000.0
    assert abs(_written_at(tmp_path / "pruned") - time.time()) < 60


def test_a_step_whose_rank_is_gone_lets_the_watcher_speak_before_it_raises(monkeypatch):
    trainer = Trainer(tiny_model(), load_recipe("rloo"), 8)
    measured, heard = Measured(trainer, Meter("learning", "test"), "float32"), []
    measured.failed = lambda: heard.append("a rank is gone")

    def step(groups, version):
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(trainer, "step", step)
    with pytest.raises(RuntimeError, match="Connection reset"):
        measured.step([], 1)
    assert heard == ["a rank is gone"]
