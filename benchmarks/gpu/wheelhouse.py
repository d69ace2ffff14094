"""The wheels of other libraries: ``fill`` a folder where there is a package index, ``install`` it where there is none.

``python -m benchmarks.gpu.wheelhouse fill FOLDER`` and ``... install FOLDER``. Neither follows dependencies: the environment's
torch and Triton stay what they are, and an install that would bring others is refused.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from metaindex.bench.machine import versions

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
KEPT = ("torch", "triton", "numpy")


def fill(folder: Path, python_version: str | None) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--requirement", str(REQUIREMENTS), "--dest", str(folder)]
    command += ["--python-version", python_version] if python_version else []
    subprocess.run(command, check=True)


def install(folder: Path) -> None:
    """Raises SystemExit: the folder holds no wheels or one that must not change, or a version changed all the same."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"{folder}: no wheels; fill it with: python -m benchmarks.gpu.wheelhouse fill {folder}")
    if unwanted := [wheel.name for wheel in wheels if wheel.name.split("-")[0].lower() in KEPT]:
        raise SystemExit(f"{folder}: {', '.join(unwanted)} would replace what the environment has; take it out")
    before = versions(KEPT)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, *map(str, wheels)], check=True)
    if (after := versions(KEPT)) != before:
        raise SystemExit(f"the install changed {before} to {after}")
    print(", ".join(wheel.name for wheel in wheels))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("fill", "install"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python-version", help="fill: of the machine with the GPU, where it differs from this one's")
    options = parser.parse_args()
    if options.action == "fill":
        fill(options.folder, options.python_version)
    else:
        install(options.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
