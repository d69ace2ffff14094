"""Files of examples, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaindex.encoders.inputs import Content
from metaindex.training import Example, read_examples
from metaindex.training.examples import identifier, without_right_negatives

GOOD = '{"query": "q", "positive": "p"}'


def test_texts_images_and_both(tmp_path):
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "1.png"
    page.write_bytes(b"")
    lines = [
        {"query": "a", "positive": "b"},
        {
            "query": {"text": "a", "image": "pages/1.png"},
            "positive": {"image": "pages/1.png"},
            "negatives": ["c", {"text": "d"}],
        },
    ]
    (tmp_path / "data.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    assert read_examples(tmp_path / "data.jsonl") == [
        Example(Content("a", None), Content("b", None)),
        Example(Content("a", page), Content(None, page), (Content("c", None), Content("d", None))),
    ]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "2: Expecting"),
        ("[" * 100_000, "2: "),
        ("[]", "2: expected a JSON object, got list"),
        ('{"query": "q"}', "2: expected a positive, got query"),
        ("{}", "2: expected a query, got nothing"),
        ('{"query": "q", "positive": "p", "negative": "n"}', "2: expected the keys query, positive, negatives, got 'negative'"),
        ('{"query": "q", "positive": "p", "negatives": "n"}', "2: negatives: expected a list, got str"),
        ('{"query": "q", "positive": "p", "negatives": [7]}', r"2: negatives\[0\]: expected a text"),
        ('{"query": null, "positive": "p"}', "2: query: expected a text"),
        ('{"query": "q", "positive": {}}', "2: positive: expected a text, an image or both, got neither"),
        ('{"query": "q", "positive": {"image": "no.png"}}', "2: expected an image at .*no.png, which is no file"),
        ('{"query": "q", "positive": {"image": 7}}', r"2: positive\['image'\]"),
        ('{"query": "q", "positive": {"page": "no.png"}}', "2: positive: expected the keys 'text' and 'image'"),
        (b'{"query": "\xff"}', "2: 'utf-8' codec"),
    ],
)
def test_bad_lines(line, match, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join([GOOD.encode(), line.encode() if isinstance(line, str) else line, GOOD.encode()]))
    with pytest.raises(ValueError, match=f"data.jsonl:{match}"):
        read_examples(path)


def test_no_examples(tmp_path):
    (tmp_path / "data.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="got no line"):
        read_examples(tmp_path / "data.jsonl")
    with pytest.raises(FileNotFoundError):
        read_examples(tmp_path / "nothing.jsonl")


def test_by_hand():
    assert Example.of("q", Path("p.png"), [{"text": "n"}]) == Example(
        Content("q", None), Content(None, Path("p.png")), (Content("n", None),)
    )
    with pytest.raises(TypeError, match="wrap it in a list"):
        Example.of("q", "p", "n")
    with pytest.raises(TypeError, match="positive: expected a text"):
        Example.of("q", 7)


def test_identifiers():
    every = [Content("a", None), Content(None, Path("a")), Content("a", Path("a")), Content("", None), Content("None", None)]
    assert len({identifier(each) for each in every}) == len(every)
    assert identifier(Content("a", Path("b"))) == identifier(Content("a", Path("b")))
    assert 0 <= identifier(every[0]) < 2**63


def test_images_in_memory_are_told_by_their_pixels():
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    one, same, other = (image.new("RGB", (4, 6), color) for color in ("red", "red", "blue"))
    turned = image.new("RGB", (6, 4), "red")
    told = [identifier(Content(None, each)) for each in (one, same, other, turned)]
    assert told[0] == told[1]
    assert len(set(told[1:])) == 3
    assert identifier(Content("a", one)) == identifier(Content("a", same)) != told[0]


def test_what_is_right_in_another_line_is_no_hard_negative():
    lines = [("q", "a", ["b", "c"]), ("r", "d", ["a", "b"]), ("q", "b", ["a", "b", "d"]), ("s", "e", ["e"]), ("q", "a", [])]
    found = without_right_negatives([Example.of(*line) for line in lines])
    assert [[each.text for each in example.negatives] for example in found] == [["c"], ["a", "b"], ["d"], [], []]
    assert [(each.query.text, each.positive.text) for each in found] == [line[:2] for line in lines]
