"""Difficulty: knows how hard each prompt is now, and chooses what to try next."""
