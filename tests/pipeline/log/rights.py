"""A job whose four services and operator are users of their own, with the rights that `sluice topics --acls` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)

from pipeline.topics import GENERATION, LEARNING, OPERATOR, SERVICES
from tests.journey.harness import SMALL, sluice

ROOT = Path(__file__).parents[3]
WORD = "cluster-test-4"
USERS = (*SERVICES, OPERATOR)


def give(servers: str, run: str) -> None:
    """Make the users, and give them what is printed for this run."""
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, "SCRAM-SHA-512", WORD, iterations=4096) for user in USERS]
    )
    printed = sluice("topics", "--acls", "--run", run).stdout.splitlines()
    admin.create_acls([_rule(*line.split()) for line in printed])
    admin.close()


def _rule(user: str, operation: str, kind: str, name: str) -> ACL:
    pattern = ResourcePattern(
        ResourceType[kind.replace("-", "_").upper()],
        name.removesuffix("*"),
        ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL,
    )
    return ACL(f"User:{user}", "*", ACLOperation[operation.upper()], ACLPermissionType.ALLOW, pattern)


def run_file(path: Path, servers: str, run: str) -> Path:
    """The small job on this Kafka, without an end: it is stopped."""
    changed = {
        "run: small": f"run: {run}\nlog: kafka://{servers}\nweights: {{anchor_every: 1}}",
        "steps: 12": "steps: 900",
    }
    text = SMALL.read_text()
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@contextmanager
def services(file: Path, folder: Path, environment: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
    """The four services, each with its own user and its own run directory, as on machines of their own."""
    model = {GENERATION: ["--model", "cold"], LEARNING: ["--model", "warm"]}
    with ExitStack() as stack:
        for service in SERVICES:
            directory, env = str(folder / service), dict(environment[service])
            done = sluice("prepare", str(file), "--dir", directory, *model.get(service, []), env=env)
            assert done.returncode == 0, done.stderr
            out = stack.enter_context(open(folder / f"{service}.log", "a"))
            command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "serve", service, directory]
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdout=out, stderr=out)
            stack.callback(process.wait, 30)
            stack.callback(process.kill)
        yield
