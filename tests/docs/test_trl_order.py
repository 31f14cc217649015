"""The example for TRL's GRPOTrainer in docs/difficulty.md, without TRL: its order keeps RepeatSampler's contract."""

import itertools
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pipeline import difficulty_client

PRINTED = (Path(__file__).parents[2] / "docs" / "difficulty.md").read_text()
ROWS = 10


class Trained:
    """GRPOTrainer as far as the example uses it: `model.training` is false while it evaluates, as torch has it."""

    def __init__(self, *_, **said):
        self.said, self.model = said, SimpleNamespace(training=True)


class Service:
    """Answers with the prompts in turn, and keeps what it was asked and told."""

    def __init__(self, address):
        self.asked, self.told, self._next = [], [], itertools.cycle(f"p{row}" for row in range(ROWS))

    def next(self, n):
        self.asked.append([next(self._next) for _ in range(n)])
        return self.asked[-1]

    def observe(self, outcomes):
        self.told += outcomes


@pytest.fixture
def example(monkeypatch):
    """What the printed example defines; TRL and torch are stood in for by two small classes."""
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", PRINTED, re.DOTALL) if "GRPOTrainer" in code]
    for name, members in {
        "torch": {},
        "torch.utils": {},
        "torch.utils.data": {"Sampler": object},
        "trl": {"GRPOTrainer": Trained},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(difficulty_client, "DifficultyClient", Service)
    found = {"dataset": {"prompt_id": [f"p{row}" for row in range(ROWS)]}}
    exec(code, found)  # the documents' own code
    return SimpleNamespace(**{name: value for name, value in found.items() if not name.startswith("__")})


def order_of(example, batch, generations, iterations=1, per_generation=1, max_steps=-1):
    """The order that the example's trainer hands out."""
    args = SimpleNamespace(generation_batch_size=batch, steps_per_generation=per_generation, max_steps=max_steps)
    trainer = example.Trainer()
    vars(trainer).update(args=args, num_generations=generations, num_iterations=iterations)
    trainer.train_dataset = range(ROWS)
    return trainer._get_train_sampler()


def test_a_generations_prompts_come_in_copies_and_all_of_that_again_for_every_reuse(example):
    order = order_of(example, batch=6, generations=2, iterations=1, per_generation=2)
    first, second = [0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]
    assert list(order)[:24] == [*first, *first, *second, *second]
    assert example.difficulty.asked == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6", "p7", "p8"]]


@pytest.mark.parametrize("max_steps", [-1, 3])
def test_an_epoch_is_the_whole_generations_that_the_rows_make_whatever_max_steps_says(example, max_steps):
    order = order_of(example, batch=12, generations=4, iterations=2, per_generation=4, max_steps=max_steps)
    assert len(order) == len(list(order)) == 3 * 3 * 4 * 8, "of 10 rows three generations of 3 prompts; one row is left"


def test_every_prompt_that_is_asked_for_is_generated_for(example):
    """TRL generates for one in steps_per_generation * num_iterations loader batches of generation_batch_size rows."""
    order = list(order_of(example, batch=6, generations=2, iterations=2, per_generation=4))
    batches = [order[at : at + 6] for at in range(0, len(order), 6)]
    generated = [row for batch in batches[::8] for row in batch]
    assert {f"p{row}" for row in generated} == {name for asked in example.difficulty.asked for name in asked}
    assert len(batches) == 24 and all(batches[at] == batches[at - at % 8] for at in range(24))


def test_the_reward_function_tells_the_service_what_it_gives(example):
    rewards = example.reward(completions=[" 4", "5"], answer=["4", "4"], prompt_id=["p1", "p1"], trainer_state=None)
    assert rewards == [1.0, 0.0] and example.difficulty.told == [("p1", 1.0), ("p1", 0.0)]
    assert example.trainer.said["reward_funcs"] is example.reward


def test_the_service_hears_nothing_of_an_evaluation_nor_of_prompts_that_are_not_trained_on(example):
    seen = {"completions": ["4", "5"], "answer": ["4", "4"]}
    assert example.reward(**seen, prompt_id=["p1", "held"]) == [1.0, 0.0]
    assert example.difficulty.told == [("p1", 1.0)]
    example.trainer.model.training = False
    assert example.reward(**seen, prompt_id=["p1", "p2"]) == [1.0, 0.0] == example.reward(**seen)
    assert example.difficulty.told == [("p1", 1.0)]
