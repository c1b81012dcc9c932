#!/bin/sh
# Lay out in $2 what the image has at /api, from the checkout $1: the server as a project that can be installed again
# after the user's packages, and what the tools of LangGraph look for beside it.
set -eu
source=$1
target=$2

mkdir -p "$target/graphs"
cp "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$target/"
cp -R "$source/server" "$source/checkpoints" "$target/"
cp -R "$source/graphs/waystation_guards" "$target/graphs/"
find "$target" -name __pycache__ -type d -prune -exec rm -rf {} +
cp "$source/docker/healthcheck.py" "$target/healthcheck.py"
cp "$source/docker/entrypoint.sh" "$target/entrypoint.sh"
chmod 755 "$target/entrypoint.sh"
"${PYTHON:-python3}" "$source/docker/constraints.py" "$source/pyproject.toml" > "$target/constraints.txt"
# Where umask is 077 the image's user could read nothing of the checkout; and modes are part of the image's bytes.
chmod -R u=rwX,go=rX "$target"
