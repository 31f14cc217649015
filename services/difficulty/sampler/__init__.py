"""Samplers: (beliefs, n, rng) -> indices. One file, one way to choose prompts."""
