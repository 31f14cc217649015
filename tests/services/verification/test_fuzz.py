"""Messages that nobody sane sends to the door: it answers each, with a verdict or a reason, and stays what it was."""

import json
import os
import random

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pipeline import parts
from pipeline.access import Access
from pipeline.door import make_server
from pipeline.metrics import Meter
from services.verification.checker import Checker
from services.verification.door import VerificationDoor
from services.verification.pool import Pool
from sluice.v1 import prompt_pb2, rollout_pb2, verification_pb2_grpc
from sluice.v1.verification_pb2 import VerifyRequest

METHOD = "/sluice.v1.VerificationService/Verify"
STREAM = "/sluice.v1.VerificationService/VerifyStream"
ANSWERS = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
LEAK_MB = 50
PART = 500
CHECKS = [name for name in parts.names("verification.check") if name != "code_python"]
KEYS = ["schema", "expected", "tests", "entry", "checks", "name", "check", "relevance", "k", "low", "high", "choices"]
KEYS += [
    "dataset",
    "entry",
    "metadata",
    "answer",
    "type",
    "pattern",
    "properties",
    "arguments",
    "ignore",
    "knobs",
    "spec",
]
WORDS = [
    "exact",
    "math",
    "spell_backward",
    "object",
    "(a+)+$",
    "\\boxed{1}",
    "<answer>",
    "A",
    "nan",
    "1e999",
    "composite",
]

text = st.one_of(st.text(max_size=60), st.sampled_from(WORDS))
leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text)
value = st.recursive(
    leaf,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
)
spec_json = st.one_of(st.just(""), text, value.map(json.dumps), st.just("[" * 5000), st.just('{"a":' * 5000))
request = st.builds(
    lambda answer, check, gold, spec, prompt, rollout: VerifyRequest(
        answer=answer,
        check=prompt_pb2.CheckSpec(check=check, answer=gold, spec_json=spec),
        prompt_id=prompt,
        rollout=rollout,
    ),
    st.one_of(text, st.text(min_size=1, max_size=4).map(lambda one: one * 3000)),
    st.one_of(
        st.sampled_from(CHECKS), st.sampled_from(CHECKS), text, st.sampled_from(["os:system", "./x.py", "../x.py"])
    ),
    text,
    spec_json,
    st.sampled_from(["", "p", "unknown"]),
    st.one_of(st.none(), st.builds(rollout_pb2.Rollout, prompt_id=text, ending=st.integers(0, 9))),
)

plain = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
one_test = st.one_of(
    st.fixed_dictionaries({"input": text, "output": text}),
    st.fixed_dictionaries({"args": st.lists(plain, max_size=2), "expected": plain}),
    st.dictionaries(st.sampled_from(["input", "output", "args", "kwargs", "expected", "expected_python"]), plain),
)
program = st.one_of(
    text,
    st.sampled_from(["print(input())", "def f(*a): return a", "```python\ndef f(a):\n return [a]", "f = 1", "1/0"]),
)
program_request = st.builds(
    lambda answer, tests, entry: VerifyRequest(
        answer=answer,
        check=prompt_pb2.CheckSpec(
            check="code_python", spec_json=json.dumps({"tests": tests} | ({"entry": entry} if entry else {}))
        ),
    ),
    program,
    st.one_of(st.lists(one_test, max_size=3), plain),
    st.sampled_from(["", "f", "g.h", "1", "__import__"]),
)


class Fuzzed:
    """A door on a real server, and how much memory it and its workers hold."""

    def __init__(self):
        self.pool = Pool(workers=1)
        self.pool.warm()
        registered = prompt_pb2.Prompt(prompt_id="p", check=prompt_pb2.CheckSpec(check="exact", answer="42"))
        self.server = make_server(Access(), Meter("verification", "fuzzed"))
        door = VerificationDoor(Checker(self.pool, wall_s=20.0, remember=100), {"p": registered}.get)
        verification_pb2_grpc.add_VerificationServiceServicer_to_server(door, self.server)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}")
        self.server.start()
        self.call = self.channel.unary_unary(METHOD)
        self.stream = self.channel.stream_stream(STREAM)

    def status(self, data: bytes) -> grpc.StatusCode:
        """How the call ends; it must end within a minute."""
        try:
            self.call(data, timeout=60)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def streamed(self, sent: list[bytes]) -> tuple[int, grpc.StatusCode]:
        """(verdicts that came, how the stream ends)."""
        came, call = 0, self.stream(iter(sent), timeout=60)
        try:
            for _ in call:
                came += 1
        except grpc.RpcError as error:
            return came, error.code()
        return came, grpc.StatusCode.OK

    def memory_mb(self) -> float:
        held = [psutil.Process(os.getpid()), *map(psutil.Process, self.pool.pids())]
        return sum(one.memory_info().rss for one in held) / 2**20

    def close(self):
        self.channel.close()
        self.server.stop(0)
        self.pool.close()


