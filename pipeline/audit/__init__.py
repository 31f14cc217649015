"""The law of conservation: every requested rollout has one outcome or is truly in flight. Anything else is named.

    facts.py    what the topics hold, indexed; bodies are not kept
    account.py  where every requested rollout stands
    checks.py   what contradicts what: a record that is missing shows in those that remain
    result.py   the account as data, as JSON and as text

Pure but for `audit_log`, which reads. Tests, chaos runs, `sluice audit` and the end of every run use this one account.

What retention removed is not guessed at. A record's key says which partition it would lie in; where that partition's
beginning is gone, its absence proves nothing and is counted as `below_retention`, not as lost. What ended there is
carried forward by the checkpoints, each of which counts every outcome so far: the account stays that of the whole run.
"""

from pipeline.audit.account import account
from pipeline.audit.facts import Facts, read
from pipeline.audit.result import Audit, render
from pipeline.log.api import Log
from pipeline.topics import Names

__all__ = ["Audit", "Facts", "account", "audit_log", "read", "render"]


LOOKS = 3
"""Where something seems to be missing, a run at work is looked at again: what is gone stays gone, the rest was late."""


def audit_log(log: Log, names: Names, now_ms: int) -> Audit:
    """Audit a run from its log. Raises `UserError` when the log holds no such run, `LogUnavailable`."""
    audit = account(read(log, names), now_ms)
    for _ in range(LOOKS - 1):
        if audit.clean or audit.finished:
            break
        audit = account(read(log, names), now_ms)
    return audit
