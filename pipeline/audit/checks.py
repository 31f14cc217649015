"""What contradicts what. Each check yields sentences that name what is missing, from what remains.

a record that is gone     what still tells of it
RolloutRequest            its rollouts, verdicts and outcomes; the gate's count of what it issued
Rollout                   its verdict, whose digest is nobody's; the outcome's attempt; the step that used it
Verdict                   the step that used its rollout; the reason for which it was dropped; later verdicts
TrainStep                 a hole in the numbers; the outcomes and the checkpoint of that step
DropNotice                outcomes of rollouts that nothing dropped
Rewind                    an epoch that nothing opened
Outcome                   the newest checkpoint's count of them (and the account itself: the rollout is lost)
Checkpoint                steps that name it; outcomes of later steps; requests that nothing reads on from
WeightManifest            versions that steps made, or that sampled tokens
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from pipeline.audit.facts import Facts, Name, Said, shown
from pipeline.audit.standing import Standing
from sluice.v1 import rollout_pb2, training_pb2

Fate, Ending = training_pb2.Fate, rollout_pb2.Ending
TERMINAL = (Ending.ENDING_EXPIRED, Ending.ENDING_FAILED, Ending.ENDING_ABORTED)
BEFORE_VERDICT = ("run_finished", "drained", "aborted")
"""Reasons for which a rollout is dropped as it arrives, whether it was checked or not."""
AT_MOST = 20
"""Sentences of one kind; the rest is counted."""


def problems(standing: Standing, settled: bool) -> list[str]:
    """Every contradiction. `settled`: nothing is in flight."""
    found: list[str] = []
    for check in (_requests, _issued, _rollouts, _verdicts, _used, _outcomes, _steps, _epochs, _versions):
        found += _some(list(check(standing)))
    return found + _some(list(_checkpoints(standing, settled)))


def _some(sentences: list[str]) -> list[str]:
    left = len(sentences) - AT_MOST
    return sentences[:AT_MOST] + ([f"and {left} more like the last"] if left > 0 else [])


def _requests(standing: Standing) -> Iterator[str]:
    """Whatever was said of a request, the request must be there."""
    facts = standing.facts
    about: dict[str, Counter[str]] = defaultdict(Counter)
    for what, names in (("rollout", facts.rollouts), ("verdict", facts.verdicts), ("outcome", facts.outcomes)):
        for (request_id, _), found in names.items():
            about[request_id][what] += len(found)
    for request_id in sorted(about.keys() - facts.requests.keys()):
        if not facts.cut("requests", request_id):
            what = ", ".join(f"{number} {kind}s" for kind, number in about[request_id].items())
            yield f"request {request_id} is not on the log, and there are {what} of it"
    for name in sorted({*facts.rollouts, *facts.outcomes}):
        request = facts.requests.get(name[0])
        if request and not request.asks_for(name[1]):
            yield f"request {name[0]} asked for no rollout {name[1]}, and there is one"
    for request_id in facts.requests_twice:
        yield f"request {request_id} is on the log twice"


def _issued(standing: Standing) -> Iterator[str]:
    """The gate counts what it issues, in the transaction that issues it."""
    facts = standing.facts
    if facts.gate is None or facts.cut("requests"):
        return
    issued = facts.gate.issued_requests
    held = [request_id for request_id, request in facts.requests.items() if not request.redriven]
    if len(held) < issued:
        holes = ", ".join(_holes(held)[:AT_MOST]) or "the newest"
        yield f"the gate issued {issued} requests and the log holds {len(held)}; missing: {holes}"
    if len(held) > issued:
        yield f"the log holds {len(held)} requests and the gate says it issued {issued}: its newest state is gone"


def _holes(held: list[str]) -> list[str]:
    """Numbers that are missing below the highest, counted from 1."""
    numbers: dict[tuple[str, int], set[int]] = defaultdict(set)
    for request_id in held:
        match = re.fullmatch(r"(.*?)(\d+)", request_id)
        if match:
            numbers[(match[1], len(match[2]))].add(int(match[2]))
    return [
        f"{prefix}{number:0{width}d}"
        for (prefix, width), found in numbers.items()
        for number in range(1, max(found))
        if number not in found
    ]


def _rollouts(standing: Standing) -> Iterator[str]:
    """A verdict is of a rollout; an outcome names the attempt that counted."""
    facts = standing.facts
    for name, verdicts in facts.verdicts.items():
        digests = {said.sha256 for said in facts.rollouts.get(name, ())}
        for verdict in verdicts if b"" not in digests else ():
            if verdict.sha256 and verdict.sha256 not in digests and not facts.cut("rollouts", verdict.prompt_id):
                digest = verdict.sha256.hex()[:12]
                yield f"a rollout {shown(name)} is not on the log, and there is a verdict on its digest {digest}"
    for name in facts.outcomes:
        for outcome in standing.outcomes(name):
            said = facts.rollouts.get(name)
            if outcome.attempt and not said and not _rollout_cut(facts, name):
                yield f"rollout {shown(name)} is not on the log, and its outcome is of attempt {outcome.attempt}"


def _rollout_cut(facts: Facts, name: Name) -> bool:
    request = facts.requests.get(name[0])
    return facts.cut("rollouts", request.prompt_id if request else None)


def _verdicts(standing: Standing) -> Iterator[str]:
    """What was trained on, or dropped after it was checked, has a verdict; and verdicts follow rollouts in order."""
    facts = standing.facts
    for name, said in facts.rollouts.items():
        for outcome in standing.outcomes(name):
            judged = outcome.fate == Fate.FATE_TRAINED or (
                outcome.fate == Fate.FATE_DROPPED and outcome.reason not in BEFORE_VERDICT
            )
            terminal = said[0].ending in TERMINAL
            if judged and not terminal and not standing.verified(name) and not facts.cut("verdicts", said[0].prompt_id):
                how = "trained" if outcome.fate == Fate.FATE_TRAINED else f"dropped ({outcome.reason})"
                yield f"the verdict on {shown(name)} is not on the log, and it was {how}"
    if standing.finished:
        yield from _passed_over(facts)


def _passed_over(facts: Facts) -> Iterator[str]:
    """Verification reads a partition in order: behind a rollout that has its verdict, all have."""
    lying: dict[int, list[tuple[int, Name, Said]]] = defaultdict(list)
    for name, rollouts in facts.rollouts.items():
        for said in rollouts:
            lying[said.place[0]].append((said.place[1], name, said))
    for partition, found in lying.items():
        checked = {
            offset: any(verdict.sha256 == said.sha256 for verdict in facts.verdicts.get(name, ()))
            for offset, name, said in found
        }
        last = max((offset for offset, yes in checked.items() if yes), default=-1)
        for offset, name, said in sorted(found, key=lambda one: one[0]):
            excused = not said.sha256 or said.sha256 in facts.retried or ("rollouts", partition, offset) in facts.dead
            if offset < last and not checked[offset] and not excused and not facts.cut("verdicts", said.prompt_id):
                yield f"the verdict on {shown(name)}, attempt {said.attempt}, is not on the log, and later ones are"


def _used(standing: Standing) -> Iterator[str]:
    """A step trains on the first attempt in log order, of a request, with its verdict."""
    facts = standing.facts
    for number, step in sorted(standing.steps.items()):
        for use in step.uses:
            name = (use.key.request_id, use.key.index)
            said = facts.rollouts.get(name)
            if not said:
                if not standing.outcomes(name) and not _rollout_cut(facts, name):
                    yield f"step {number} trained on rollout {shown(name)}, which is not on the log"
            elif said[0].attempt != use.key.attempt and not facts.cut("rollouts", said[0].prompt_id):
                yield (
                    f"step {number} trained on attempt {use.key.attempt} of {shown(name)}; "
                    f"the first on the log is attempt {said[0].attempt}"
                )
            elif not (standing.outcomes(name) or standing.verified(name) or facts.cut("verdicts", said[0].prompt_id)):
                yield f"the verdict on {shown(name)} is not on the log, and step {number} trained on it"


def _outcomes(standing: Standing) -> Iterator[str]:
    """Exactly one, and of what the steps say."""
    first_held = min(standing.steps, default=0) if standing.facts.cut("steps") else 0
    for name in standing.facts.outcomes:
        found = standing.outcomes(name)
        if len(found) > 1:
            yield f"{shown(name)} has {len(found)} outcomes"
        for outcome in found[:1]:
            if outcome.step >= first_held:
                yield from _against_steps(standing, name, outcome)


def _against_steps(standing: Standing, name: Name, outcome: training_pb2.Outcome) -> Iterator[str]:
    uses = standing.uses.get(name, [])
    if outcome.fate == Fate.FATE_TRAINED:
        if not uses:
            yield f"the outcome of {shown(name)} says step {outcome.step} trained on it, and no step that stands did"
        elif len(uses) != outcome.uses and not standing.facts.cut("steps"):
            yield f"the outcome of {shown(name)} says {outcome.uses} uses, and {len(uses)} stand"
    elif uses:
        yield f"step {uses[0][1]} trained on {shown(name)}, and its outcome says {Fate.Name(outcome.fate)}"
    elif name not in standing.drops and not standing.facts.cut("steps"):
        yield f"{shown(name)} ended as {Fate.Name(outcome.fate)} ({outcome.reason}), and no step or notice says so"


def _steps(standing: Standing) -> Iterator[str]:
    """Numbers without holes, up to whatever later record speaks of a step."""
    facts = standing.facts
    for (epoch, step), number in Counter((one.epoch, one.step) for one in facts.steps).items():
        if number > 1:
            yield f"step {step} of epoch {epoch} is on the log {number} times"
    told = {
        "a checkpoint": standing.checkpoint.step if standing.checkpoint else 0,
        "a manifest": max((m.step for m in facts.manifests if standing.lineage.stands(m.epoch, m.step)), default=0),
        "an outcome": max((o.step for name in facts.outcomes for o in standing.outcomes(name)), default=0),
        "a step": max(standing.steps, default=0),
    }
    who, last = max(told.items(), key=lambda pair: pair[1])
    first = min(standing.steps, default=last + 1) if facts.cut("steps") else 1
    for number in range(first, last + 1):
        if number not in standing.steps:
            yield f"step {number} is not on the log, and {who} is of step {last}"


def _epochs(standing: Standing) -> Iterator[str]:
    """Every epoch was opened by a rewind, which named the checkpoint that it began from."""
    facts = standing.facts
    opened = {one.epoch: one.to_step for one in facts.rewinds}
    stamped = (*facts.steps, *facts.notices, *facts.checkpoints, *facts.manifests, *facts.rewinds)
    last = max((one.epoch for one in stamped), default=0)
    if not facts.cut("steps"):
        for epoch in range(1, last + 1):
            if epoch not in opened:
                yield f"the rewind that opened epoch {epoch} is not on the log, and there are records of epoch {last}"
    newest = {one.step: one for one in facts.checkpoints}
    for epoch, to_step in opened.items():
        if to_step not in newest or newest[to_step].epoch < epoch:
            yield f"the checkpoint of step {to_step}, from which epoch {epoch} began, is not on the log"


def _checkpoints(standing: Standing, settled: bool) -> Iterator[str]:
    """Those that steps name are there, and the newest one covers what has ended."""
    facts = standing.facts
    held = {one.step for one in facts.checkpoints}
    named = sorted({step.checkpoint_step for step in facts.steps} - held)
    for step in named:
        yield f"the checkpoint of step {step} is not on the log, and later steps name it"
    newest = standing.checkpoint.step if standing.checkpoint else -1
    later = [o.step for name in facts.outcomes for o in standing.outcomes(name) if o.step > newest]
    if later:
        yield f"{len(later)} outcomes are of steps up to {max(later)}, and the newest checkpoint is of step {newest}"
    yield from _counted(standing)
    if settled:
        unread = [one for one in facts.requests.values() if one.place[1] >= standing.read_past.get(one.place[0], 0)]
        if unread:
            first = min(one.request_id for one in unread)
            yield (
                f"every rollout has ended, and the newest checkpoint, of step {newest}, does not know of "
                f"{len(unread)} requests, from {first} on: a later one is not on the log"
            )


def _counted(standing: Standing) -> Iterator[str]:
    """The newest checkpoint's count of what ended is the number of outcomes, as far as they are held."""
    facts = standing.facts
    if standing.checkpoint is None or not standing.checkpoint.HasField("ended"):
        return
    ended = standing.checkpoint.ended
    counted = ended.trained + ended.expired + sum(ended.dropped.values()) + sum(ended.failed.values())
    held = sum(bool(standing.outcomes(name)) for name in facts.outcomes)
    if held > counted or (held < counted and not facts.cut("outcomes")):
        yield f"the checkpoint of step {standing.checkpoint.step} counts {counted} outcomes, and the log holds {held}"


def _versions(standing: Standing) -> Iterator[str]:
    """Every version that was made or sampled was announced; only older ones than the newest may have been forgotten."""
    facts = standing.facts
    announced = {one.version for one in facts.manifests}
    made = {step.version: f"step {step.step} made it" for step in facts.steps if step.version}
    sampled = max((said.version for rollouts in facts.rollouts.values() for said in rollouts), default=0)
    if sampled:
        made.setdefault(sampled, "rollouts were sampled with it")
    # The topic keeps the newest of a policy for sure, and forgets from the oldest on: what it holds has no holes.
    oldest = min(announced, default=max(made, default=0))
    for version in sorted(set(made) | set(range(oldest, max(announced, default=0)))):
        if version >= oldest and version not in announced:
            yield f"the manifest of version {version} is not on the log, and {made.get(version, 'later ones are')}"
