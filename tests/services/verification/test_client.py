"""Other trainers ask the door: one answer, many, TRL's and verl's reward functions."""

import math
from concurrent import futures

import grpc
import pytest

from pipeline.verification_client import VerificationClient, VerifierFailed, trl_reward, verl_score
from services.verification.checker import Checker
from services.verification.door import VerificationDoor
from services.verification.pool import Pool
from sluice.v1 import rollout_pb2, verification_pb2_grpc
from tests.services.verification.packages import install

CHECK = '''
"""Fails, as a verifier may."""
from dataclasses import dataclass

from services.verification.finding import infra_error


@dataclass(frozen=True)
class Broken:
    version = "1"
    in_process = True

    def __call__(self, answer_text, spec):
        return infra_error("endpoint")
'''


@pytest.fixture(scope="module")
def client():
    pool = Pool(workers=1)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(VerificationDoor(Checker(pool), {}.get), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with VerificationClient(f"127.0.0.1:{port}") as made:
        yield made
    server.stop(0)
    pool.close()


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """An installed package with a check that always fails."""
    install(tmp_path, "broken_checks", CHECK, "broken = broken_checks:Broken")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_answer_gets_its_verdict(client):
    assert client.verify("7", "exact", "7").outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT
    assert client.verify("x y", "length", spec={"low": 1, "high": 2}).outcome == rollout_pb2.VERDICT_OUTCOME_WRONG


def test_trl_gets_an_accuracy_for_texts_and_for_conversations(client):
    reward = trl_reward(client, "exact")
    assert reward(prompts=["a", "b"], completions=["7", "8"], answer=["7", "7"], completion_ids=[[1], [2]]) == [1, 0]
    said = [[{"role": "assistant", "content": "7"}]]
    assert reward(prompts=["a"], completions=said, answer=["7"]) == [1]
    assert reward.__name__ == "sluice_exact"


def test_verl_gets_the_accuracy_and_the_named_raw_rewards_with_the_same_keys_for_every_answer(client):
    score = verl_score(client, {"words": "length"}, rewards=("length", "other"))
    said = score("words", "abc", "", {"spec": {"low": 1, "high": 2}})
    assert said == {"score": 0.0, "length": pytest.approx(-0.5), "other": pytest.approx(math.nan, nan_ok=True)}
    assert verl_score(client, {"words": "length"})("words", "abc", "", {"spec": {"high": 2}}) == {"score": 0.0}


def test_the_verifiers_failure_is_no_reward(client, broken):
    assert trl_reward(client, "broken")(completions=["7"]) == [None]
    with pytest.raises(VerifierFailed, match="broken: endpoint"):
        verl_score(client, {"d": "broken"})("d", "7", "7")
