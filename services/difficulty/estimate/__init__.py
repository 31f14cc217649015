"""Estimates: (statistics, observation, step) -> statistics. One file, one way to believe."""
