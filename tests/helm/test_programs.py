"""Verification that runs programs: in a namespace of its own, with all that it needs there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from chart import attempt, home, name, of, render


def test_programs_run_in_a_namespace_that_holds_all_that_verification_needs_and_nothing_else():
    values = {
        "kafka": {"bootstrapServers": "k:9092", "sasl": {"mechanism": "PLAIN", "existingSecret": "user"}},
        "verification": {"code": {"enabled": True, "namespace": "programs"}, "autoscaling": {"enabled": True}},
        "monitoring": {"podMonitor": {"enabled": True}},
    }
    objects = render(values)
    kinds = ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "ScaledObject", "Service"]
    assert sorted({one["kind"] for one in objects if home(one) == "programs"}) == sorted(
        [*kinds, "ServiceAccount", "TriggerAuthentication"]
    )
    pods_there = [one["spec"]["template"]["spec"] for one in of(objects, "Deployment") if home(one) == "programs"]
    assert [(spec["containers"][0]["name"], spec["hostUsers"]) for spec in pods_there] == [("verification", False)]
    (monitor,) = of(objects, "PodMonitor")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["rl", "programs"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    told = {one["targetLabel"]: one.get("replacement") for one in endpoint["relabelings"]}
    assert told["namespace"] == "rl"  # the alerts fold a run by its namespace
    (doctor,) = [one for one in of(objects, "Pod") if "doctor" in name(one)]
    assert "--door=verification=r-sluice-verification.programs:50051" in doctor["spec"]["containers"][0]["command"]
    for policy in of(objects, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            if rule["ports"] == [{"port": "grpc"}]:
                (names,) = rule["from"][0]["namespaceSelector"]["matchExpressions"]
                assert names["values"] == ["rl", "programs"]


def test_programs_without_a_namespace_of_their_own_are_refused():
    done = attempt({"kafka": {"bootstrapServers": "k:9092"}, "verification": {"code": {"enabled": True}}})
    assert done.returncode != 0
    assert "verification.code.namespace is empty; accepted: a namespace that was made for it" in done.stderr
