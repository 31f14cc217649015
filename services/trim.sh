#!/bin/sh
# trim.sh PACKAGES: of all that an image installs, only what an import of these packages' modules needs. A file of its
# own, so that a change of it installs nothing again.
set -eu
export LC_ALL=C

# Imports every module below the packages; prints what is imported then of all that was installed. Some import what only
# their authors have: those are passed over.
imports() {
    /opt/sluice/bin/python -W ignore - "$@" <<'PY'
import importlib, pkgutil, sys

def walk(name):
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), name + "."):
        walk(found.name)

for name in sys.argv[1:]:
    walk(name)
files = {name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
print(*sorted(name for name, file in files.items() if "/site-packages/" in file), sep="\n")
PY
}

# Out: the packages' own tests, byte code of modules that nobody here imports, symbols. Libraries that a wheel brings
# along (numpy's) were patched after they were linked, and strip breaks them: those stay as they are.
site=$(/opt/sluice/bin/python -c 'import site; print(site.getsitepackages()[0])')
imports "$@" > /build/before
find "$site" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -r {} +
find "$site" -name '*.so*' -size +1M -not -path '*.libs/*' -not -path '*/numpy/*' -exec strip --strip-debug {} +
imports "$@" > /build/after
lost=$(comm -23 /build/before /build/after)
[ -z "$lost" ] || { echo "trim.sh: these modules could be imported before and cannot now: $lost" >&2; exit 1; }
