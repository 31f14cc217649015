"""The handler: what the stage gets back, tick by tick."""

from pipeline.data.prompt import GATE_KEY
from pipeline.gate import Gate
from services.difficulty.budget.fixed import Fixed
from services.difficulty.estimate.beta import Beta
from services.difficulty.estimate.ema import Ema
from services.difficulty.handler import Handler
from services.difficulty.sampler.mmr1_vps import Mmr1Vps
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.scheduler import Scheduler
from services.difficulty.seen import Versions
from services.difficulty.store import Store
from services.difficulty.texts import Texts
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

PROMPTS = [prompt_pb2.Prompt(prompt_id=f"p{i}", digest=b"d" * 32, split="train") for i in range(3)]


def build(**knobs):
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    return Handler(Scheduler(Beta(), Uniform(), Fixed(2), Gate(0, 4), sampling), now_ms=lambda: 1000, **knobs)


def right(prompt_id):
    return rollout_pb2.Verdict(
        prompt_id=prompt_id, outcome=rollout_pb2.VERDICT_OUTCOME_CORRECT, accuracy=1.0, purpose=prompt_pb2.PURPOSE_TRAIN
    )


def test_a_call_sends_requests_and_the_state_they_change():
    sent = build()(PROMPTS)
    assert [(topic, key) for topic, key, _ in sent] == [
        ("requests", "r-00000001"),
        ("requests", "r-00000002"),
        ("posterior", GATE_KEY),
    ]


def test_a_tick_with_nothing_to_do_sends_nothing():
    handler = build()
    handler(PROMPTS)
    assert handler([]) == []


def test_a_verdict_sends_the_whole_state_of_its_prompt_with_the_inputs_it_had_applied():
    handler = build()
    handler(PROMPTS)
    handler.read_up_to({("run.verdicts", 1): 17, ("run.steps", 0): 4})
    ((topic, key, record),) = handler([right("p1")])
    assert (topic, key, record.prompt_id, record.statistics["alpha"]) == ("posterior", "p1", "p1", 2.0)
    assert [(o.topic, o.partition, o.offset) for o in record.applied] == [("run.steps", 0, 4), ("run.verdicts", 1, 17)]


def test_a_call_that_was_taken_back_has_applied_nothing():
    handler = build()
    handler(PROMPTS)
    handler.read_up_to({("run.verdicts", 1): 17})
    handler([right("p1")])
    handler([])  # a call says that the one before is committed
    handler.read_up_to({("run.verdicts", 1): 21})
    handler([right("p2")])
    handler.undo()
    state = handler.scheduler.posterior("p1")
    assert [one.offset for one in state.applied] == [17] and state.outcomes == 1


def test_in_one_call_verdicts_come_before_steps_in_whatever_order_a_poll_brought_them():
    step = training_pb2.TrainStep(epoch=1, step=1, version=2)
    begin = training_pb2.Rewind(epoch=1, to_step=0, version=1)
    both = []
    for nouns in ([right("p1"), step], [step, right("p1")]):
        handler = build()
        handler([*PROMPTS, begin])
        handler(nouns)
        both.append(handler.scheduler.posterior("p1"))
    assert both[0] == both[1] and both[0].last_step == 0 and both[0].step == 1


def test_until_it_is_ready_it_observes_and_issues_nothing():
    handler = build(ready=False)
    assert handler(PROMPTS) == []
    handler.ready = True
    assert len(handler([])) == 3


def test_drained_it_issues_nothing_more():
    handler = build()
    handler.drain()
    assert handler(PROMPTS) == []


def test_the_newest_version_announced_is_written_into_requests():
    _, _, request = build(announced=lambda highest: Versions(0, 9))(PROMPTS)[0]
    assert request.version_at_issue == 9


def test_a_verdict_of_a_version_that_was_never_announced_is_a_dead_letter_and_changes_nothing():
    handler = build(announced=lambda highest: Versions(2, 9))
    handler(PROMPTS)
    good, ahead, behind = right("p0"), right("p0"), right("p1")
    good.min_version, good.max_version = 2, 9
    ahead.min_version, ahead.max_version = 9, 10
    behind.min_version, behind.max_version = 1, 4
    sent = handler([good, ahead, behind])
    letters = [(key, noun.reason) for topic, key, noun in sent if topic == "dead-letters"]
    accepted = "accepted: 2 (oldest step on the log) to 9 (newest version announced)"
    assert letters == [
        ("p0", f"version_not_announced: versions are 9 to 10; {accepted}"),
        ("p1", f"version_forgotten: versions are 1 to 4; {accepted}"),
    ]
    assert [noun.visits for topic, _, noun in sent if topic == "posterior"] == [1]
    handler([])  # says that the records of the call before are committed
    assert handler.gauges()["ignored_version_not_announced"] == 1


def test_a_verdict_with_a_diversity_that_cannot_be_is_a_dead_letter_and_changes_nothing():
    handler = build()
    handler(PROMPTS)
    good, bad = right("p0"), right("p1")
    good.rewards.add(name="diversity", value=0.25)
    bad.rewards.add(name="diversity", value=-1.9)
    bad.rewards.add(name="style", value=7.0)
    sent = handler([good, bad])
    letters = [(key, noun.reason) for topic, key, noun in sent if topic == "dead-letters"]
    assert letters == [("p1", "diversity_out_of_range: diversity is -1.9; accepted: 0 to 1")]
    assert [(noun.prompt_id, noun.diversity) for topic, _, noun in sent if topic == "posterior"] == [("p0", 0.25)]


def test_a_posterior_with_a_diversity_that_is_refused_now_is_chosen_from():
    handler = build()
    handler.scheduler.sampler = Mmr1Vps()
    handler(PROMPTS)
    ((_, _, record),) = handler([right("p1")])
    record.diversity = -1.9
    handler.scheduler.replay([record])
    assert len(handler.scheduler.preview(3)) == 3


def test_a_solved_prompt_under_a_moving_average_has_an_entropy_that_can_be_read():
    handler = build()
    handler.scheduler.store = Store(Ema())
    handler.scheduler.prompts = Texts(handler.scheduler.store.rows)
    handler([*PROMPTS, *[right("p1")] * 400])
    assert -10 < handler.gauges()["entropy_mean"] < 0


def test_an_uncommitted_call_can_be_taken_back_and_comes_out_the_same():
    handler = build()
    handler(PROMPTS)
    inputs = [right("p0"), right("p0"), training_pb2.TrainStep(epoch=1, step=1, ended_requests=["r-00000001"])]
    once = handler(inputs)
    handler.undo()
    assert handler(inputs) == once
    assert handler([]) == []


def test_gauges_say_what_is_outstanding_and_what_is_believed():
    handler = build()
    handler(PROMPTS)
    for _ in range(30):
        handler([right("p1")])
    found = handler.gauges()
    assert (found["outstanding"], found["room"], found["capacity"], found["prompts"]) == (4.0, 0.0, 4.0, 3.0)
    assert (found["share_solved"], found["share_hopeless"], found["share_unvisited"]) == (1 / 3, 0.0, 2 / 3)
    assert found["entropy_mean"] < 0


def test_gauges_count_places_past_their_deadline():
    handler = build()
    handler(PROMPTS)
    assert handler.gauges()["overdue"] == 0
    handler.now_ms = lambda: 10**9
    assert handler.gauges()["overdue"] == 4
