"""What importing metaindex costs and brings in."""

import subprocess
import sys


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_needs_numpy_only():
    loaded = _run("import sys, metaindex; print(*sys.modules)").split()
    heavy = {"torch", "triton", "faiss", "matplotlib", "sentence_transformers", "scipy", "pandas", "tqdm"}
    assert not heavy & set(loaded)


def test_searching_on_a_cpu_needs_numpy_only():
    """With every optional package refused, as where it is not installed. The interpreter of the kernels is for tests alone."""
    _run(
        "import sys, os; os.environ.pop('TRITON_INTERPRET', None)\n"
        "refused = ('torch', 'triton', 'faiss', 'transformers', 'matplotlib')\n"
        "sys.modules.update(dict.fromkeys(refused))\n"
        "import numpy, metaindex\n"
        "for early in (None, 'int8'):\n"
        "    index = metaindex.MetaIndex(early=early)\n"
        "    index.add(numpy.ones((20, 4, 8), 'f4'))\n"
        "    for plan in (None, '(1,1)>10 (*,*)'):\n"
        "        assert index.search(numpy.ones((2, 8), 'f4'), 3, plan=plan).ids.tolist() == [[0, 1, 2]]\n"
        "assert not any(map(sys.modules.get, refused))\n"
    )


def test_examples_and_options_of_training_need_no_torch():
    printed = _run(
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft', 'accelerate')))\n"
        "import metaindex.cli, metaindex.training\n"
        "metaindex.training.TrainingOptions(), metaindex.training.Example.of('q', 'p')\n"
        "try:\n    metaindex.training.train\n"
        "except metaindex.errors.MissingDependencyError as error:\n    print(error)\n"
    )
    assert printed == "training needs the package torch, which is not installed: pip install 'metaindex[train]'\n"


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
