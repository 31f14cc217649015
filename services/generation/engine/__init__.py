"""Engines: what turns token ids into sampled tokens. One contract (`api.py`), chosen by name (`open.py`)."""
