"""Runs programs that nobody trusts.

    check --> Jail --(fds, limits)--> zygote, pid 1 of a bubblewrap --fork--> the program
                <--- stdout, stderr, private channel, how it ended ---

The walls, from outside in: a user id that owns nothing, bubblewrap's namespaces (no network, no files but a read-only
/usr and two small tmpfs), an empty environment, a seccomp filter, rlimits, and a zygote that kills every other process
when the job ends. What crosses is plain data on private pipes, and what is compared is compared outside: a program
holds no expected output, and its exit code is never a pass.

- `walls.py`: which walls this machine can put up; code is refused, with the reason and the cure, where one is missing
- `seccomp.py`: the system-call filter; `cgroup.py`: a jail's own cgroup, where one is delegated
- `launch.py`, `jail.py`, `running.py`: the outside; `zygote.py`, `bodies.py`: the inside; `wire.py`: what crosses
- `limits.py`: what a job may use, and how it ended; `desk.py`: jails kept for the next job
"""

from services.verification.sandbox.limits import JailLost, Limits, Ran

__all__ = ["JailLost", "Limits", "Ran"]
