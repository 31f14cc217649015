"""Verification: says what is true of an answer, as a typed verdict."""
