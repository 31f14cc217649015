"""Prompt sources: each file is one part, a frozen dataclass with `prompts()`; see `pipeline/data/load.py`."""
