#!/bin/sh
# Builds sdist and wheel from what git tracks, installs the wheel into a bare environment with numpy and safetensors only, and
# runs the main job there from another folder. Usage: wheel.sh PYTHON-THAT-HAS-BUILD
set -eu
python=$1
root=$(git rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git -C "$root" archive --prefix=metaindex/ HEAD | tar -x -C "$work"
"$python" -m build --outdir "$work/dist" "$work/metaindex" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
grep -h 'CUDA:' "$work/log" | head -n 1 || true
ls -l "$work/dist"

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$work"/dist/*.whl
cd "$work"
"$work/venv/bin/python" "$root/tests/packaging/main_job.py"
"$work/venv/bin/metaindex" doctor
