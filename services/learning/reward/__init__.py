"""What a verdict is worth: `(batch, reward_N) -> reward_N`, a chain.

NaN means that the rollout has no reward; it is dropped.
"""
