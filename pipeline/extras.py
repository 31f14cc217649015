"""Packages that not every installation has: a service's image holds what the service needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from pipeline.errors import UserError

EXTRAS = {"pyarrow": "data", "reasoning_gym": "data"}
"""The extra that brings each."""


def need(module: str) -> ModuleType:
    """Import it, or a part of it. Raises `UserError` that says how to install it.

    >>> need("pyarrow.parquet").__name__
    'pyarrow.parquet'
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{package} is not installed; accepted: pip install 'sluice[{EXTRAS[package]}]'") from error
