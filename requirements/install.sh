#!/bin/sh
# Make the environment $1 hold what the pins in $2 say, and this checkout as an editable install.
# Called by the Makefile from the root of the repository; running it again repairs a half-made environment.
set -eu
venv=$1
pins=$2

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

if ! suits "$venv/bin/python"; then
    found=""
    for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if suits "$python"; then found=$python; break; fi
    done
    if [ -z "$found" ]; then
        echo "Waystation needs Python 3.11, 3.12 or 3.13; none is on the PATH. Install one, or: make PYTHON=/path/to/python" >&2
        exit 1
    fi
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --no-project --clear --python "$(command -v "$found")" "$venv"
    elif ! "$found" -m venv --clear "$venv"; then
        echo "Making $venv failed. On Debian and Ubuntu the venv module is a package: apt install python3-venv" >&2
        exit 1
    fi
fi

echo "Installing $(grep -c '==' "$pins") pinned packages into $venv (once)" >&2
if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python "$venv/bin/python" --only-binary :all: --require-hashes -r "$pins"
    uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
else
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    "$venv/bin/python" -m pip install --quiet --only-binary :all: --require-hashes -r "$pins"
    "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
fi
