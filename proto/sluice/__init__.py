"""Sluice's messages and doors."""
