#!/bin/sh
# Builds sdist and wheel from what git tracks, installs the wheel into a bare environment with numpy and safetensors only, and
# runs the main job there from another folder. The encoder that comes with it must have arrived whole.
# Usage: wheel.sh PYTHON-THAT-HAS-BUILD
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
# The wheel is built from the sdist, so what is in the one was in the other.
site=$("$work/venv/bin/python" -I -c 'import metaindex; print(metaindex.__path__[0])')
diff -r "$work/metaindex/metaindex/encoders/docstrings" "$site/encoders/docstrings"
"$work/venv/bin/python" "$root/tests/packaging/main_job.py"
"$work/venv/bin/metaindex" doctor
