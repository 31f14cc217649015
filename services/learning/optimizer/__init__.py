"""The update."""
