"""An installed package, as pip leaves one behind: a module and its metadata."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, source: str, check: str) -> None:
    """A package of one module, whose check is `check`, "name = module:Class"."""
    (folder / f"{name}.py").write_text(source)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[sluice.verification.check]\n{check}\n")
