"""The report of a run: one HTML file with its plots inside, that needs no network and no script."""

from pipeline.report.collect import collect
from pipeline.report.data import RunData
from pipeline.report.page import render

__all__ = ["RunData", "collect", "render"]
