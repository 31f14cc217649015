"""What a runbook prints to be typed, typed."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from sluice.v1 import learning_pb2_grpc, training_pb2
from tests.helm.chart import BROKER, name, of, render

RUNBOOKS = Path(__file__).parents[2] / "grafana/runbooks"


def printed(runbook: str, begins: str) -> list[str]:
    """The words of the one command in a block of the runbook that begins so."""
    lines = (RUNBOOKS / f"{runbook}.md").read_text().splitlines()
    block = textwrap.dedent("\n".join(line for line in lines if line.startswith("      ")))
    return shlex.split(block[block.index(begins) :])


class Learner(learning_pb2_grpc.LearningServiceServicer):
    def SaveCheckpoint(self, request: Any, context: Any) -> training_pb2.Checkpoint:
        """At once."""
        return training_pb2.Checkpoint(step=7)


def test_a_checkpoint_is_taken_at_once_as_the_runbook_has_it():
    words = printed("SluiceCheckpointOld", "kubectl exec")
    program = words[words.index("-c") + 1]
    server = grpc.server(ThreadPoolExecutor(1))
    learning_pb2_grpc.add_LearningServiceServicer_to_server(Learner(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [sys.executable, "-c", program.replace(":50051", f":{port}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    server.stop(None)
    assert (done.returncode, done.stdout) == (0, "step: 7\n\n"), done.stderr


def test_the_volume_that_grows_is_the_learners_and_as_large_as_the_chart_is_told():
    patch = printed("SluiceCheckpointOld", "kubectl patch")[:6]
    size = json.loads(patch[-1])["spec"]["resources"]["requests"]["storage"]
    told = printed("SluiceCheckpointOld", "helm upgrade")
    assert f"learning.storage.size={size}" in told
    (learner,) = of(render(BROKER | {"learning": {"storage": {"size": size}}}), "StatefulSet")
    (claim,) = learner["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == size
    assert patch[3] == f"{name(claim)}-{name(learner)}-0".replace("r-sluice", "NAME")
