"""What is learned from: queries, their right documents, and documents that are wrong though they look right.

A file has one JSON object in each line: ``{"query": "...", "positive": "...", "negatives": ["...", "..."]}``, where the
negatives may be missing. Each of them is a text, or an object of "text", "image" or both; the image is a path, relative to the
folder of the file. Empty lines don't count.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaindex.encoders.inputs import Content, content

_KEYS = ("query", "positive", "negatives")


class Example(NamedTuple):
    """A query, its right document, and hard negatives. ``Example.of`` makes one from what encoders take."""

    query: Content
    positive: Content
    negatives: tuple[Content, ...] = ()

    @classmethod
    def of(cls, query: Any, positive: Any, negatives: Sequence[Any] = ()) -> Example:
        """From what encoders take: texts, images (PIL or ``pathlib.Path``) or dicts of both. Raises TypeError, ValueError."""
        if isinstance(negatives, (str, Path)) or not isinstance(negatives, Sequence):
            raise TypeError(f"negatives: expected a list, got {type(negatives).__name__}; wrap it in a list")
        wrong = tuple(content(each, f"negatives[{place}]") for place, each in enumerate(negatives))
        return cls(content(query, "query"), content(positive, "positive"), wrong)


def read_examples(path: str | os.PathLike[str]) -> list[Example]:
    """The examples of a file of JSON lines, in their order.

    Raises:
        OSError: the file can't be read. ValueError: a line is no example, or names an image that is not there; the message
            starts with the file and the number of the line. Or there is no example at all.
    """
    found = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found.append(_example(json.loads(line), Path(path).parent))
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"{os.fspath(path)}:{number}: {error}") from None
    if not found:
        raise ValueError(f"{os.fspath(path)}: expected a JSON object in each line, got no line")
    return found


def check_examples(name: str, examples: Sequence[Example]) -> None:
    """Raises TypeError where one is none, or was made of raw texts; ``name`` is the caller's name for them."""
    for place, each in enumerate(examples):
        if not isinstance(each, Example):
            raise TypeError(f"{name}[{place}]: expected an Example, got {type(each).__name__}; make it with Example.of")
        parts = (each.query, each.positive, *each.negatives)
        if wrong := [part for part in parts if not isinstance(part, Content)]:
            raise TypeError(
                f"{name}[{place}]: expected an Example of checked inputs, got one with {type(wrong[0]).__name__}; "
                f"make it with Example.of"
            )


def without_right_negatives(examples: Sequence[Example]) -> list[Example]:
    """The examples but for hard negatives that are right documents of the same query, there or in another line: negatives are
    often looked for with the one right document of a line in mind."""
    found = list(examples)
    lines = defaultdict[int, list[int]](list)
    for place, each in enumerate(found):
        lines[identifier(each.query)].append(place)
    for places in lines.values():
        if any(found[place].negatives for place in places):
            right = {identifier(found[place].positive) for place in places}
            for place in places:
                kept = tuple(each for each in found[place].negatives if identifier(each) not in right)
                found[place] = found[place]._replace(negatives=kept)
    return found


def identifier(of: Content) -> int:
    """A number of 63 bits, the same for the same text and image in every process. An image in memory is told by its pixels."""
    in_memory = of.image is not None and not isinstance(of.image, Path)
    digest = hashlib.sha256(repr((of.text, "" if in_memory else str(of.image))).encode("utf-8", "surrogatepass"))
    if in_memory:
        image = of.opened()
        digest.update(repr(image.size).encode() + image.tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def _example(line: Any, folder: Path) -> Example:
    if not isinstance(line, dict):
        raise ValueError(f"expected a JSON object, got {type(line).__name__}")
    if unknown := [key for key in line if key not in _KEYS]:
        raise ValueError(f"expected the keys {', '.join(_KEYS)}, got {unknown[0]!r}")
    if missing := [key for key in _KEYS[:2] if key not in line]:
        raise ValueError(f"expected a {missing[0]}, got {', '.join(line) or 'nothing'}")
    negatives = line.get("negatives", [])
    if not isinstance(negatives, list):
        raise ValueError(f"negatives: expected a list, got {type(negatives).__name__}")
    placed = [_placed(each, folder) for each in negatives]
    return Example.of(_placed(line["query"], folder), _placed(line["positive"], folder), placed)


def _placed(item: Any, folder: Path) -> Any:
    """An item with the path of its image made one from here."""
    if not isinstance(item, dict) or not isinstance(item.get("image"), str):
        return item
    image = folder / item["image"]
    if not image.is_file():
        raise ValueError(f"expected an image at {image}, which is no file")
    return {**item, "image": image}
