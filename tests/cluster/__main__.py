"""`make test-cluster`: the chart and the images on a real cluster, stage by stage. Of all: `docs/test-cluster.md`.

KUBECONFIG points to a cluster that may be thrown away. From the environment:

    STAGE      which stages, by name; all when empty
    POD_HOST   address by which pods reach this machine, where Kafka is started; 10.244.0.1
    IMAGES     command that builds an image and puts it where the cluster finds it: {name}, {file}, {context}
    RETAG      command that gives an image there a second name: {name}, {other}
    REGISTRY   what image names begin with: localhost     TAG, TAG_2   two tags of the same images: dev and dev2
    VOLUMES    folder on the node for learners' volumes: this machine's temporary folder
    SECCOMP    folder of the kubelet's seccomp profiles, as seen from here: /var/lib/kubelet/seccomp
    KEDA       command that installs KEDA, before the stage `keda`; empty: it is there
    KUBERAY    command that installs KubeRay's operator, before the stage `ray`; empty: it is there
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.table import machine, table
from tests.cluster.release import prepare
from tests.cluster.stages import STAGES, command_line
from tests.cluster.tools import NotSo, kubectl, run, say
from tests.kafka.secure import Broker

OPERATORS = {"keda": "KEDA", "ray": "KUBERAY"}
"""Which variable installs what a stage needs."""
PAGE = Path(__file__).parents[2] / "docs" / "test-cluster.md"


def main() -> int:
    os.environ.setdefault("TAG_2", "dev2")
    names = command_line(os.environ.get("STAGE", ""))
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        print(f"STAGE is {unknown[0]!r}; accepted: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    kubectl("get", "nodes")
    done: list[tuple[str, str, float]] = []
    with tempfile.TemporaryDirectory(prefix="sluice-cluster-") as folder:
        broker = Broker(os.environ.get("POD_HOST", "10.244.0.1"), Path(folder) / "kafka")
        try:
            if names != ["images"]:
                broker.start()
                prepare(broker)
            for name in names:
                done.append(stage(name, broker))
        finally:
            broker.stop()
    if set(names) == set(STAGES):
        PAGE.write_text(page(done))
    return int(any(outcome != "holds" for _, outcome, _ in done))


def page(done: Sequence[tuple[str, str, float]]) -> str:
    """The page of the last run of all stages, from what each came to and its seconds."""
    lines = [[name, outcome, f"{seconds:.0f}"] for name, outcome, seconds in done]
    lines.append(["all", "", f"{sum(seconds for *_, seconds in done):,.0f}"])
    return f"# The last `make test-cluster`\n\n{machine()}.\n\n{table(['stage', 'outcome', 'seconds'], lines)}\n"


def stage(name: str, broker: Broker) -> tuple[str, str, float]:
    """Run one; returns (name, "holds" or why it does not, seconds)."""
    begun = time.monotonic()
    say(f"{name} ...")
    if installs := os.environ.get(OPERATORS.get(name, ""), ""):
        run("bash", "-c", installs, seconds=1800)
    try:
        STAGES[name](broker)
    except NotSo as error:
        seconds = time.monotonic() - begun
        say(f"{name}: NO, after {seconds:.0f} s: {error}")
        return name, str(error), seconds
    seconds = time.monotonic() - begun
    say(f"{name}: holds, {seconds:.0f} s")
    return name, "holds", seconds


if __name__ == "__main__":
    sys.exit(main())
