"""Budgets: (beliefs of the chosen, rollouts to spend) -> rollouts each. One file, one way to spend."""
