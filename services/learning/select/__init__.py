"""What is trained on: `(batch) -> keep`, bool [N] for rollouts or [N, T] for tokens.

Rollouts are dropped with the part's `reason`. A part that needs "advantage" acts after it, every other before.
"""
