"""What the chart takes from the cluster: here a server that knows one Deployment, asked by Helm as at an upgrade."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.helm.chart import BROKER, CHART, LOADER, NEWEST, helm, name, of

KINDS = {
    "kind": "APIResourceList",
    "groupVersion": "apps/v1",
    "resources": [
        {"name": "deployments", "singularName": "", "namespaced": True, "kind": "Deployment", "verbs": ["get"]}
    ],
}


@contextmanager
def cluster(replicas: dict[str, int]) -> Iterator[str]:
    """The address of a Kubernetes in which these Deployments of namespace `rl` have so many replicas."""
    said: dict[str, Any] = {"/apis/apps/v1": KINDS}
    for which, count in replicas.items():
        path = f"/apis/apps/v1/namespaces/rl/deployments/{which}"
        said[path] = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": which}}
        said[path]["spec"] = {"replicas": count}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            found = said.get(self.path.partition("?")[0])
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def replicas(values: dict[str, Any], live: dict[str, int], folder: Path) -> dict[str, int]:
    """How many of each Deployment an upgrade to these values asks for; absent where it does not say."""
    (folder / "values.json").write_text(json.dumps(values))
    (folder / "kubeconfig").write_text("")
    with cluster(live) as address:
        where = ["--kube-apiserver", address, "--kubeconfig", str(folder / "kubeconfig"), "--namespace", "rl"]
        where += ["--kube-version", NEWEST]
        done = helm("template", "r", str(CHART), "-f", str(folder / "values.json"), "--dry-run=server", *where)
    assert done.returncode == 0, done.stderr
    made = of([one for one in yaml.load_all(done.stdout, LOADER) if one], "Deployment")
    return {name(one).rpartition("-")[2]: one["spec"]["replicas"] for one in made if "replicas" in one["spec"]}


def test_who_turns_autoscaling_on_keeps_the_workers_that_there_are(tmp_path):
    values = BROKER | {"generation": {"autoscaling": {"enabled": True, "min": 2, "max": 8}}}
    fixed = {"verification": 1, "difficulty": 1}
    for count in (1, 7, 12):  # over `max` it is the scaler that ends them
        assert replicas(values, {"r-sluice-generation": count}, tmp_path) == fixed | {"generation": count}
    assert replicas(values, {}, tmp_path) == fixed


def test_who_turns_autoscaling_on_at_none_begins_at_one_since_an_hpa_leaves_none_alone(tmp_path):
    values = BROKER | {"generation": {"autoscaling": {"enabled": True, "kind": "hpa"}}}
    assert "generation" not in replicas(values, {"r-sluice-generation": 0}, tmp_path)


def test_a_number_that_is_given_is_the_number_whatever_there_is(tmp_path):
    values = BROKER | {"generation": {"replicas": 3}}
    assert replicas(values, {"r-sluice-generation": 7}, tmp_path)["generation"] == 3
