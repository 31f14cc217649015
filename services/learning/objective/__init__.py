"""Losses that couple rollouts: `(batch, forward, advantage) -> scalar`, in place of coef * logp."""
