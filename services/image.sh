#!/bin/sh
# What the four Dockerfiles do, each step once; the root of the repository is copied beside it.
#
#   image.sh python             Debian 12 as a base holds no Python: its own is added
#   image.sh compiler           a C compiler, for a package that has no wheel
#   image.sh torch INDEX        torch and what it needs into /opt/torch; INDEX empty: PyPI, whose Linux build is CUDA's
#   image.sh needs EXTRAS       what Sluice with these extras needs into /opt/sluice, on top of /opt/torch where that is
#   image.sh sluice             Sluice itself: a change of its code installs nothing else again
set -eu

case $1 in
python)
    python3 -c 'import ensurepip' 2>/dev/null && exit
    apt-get update
    apt-get install --yes --no-install-recommends python3 python3-venv
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
    ;;
compiler)
    # Of the build alone: PyPI has pycosat, which reasoning-gym asks for, as source only.
    apt-get update
    apt-get install --yes --no-install-recommends gcc libc6-dev
    case $(command -v python3) in /usr/bin/*) apt-get install --yes --no-install-recommends python3-dev ;; esac
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
    ;;
torch)
    # Beside PyPI, which has what torch needs in the versions of the lock file: of two builds of one version pip takes the
    # one with a local label, 2.13.0+cpu.
    python3 -m venv /build/pip
    /build/pip/bin/pip install --no-cache-dir --target /opt/torch --constraint /build/constraints.txt \
        ${2:+--extra-index-url "$2"} torch
    rm -r /build/pip
    ;;
needs)
    python3 -m venv /opt/sluice
    if [ -d /opt/torch ]; then
        echo /opt/torch > "$(/opt/sluice/bin/python -c 'import site; print(site.getsitepackages()[0])')/torch.pth"
    fi
    # An empty Sluice: its metadata say what it needs. The texts come later: a word in the README installs nothing anew.
    mkdir -p /build/proto /build/pipeline /build/services
    touch /build/README.md /build/LICENSE
    /opt/sluice/bin/pip install --no-cache-dir --constraint /build/constraints.txt "/build[$2]"
    ;;
sluice)
    /opt/sluice/bin/pip install --no-cache-dir --no-deps --force-reinstall /build
    /opt/sluice/bin/pip uninstall --quiet --yes pip
    ;;
*)
    echo "image.sh: step is '$1'; accepted: python, compiler, torch, needs, sluice" >&2
    exit 2
    ;;
esac