@pytest.fixture(scope="module")
def fuzzed():
    made = Fuzzed()
    yield made
    made.close()


def fuzz_requests(fuzzed, number, messages=request):
    """In parts: hypothesis remembers all that it has made until a part ends, which would look like a leak."""

    def run(message):
        assert fuzzed.status(message.SerializeToString()) in ANSWERS

    quiet = {"deadline": None, "database": None, "phases": [Phase.generate]}
    for begin in range(0, number, PART):
        examples = settings(max_examples=min(PART, number - begin), suppress_health_check=list(HealthCheck), **quiet)
        seed(begin)(examples(given(messages)(run)))()


def fuzz_bytes(fuzzed, number):
    """Random bytes, and good messages with some of their bytes changed. What is no message is refused as such."""
    rng = random.Random(6)
    good = VerifyRequest(answer="1", check=prompt_pb2.CheckSpec(check="exact", answer="1")).SerializeToString()
    for _ in range(number):
        data = bytearray(good if rng.random() < 0.5 else rng.randbytes(rng.randrange(200)))
        for _ in range(rng.randrange(4) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        assert fuzzed.status(bytes(data)) in ANSWERS


def fuzz_streams(fuzzed, number):
    """Streams of one to eight messages, a tenth of them bad: a good stream is answered whole, a bad one refused."""
    rng = random.Random(8)
    good = VerifyRequest(answer="1", check=prompt_pb2.CheckSpec(check="exact", answer="1")).SerializeToString()
    unusable = VerifyRequest(answer="1", check=prompt_pb2.CheckSpec(check="no_such")).SerializeToString()
    for _ in range(number):
        sent = [rng.choices((good, unusable, rng.randbytes(40)), (90, 5, 5))[0] for _ in range(rng.randint(1, 8))]
        came, code = fuzzed.streamed(sent)
        if set(sent) == {good}:
            assert (came, code) == (len(sent), grpc.StatusCode.OK)
        else:
            assert came < len(sent)
            assert code == grpc.StatusCode.INVALID_ARGUMENT


def still_good(fuzzed):
    message = VerifyRequest(answer="7", check=prompt_pb2.CheckSpec(check="math", answer="7"))
    verdict = rollout_pb2.Verdict.FromString(fuzzed.call(message.SerializeToString(), timeout=30))
    return verdict.outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT


def test_two_thousand_messages_are_answered_and_nothing_leaks(fuzzed):
    fuzz_requests(fuzzed, 200)
    before = fuzzed.memory_mb()
    fuzz_requests(fuzzed, 800)
    fuzz_bytes(fuzzed, 1000)
    fuzz_streams(fuzzed, 100)
    assert still_good(fuzzed)
    assert fuzzed.memory_mb() - before < LEAK_MB


@pytest.mark.sandbox
def test_programs_and_tests_that_make_no_sense_are_answered(fuzzed):
    fuzz_requests(fuzzed, 60, program_request)
    assert still_good(fuzzed)


@pytest.mark.long
@pytest.mark.timeout(1700)
def test_a_hundred_thousand_messages_are_answered_and_nothing_leaks(fuzzed):
    fuzz_requests(fuzzed, 2_000)
    before = fuzzed.memory_mb()
    fuzz_requests(fuzzed, 28_000)
    fuzz_bytes(fuzzed, 70_000)
    fuzz_streams(fuzzed, 2_000)
    assert still_good(fuzzed)
    assert fuzzed.memory_mb() - before < LEAK_MB
