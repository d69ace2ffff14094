"""What importing metaindex costs and brings in."""

import subprocess
import sys


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_needs_numpy_only():
    loaded = _run("import sys, metaindex; print(*sys.modules)").split()
    heavy = {"torch", "triton", "faiss", "matplotlib", "sentence_transformers", "scipy", "pandas", "tqdm"}
    assert not heavy & set(loaded)


def test_importing_adds_little_to_numpy():
    """Counted in modules, which no busy machine can change: others' by name, ours because each costs a file."""
    before = set(_run("import sys, numpy; print(*sys.modules)").split())
    after = set(_run("import sys, metaindex; print(*sys.modules)").split())
    ours = {name for name in after if name.startswith("metaindex")}
    assert len(after - before - ours) < 60
    assert len(ours) < 120


def test_the_package_is_typed():
    import metaindex

    assert metaindex.__file__ is not None
    from pathlib import Path

    folder = Path(metaindex.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_core.pyi").exists()
