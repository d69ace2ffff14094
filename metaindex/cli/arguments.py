"""What the options' texts mean. A text that means nothing is refused here, before any work, with exit code 2."""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaindex.codecs import CODECS, bands
from metaindex.planning.plan import Plan
from metaindex.types import Levels

_LARGEST = 2**63 - 1

CODEC = f"{', '.join(CODECS)}, or several by token edge: 8:int8,float16 (float16)"
EARLY = "also keep a copy of all levels in this codec, for early stages of plans such as '(4,8):int8>400 (*,*)'"
QUERIES = ".npy, .npz or .safetensors with [B, R, d] or [R, d]"
FILTER = 'metadata fields, such as \'{"lang": "en", "year": {"$gte": 2020}}\''


def add_search(command: ArgumentParser) -> None:
    """The options that say how to search."""
    command.add_argument("-k", type=count, default=10)
    command.add_argument("--budget", type=budget, help="r_q,r_c or one number; by default the index's plan, else everything")
    command.add_argument("--candidates", type=count, help="how many documents a scan of level 0 proposes")
    command.add_argument("--filter", type=json_object, metavar="JSON", help=FILTER)
    command.add_argument("--plan", type=plan, help='stages such as "(1,1)>4000 (4,8)>400 (16,64)"')
    add_trusted(command)
    command.set_defaults(refuse=command.error)


def add_trusted(command: Any) -> None:
    command.add_argument(
        "--trusted",
        action="store_true",
        help="let FAISS read the file of the coarse stage: the index comes from somebody you trust",
    )


def refuse_what_does_not_fit(options: Namespace) -> None:
    """Options of ``add_search`` that don't go together, before any work."""
    if options.plan is not None and (options.budget is not None or options.candidates is not None):
        options.refuse("--plan: a plan sets budgets and candidates itself; give it without --budget and --candidates")
    if options.candidates is not None and options.candidates < options.k:
        options.refuse(f"--candidates: expected at least k = {options.k}, got {options.candidates}")


def count(text: str) -> int:
    """An integer of at least 1."""
    return _integer(text, 1)


def counts(text: str) -> list[int]:
    """Integers of at least 1 separated by commas, each once."""
    return list(dict.fromkeys(_numbers(text, "integers of at least 1 separated by commas")))


def from_zero(text: str) -> int:
    """An integer of at least 0."""
    return _integer(text, 0)


def fraction(text: str) -> float:
    """A number from 0 to 1, both allowed."""
    return _float(text, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    return _float(text, lambda number: 0 < number <= 1, "a number above 0 and at most 1")


def positive(text: str) -> float:
    """A number above 0."""
    return _float(text, lambda number: 0 < number < float("inf"), "a number above 0")


def _float(text: str, fits: Callable[[float], bool], expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")  # which fits nowhere
    if not fits(number):
        raise ArgumentTypeError(f"expected {expected}, got {text!r}")
    return number


def budget(text: str) -> int | tuple[int, int]:
    """``r_q,r_c`` or one number for both sides."""
    numbers = _numbers(text, "r_q,r_c or one number, each at least 1, such as 4,8 or 64")
    if len(numbers) > 2:
        raise ArgumentTypeError(f"expected r_q,r_c or one number, got {len(numbers)} numbers in {text!r}")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def budgets(text: str) -> list[tuple[int, int]]:
    """Pairs ``r_q,r_c`` separated by spaces."""
    pairs = []
    for part in text.split():
        pair = budget(part)
        if isinstance(pair, int):
            raise ArgumentTypeError(f"expected pairs r_q,r_c separated by spaces, such as 1,1 2,4, got {part!r}")
        pairs.append(pair)
    return pairs


def edges(text: str) -> tuple[int, ...]:
    """Level edges, rising."""
    try:
        return Levels.of(_numbers(text, "level edges such as 1,4,16,64")).edges
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def plan(text: str) -> Plan:
    try:
        return Plan.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def codec(text: str) -> str:
    """A codec, or several by token edge."""
    try:
        return str(bands(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error).removeprefix("codec: ")) from None


def codecs(text: str) -> list[str]:
    """Names of codecs separated by commas, each once."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in CODECS]:
        raise ArgumentTypeError(f"expected codecs of {', '.join(CODECS)}, got {unknown[0]!r}")
    return list(dict.fromkeys(names))


def output_file(text: str) -> str:
    """A file that can be written: long work must not end with one that can't."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise ArgumentTypeError(f"expected a file in a folder that exists, got {text!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentTypeError(f"expected a file that may be written, got {text!r}")
    return text


def json_object(text: str) -> dict[str, Any]:
    """A JSON object that says one thing only: no key twice, no infinity or NaN."""
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f'expected a JSON object such as {{"lang": "en"}}: {error}') from None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f'expected a JSON object such as {{"lang": "en"}}, got {text!r}')
    return value


def document_id(text: str, kind: str | None) -> int | str:
    """The id that ``text`` names in an index whose ids are of ``kind``.

    Raises:
        ValueError: ids are integers, and ``text`` is none.
    """
    if kind != "int":
        return text
    if not re.fullmatch("[0-9]{1,19}", text.strip(" ")):  # int() also takes 1_0, which may well be a slip for another id
        raise ValueError(f"id: expected an integer, which all ids of this index are, got {text!r}")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it names a key twice")
    return values


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _integer(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ArgumentTypeError(f"expected an integer of at least {least}, got {text!r}") from None
    if not least <= number <= _LARGEST:
        bound = f"at least {least}" if number < least else "at most 2**63 - 1"
        raise ArgumentTypeError(f"expected an integer of {bound}, got {number}")
    return number


def _numbers(text: str, expected: str) -> list[int]:
    try:
        return [count(part) for part in text.strip("()").split(",")]
    except ArgumentTypeError:
        raise ArgumentTypeError(f"expected {expected}, got {text!r}") from None
