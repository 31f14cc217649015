"""A run that goes on with another estimate, or with other knobs of it, over the real embedded log: folded anew."""

import pytest

from pipeline import config, records, ways
from pipeline.errors import UserError
from pipeline.log.api import read_all
from services.difficulty.estimate.beta import Beta
from services.difficulty.estimate.ema import Ema
from services.difficulty.state import Observation
from sluice.v1 import posterior_pb2, training_pb2
from tests.services.difficulty.test_service import Place, prompt, verdict

SMALL = {"prior_alpha": 0.1, "prior_beta": 0.1}


def run_with(name, **knobs):
    """A run file whose recipe believes by this estimate."""
    return config.parse(
        {
            "run": "t",
            "max_lag": 0,
            "learning": {"batch_groups": 2},
            "data": {"held_out": 0},
            "difficulty": {"estimate": {"name": name, **knobs}},
        }
    )


class Run:
    """One run that is started again and again."""

    def __init__(self, folder, estimate="beta"):
        self.place = Place(folder)
        self.place.write("prompts", *[prompt(f"p{number}") for number in range(4)])
        self.service = self.place.start(run_with(estimate))

    def tell(self, *verdicts):
        self.place.write("verdicts", *verdicts)
        self.read()

    def step(self, **said):
        writer, names = self.place.log.writer("learner"), self.place.names
        step = training_pb2.TrainStep(epoch=1, version=1, **said)
        with writer.transaction() as transaction:
            transaction.sends.append(records.encode(names.topic("steps"), "run", step))
        writer.close()
        self.read()

    def read(self):
        """What the stage does with what the log holds."""
        log, names = self.place.log, self.place.names
        reader = log.group(names.own("difficulty"), [names.topic("verdicts"), names.topic("steps")], "d")
        found = reader.poll(1.0)
        assert found
        ways._handle(self.service.context.stage, self.service, reader, found)
        reader.close()

    def again(self, name, **knobs):
        """The process ends, and another begins with this estimate."""
        self.service.close()
        self.service.context.stage.writer.close()
        self.place.services.clear()
        self.service = self.place.start(run_with(name, **knobs))
        return self.service.scheduler.store

    def turn(self):
        """The turn of the loop in which what was folded anew is committed; returns the prompts that it wrote."""
        outputs = self.place.turn(self.service)
        return [output.key for output in outputs if output.topic == "posterior" and output.key != "__gate__"]

    def snapshot(self):
        self.service.snapshots._due = 0.0
        self.place.turn(self.service)
        assert self.service.snapshots.path.is_file()

    def close(self):
        self.service.close()
        self.service.context.stage.writer.close()
        self.place.log.close()


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    run.close()


def believed(store):
    return {prompt_id: store.get(prompt_id).stat.values for prompt_id in sorted(store.rows)}


def test_another_estimate_folds_every_prompt_anew_and_the_next_start_is_quiet(run):
    run.tell(verdict("p0"), verdict("p0", 0.0), verdict("p1"))
    store = run.again("ema")
    after_p1 = Ema()(Ema().initial(), Observation(1.0), 0)
    after_p0 = Ema()(after_p1, Observation(0.0), 0)
    prior = Ema().initial().values
    assert believed(store) == {"p0": after_p0.values, "p1": after_p1.values, "p2": prior, "p3": prior}
    assert run.turn() == ["p0", "p1"]
    known = believed(store)
    assert believed(run.again("ema")) == known and run.turn() == []


def test_back_and_forth_it_is_what_one_estimate_says_of_all(run, tmp_path):
    run.tell(verdict("p0"), verdict("p1", 0.25))
    run.again("ema")
    run.tell(verdict("p0", 0.0))
    store = run.again("beta")
    (tmp_path / "other").mkdir()
    other = Run(tmp_path / "other")
    other.tell(verdict("p0"), verdict("p1", 0.25))
    other.tell(verdict("p0", 0.0))
    assert believed(store) == believed(other.service.scheduler.store)
    other.close()


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_after_another_prior_the_posterior_does_not_depend_on_whether_there_is_a_snapshot(run, with_snapshot):
    run.tell(verdict("p0"))
    if with_snapshot:
        run.snapshot()
    run.again("beta", **SMALL)
    run.tell(verdict("p2"))
    store = run.service.scheduler.store
    assert believed(store) == {"p0": (1.1, 0.1), "p1": (0.1, 0.1), "p2": (1.1, 0.1), "p3": (0.1, 0.1)}


def test_a_prompt_that_only_the_old_estimate_had_something_to_say_of_is_written_anew_too(tmp_path):
    run = Run(tmp_path, estimate="spo_tracker")
    run.step(step=1, shifts=[training_pb2.PromptShift(prompt_id="p3", mean_abs_logprob_change=0.5)])
    store = run.again("beta")
    assert believed(store)["p3"] == Beta().initial().values
    assert run.turn() == ["p3"]
    run.again("beta")
    assert run.turn() == []
    run.close()


def test_where_retention_has_eaten_outcomes_another_estimate_is_refused_and_the_old_one_goes_on(run):
    run.tell(verdict("p0"), verdict("p0"))
    known, topic = believed(run.service.scheduler.store), run.place.names.topic("verdicts")
    run.place.log.trim(topic, read_all(run.place.log, topic)[0].partition, 1)
    with pytest.raises(UserError) as caught:
        run.again("ema", rate=0.25)
    assert str(caught.value).startswith(
        "estimate is 'ema(lag_discount=1, prior=0.5, rate=0.25)'; accepted: 'beta(global_decay=0.99, lag_discount=1, "
        "local_decay=0.8, prior_alpha=1, prior_beta=1)', which wrote this run's posterior, or a new run (retention"
    )
    run.service = run.place.services[-1]
    assert believed(run.again("beta")) == known


def test_a_posterior_of_older_code_that_names_no_knobs_goes_on(run):
    run.tell(verdict("p0"))
    names = run.place.names
    (record,) = [
        noun
        for noun in map(records.decode, read_all(run.place.log, names.topic("posterior")))
        if isinstance(noun, posterior_pb2.PosteriorState)
    ]
    assert record.estimator.startswith("beta(")
    record.estimator = "beta"
    run.place.write("posterior", record)
    assert believed(run.again("beta"))["p0"] == (2.0, 1.0) and run.turn() == []
