"""What stands in matplotlib's place in the image of this service: modules that import, and say so when one draws.

reasoning-gym plays the game of life with cellpylib, which imports matplotlib at its start, to draw. No check draws, and
matplotlib with what only it needs is 87 MB.

    python undrawn.py [FOLDER]        writes them into the folder; left out: where this Python's packages are
"""

from __future__ import annotations

import site
import sys
from pathlib import Path

IMPORTED = ("matplotlib/__init__", "matplotlib/pyplot", "matplotlib/animation", "matplotlib/collections",
            "mpl_toolkits/__init__", "mpl_toolkits/mplot3d")  # fmt: skip
MODULE = '''"""In the place of matplotlib: nothing is drawn here."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def undrawn(*args, **kwargs):
        raise RuntimeError(f"{__name__}.{name}: matplotlib is not installed here, nothing is drawn")

    return undrawn
'''


def main(folder: Path) -> None:
    """Write every module that is imported."""
    for module in IMPORTED:
        file = folder / f"{module}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(MODULE)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else site.getsitepackages()[0]))
