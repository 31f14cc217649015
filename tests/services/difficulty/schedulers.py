"""Schedulers over a few prompts, and the nouns that they observe."""

from pipeline.gate import Gate
from services.difficulty.budget.fixed import Fixed
from services.difficulty.estimate.beta import Beta
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

SECRET = "the-answer-is-42"


def prompt(number, split="train"):
    return prompt_pb2.Prompt(
        prompt_id=f"p{number}",
        digest=bytes([number]) * 32,
        messages=[prompt_pb2.Message(role="user", parts=[prompt_pb2.Part(text=f"question {number}")])],
        check=prompt_pb2.CheckSpec(check="exact", answer=SECRET, spec_json=f'{{"a": "{SECRET}"}}'),
        reference_solution=SECRET,
        hints=[SECRET],
        domain="math",
        family="sums",
        split=split,
    )


def build(prompts=10, max_lag=1, batch=8, n=4, estimate=None, sampler=None, seed=7, reverse=False, **knobs):
    scheduler = Scheduler(
        estimate=estimate or Beta(),
        sampler=sampler or VadeThompson(),
        budget=Fixed(n=n),
        gate=Gate(max_lag, batch),
        sampling=prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=16),
        seed=seed,
        **knobs,
    )
    scheduler.observe([prompt(i) for i in (reversed(range(prompts)) if reverse else range(prompts))])
    return scheduler


def verdict(request, index, accuracy, version=0):
    return rollout_pb2.Verdict(
        key=rollout_pb2.RolloutKey(request_id=request.request_id, index=index, attempt=1),
        prompt_id=request.prompt_id,
        outcome=rollout_pb2.VERDICT_OUTCOME_CORRECT if accuracy == 1 else rollout_pb2.VERDICT_OUTCOME_PARTIAL,
        accuracy=accuracy,
        min_version=version,
        max_version=version,
        purpose=prompt_pb2.PURPOSE_TRAIN,
    )


def train(number, requests, epoch=1, checkpoint=0, shift=0.01):
    return training_pb2.TrainStep(
        epoch=epoch,
        step=number,
        version=number,
        uses=[
            training_pb2.Use(key=rollout_pb2.RolloutKey(request_id=r.request_id, index=i, attempt=1), use=1)
            for r in requests
            for i in range(r.n)
        ],
        shifts=[training_pb2.PromptShift(prompt_id=r.prompt_id, mean_abs_logprob_change=shift) for r in requests],
        checkpoint_step=checkpoint,
    )
