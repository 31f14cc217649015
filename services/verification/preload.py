"""What the fork server does once, so that no worker has to: whether programs may be run here takes a trial jail.

Imported by name, last of `worker.PRELOAD`; a worker inherits what is remembered.
"""

from __future__ import annotations

from services.verification.sandbox import walls

walls.refusal()
