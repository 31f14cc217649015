"""Additive terms with a denominator of their own: `(batch, forward) -> scalar`."""
