"""The four services, one craft each."""
