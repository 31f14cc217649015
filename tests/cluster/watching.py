"""A real Prometheus over a release's pods, as its PodMonitor says, with the chart's alerts; and what it then answers.

It runs on this machine and answers pods at $POD_HOST. Two parts are not real. Debian's build cannot ask a cluster which
pods there are: `pods` does, and writes them down as that discovery would. And `Said` tells of rollouts that a learner
dropped as stale, because no healthy run drops many.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from pipeline.rundir import write_atomically
from tests.cluster.release import LAPTOP, Release
from tests.cluster.tools import ROOT, NotSo, helm, until

PORT, SAID = 19290, 19291
EVERY_S = 2


@dataclass
class Said:
    """Tells a Prometheus that this run drops so many rollouts a second as stale, and trains so many; else nothing."""

    release: Release
    stale: float = 0.0
    trained: float = 0.0
    _begun: float = field(default_factory=time.monotonic)
    _dropped: float = 0.0
    _kept: float = 0.0

    def text(self) -> str:
        """The metrics, in Prometheus's own form."""
        if not (self.stale or self.trained or self._dropped or self._kept):
            return ""
        now = time.monotonic()
        past, self._begun = now - self._begun, now
        self._dropped += self.stale * past
        self._kept += self.trained * past
        who = f'run="{self.release.name}",namespace="{self.release.namespace}"'
        return (
            f'sluice_learning_drops_total{{reason="stale",{who}}} {self._dropped}\n'
            f"sluice_learning_rollouts_total{{{who}}} {self._kept}\n"
        )


class Prometheus:
    """The server that runs."""

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query finds."""
        text = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/v1/query?{text}", timeout=10) as reply:
            return json.load(reply)["data"]["result"]

    def value(self, query: str) -> float:
        """The one value of a query; NaN where it finds none."""
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else float("nan")

    def firing(self) -> list[str]:
        """Names of the alerts that fire, or have fired since it was started."""
        found = self.ask('max_over_time(ALERTS{alertstate="firing"}[2h])')
        return sorted({one["metric"]["alertname"] for one in found})


def address() -> str:
    """Where pods find it."""
    return f"http://{os.environ.get('POD_HOST', '10.244.0.1')}:{PORT}"


@contextlib.contextmanager
def watched(release: Release) -> Iterator[tuple[Prometheus, Said]]:
    """A Prometheus over this release, from now until the end."""
    said = Said(release)
    with tempfile.TemporaryDirectory(prefix="sluice-prometheus-") as folder, contextlib.ExitStack() as ends:
        server = ends.enter_context(ThreadingHTTPServer(("127.0.0.1", SAID), handler(said)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ends.callback(server.shutdown)
        ended = threading.Event()
        follower = threading.Thread(target=follow, args=(release, Path(folder, "pods.json"), ended))
        follower.start()
        ends.callback(follower.join, 60)
        ends.callback(ended.set)
        Path(folder, "prometheus.yml").write_text(yaml.safe_dump(config(release, folder)))
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=0.0.0.0:{PORT}", "--log.level=warn"]
        log = ends.enter_context(Path(folder, "log").open("w"))
        process = ends.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
        ends.callback(process.terminate)
        until("Prometheus", 60, lambda: answers(process, folder), lambda: Path(folder, "log").read_text()[-800:])
        yield Prometheus(), said


def answers(process: subprocess.Popen, folder: str) -> bool:
    """Whether it answers, and not another that has its port."""
    if process.poll() is not None:
        raise NotSo(f"Prometheus ended with {process.returncode}; its port is {PORT}")
    url = f"http://127.0.0.1:{PORT}/api/v1/status/flags"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)["data"]["storage.tsdb.path"] == f"{folder}/data"
    return False


def handler(said: Said) -> type[BaseHTTPRequestHandler]:
    """Serves what is said."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = said.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No line for each scrape."""

    return Handler


def follow(release: Release, file: Path, ended: threading.Event) -> None:
    """Write down which pods there are, again and again."""
    while not ended.wait(EVERY_S):
        with contextlib.suppress(NotSo):
            write_atomically(file, json.dumps(pods(release)))


def pods(release: Release) -> list[dict[str, Any]]:
    """The ports of a release's pods, labelled as Prometheus' own discovery of a cluster labels them."""
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {
                "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
                "__meta_kubernetes_pod_name": pod["metadata"]["name"],
                "__meta_kubernetes_pod_container_port_name": port["name"],
            }
            | {f"__meta_kubernetes_pod_label_{plain(key)}": value for key, value in pod["metadata"]["labels"].items()},
        }
        for pod in release.pods()
        if pod["status"].get("podIP")
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    ]


def plain(name: str) -> str:
    """A label's name as Prometheus has it."""
    return "".join(c if c.isalnum() else "_" for c in name)


def config(release: Release, folder: str) -> dict[str, Any]:
    """The scrape configuration that the release's PodMonitor comes to, and the chart's alerts."""
    found = {
        "job_name": "pods",
        "file_sd_configs": [{"files": [f"{folder}/pods.json"], "refresh_interval": "2s"}],
        "relabel_configs": relabelings(release),
    }
    said = {"job_name": "said", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{SAID}"]}]}
    return {
        "global": {"scrape_interval": f"{EVERY_S}s", "evaluation_interval": f"{EVERY_S}s"},
        "rule_files": [str(ROOT / "grafana/alerts.yaml")],
        "scrape_configs": [found, said],
    }


def relabelings(release: Release) -> list[dict[str, Any]]:
    """What the Prometheus operator makes of the PodMonitor that Helm renders: selector, port, labels of its own."""
    shown = ["--show-only", "templates/monitoring.yaml", "--set", "monitoring.podMonitor.enabled=true"]
    shown += ["--kube-version", "1.36.0"]  # it is rendered without asking the cluster
    text = helm("template", release.name, "helm/sluice", "-n", release.namespace, "-f", str(LAPTOP), *shown)
    (spec,) = [one["spec"] for one in yaml.safe_load_all(text) if one and one["kind"] == "PodMonitor"]
    (endpoint,) = spec["podMetricsEndpoints"]
    keep = [("__meta_kubernetes_pod_container_port_name", endpoint["port"])]
    for label, value in spec["selector"]["matchLabels"].items():
        keep.append((f"__meta_kubernetes_pod_label_{plain(label)}", value))
    found: list[dict[str, Any]] = [{"source_labels": [name], "regex": value, "action": "keep"} for name, value in keep]
    found.append({"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"})
    for one in endpoint["relabelings"]:
        source, target = one["sourceLabels"], one["targetLabel"]
        found.append({"source_labels": source, "target_label": target, "replacement": one.get("replacement", "$1")})
    return found
