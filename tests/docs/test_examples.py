"""The examples in docs/examples run as their users run them, against a real door."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from pipeline.difficulty_client import DifficultyClient
from pipeline.verification_client import VerificationClient
from services.verification.checker import Checker
from services.verification.door import VerificationDoor
from services.verification.pool import Pool
from sluice.v1 import rollout_pb2, verification_pb2_grpc
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def door():
    """Address of a verification service."""
    pool = Pool(workers=1)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(VerificationDoor(Checker(pool), {}.get), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)
    pool.close()


@pytest.mark.parametrize("service", ["verification", "difficulty"])
def test_a_service_is_served_alone_as_the_documents_print_it(tmp_path, service):
    printed = (ROOT / "docs" / f"{service}.md").read_text()
    prepare, serve = "sluice prepare run.yaml --dir RUN", f"sluice serve {service} RUN --address 127.0.0.1:50061"
    assert f"{prepare}\n{serve}\n" in printed
    address = f"127.0.0.1:{free_port()}"
    sluice = [sys.executable, "-W", "ignore", "-m", "pipeline.cli"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "proto")))}
    for command in ("sluice init run.yaml", prepare):
        if command == prepare and service == "difficulty":
            name_prompts(tmp_path, printed)
        subprocess.run([*sluice, *command.split()[1:]], cwd=tmp_path, env=env, check=True, timeout=120)
    command = [*sluice, *serve.replace("127.0.0.1:50061", address).split()[1:]]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == f"{service} serves on {address}\n"
            assert ASKED[service](address)
        finally:
            process.terminate()
    assert process.returncode == 0


def name_prompts(folder, printed):
    """What difficulty.md has its reader change in the run file: here 200 rows, of which every one is to be served."""
    assert "`sources` names the prompts, and `held_out: 0`" in printed
    rows = [json.dumps({"prompt": f"What is {n} + {n}?", "answer": str(2 * n)}) for n in range(200)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    said = (folder / "run.yaml").read_text().replace("held_out: 256", "held_out: 0")
    sources = '[{"kind": "jsonl", "path": "rows.jsonl", "prompt": "prompt", "answer": "answer"}]'
    (folder / "run.yaml").write_text(re.sub(r"sources: .*", f"sources: {sources}", said))


def ask_verification(address):
    with VerificationClient(address) as client:
        return client.verify("0.5", check="math", expected="1/2").outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT


def ask_difficulty(address):
    with DifficultyClient(address) as client:
        asked = client.next(200)
        return client.observe((name, 1.0) for name in asked) == len(set(asked)) == 200


ASKED = {"verification": ask_verification, "difficulty": ask_difficulty}


def as_verl_loads_it():
    """verl imports the file under a name of its own and takes the function by its name."""
    spec = importlib.util.spec_from_file_location("custom_module", EXAMPLES / "verl_reward.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_score


def test_verls_function_scores_what_verl_passes(door, monkeypatch):
    monkeypatch.setenv("SLUICE_VERIFICATION", door)
    score = as_verl_loads_it()
    asked = [("enots", 1.0), ("stone", 0.0), ("", 0.0)]
    for said, value in asked:
        found = score(data_source="reverse_words", solution_str=said, ground_truth="enots", extra_info={"index": 3})
        assert found == {"score": value}, "the same keys for every answer: verl makes an array of each"


def tiny_model(folder):
    """A Llama of one small layer with a tokenizer of letters, as a Hugging Face folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = ["<pad>", "</s>", *"abcdefghijklmnopqrstuvwxyz :"]
    words = Tokenizer(models.WordLevel({letter: n for n, letter in enumerate(letters)}, unk_token="<pad>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": len(letters), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(**sizes, **ids, max_position_embeddings=64)).save_pretrained(folder)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_trls_trainer_trains_on_the_services_verdicts(door, tmp_path):
    pytest.importorskip("trl", reason="the example needs TRL, which is no dependency")
    tiny_model(tmp_path / "model")
    command = [sys.executable, str(EXAMPLES / "trl_reward.py"), door, str(tmp_path / "model"), "--steps", "2"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto"), *sys.path])}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("rewards/sluice_exact/mean") >= 2
