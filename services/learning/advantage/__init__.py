"""Baselines, scales and modifiers, [N] or [N, T].

`(batch) -> advantage` for a base, `(batch, advantage) -> advantage` for a modifier, which says `modifies = True` and
stands under a recipe's `modifiers`.
"""
