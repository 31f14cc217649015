"""What parts need besides log-probs; a signal part's file name is the signal's name.

`(batch, score) -> Tensor`: `score(which)` runs the "policy" or the "reference" over the whole batch without a gradient
and returns its `Forward`. Signals are made once per step, before the advantage.
"""
