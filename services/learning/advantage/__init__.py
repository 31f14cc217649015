"""Baselines, scales and modifiers, [N] or [N, T].

`(batch) -> advantage` for a base, `(batch, advantage) -> advantage` for a modifier.
"""
