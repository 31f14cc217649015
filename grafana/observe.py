"""A real Prometheus over a run on this machine: `python grafana/observe.py runs/spell`, then http://localhost:9099.

The workers say on the log where their metrics are; their addresses are written to a file that Prometheus reads again
when it changes, with the labels that the chart's PodMonitor gives: run, service, instance.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.rundir import RunDir, write_atomically
from pipeline.view import Watcher
from sluice.v1 import control_pb2

EVERY_S = 2
CONFIG = """
global: {{scrape_interval: {every}s, evaluation_interval: 5s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: sluice
    file_sd_configs: [{{files: [{targets}], refresh_interval: 1s}}]
"""


def targets(workers: Iterable[control_pb2.WorkerStatus], run: str) -> list[dict]:
    """Where Prometheus finds the workers that live, in its own form."""
    return [
        {
            "targets": [f"127.0.0.1:{int(one.gauges['metrics_port'])}"],
            "labels": {"run": run, "service": one.service, "instance": one.worker_id},
        }
        for one in workers
        if one.gauges.get("metrics_port") and one.state != control_pb2.WORKER_STATE_DEAD
    ]


def prometheus(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start it over `folder`/targets.json; it keeps its data there."""
    program = shutil.which("prometheus")
    if program is None:
        raise UserError("'prometheus' is not installed; accepted: Debian's package prometheus, or another build")
    rules = Path(__file__).parent / "alerts.yaml"
    text = CONFIG.format(every=EVERY_S, rules=rules.resolve(), targets=(folder / "targets.json").resolve())
    (folder / "prometheus.yml").write_text(text)
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", "--enable-feature=exemplar-storage"]
    return subprocess.Popen(command)


def follow(directory: RunDir, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Keep the targets current until Prometheus ends."""
    log, names = directory.open_log(), directory.names()
    watcher = Watcher(log, names)
    try:
        while process.poll() is None:
            found = targets(watcher.look(1.0).workers.values(), names.run)
            write_atomically(folder / "targets.json", json.dumps(found))
            time.sleep(1.0)
    finally:
        watcher.close()
        log.close()


def main() -> int:
    """Run until Ctrl-C, or SIGTERM: Prometheus ends with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description="A real Prometheus over a run on this machine.")
    parser.add_argument("dir", help="run directory")
    parser.add_argument("--port", type=int, default=9099, help="where Prometheus answers")
    args = parser.parse_args()
    try:
        directory = RunDir.of(args.dir)
        folder = directory.folder("prometheus")
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "targets.json", "[]")
        process = prometheus(folder, args.port)
    except UserError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 2
    print(f"Prometheus answers at http://localhost:{args.port}; Ctrl-C ends it")
    print(f"`python grafana/draw.py panels.html --prometheus http://localhost:{args.port}` draws the dashboards")
    try:
        follow(directory, folder, process)
    except KeyboardInterrupt:
        pass
    finally:
        process.terminate()
        process.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
