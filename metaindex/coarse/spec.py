"""What the text of ``coarse=`` means: which vector stands for a document, and which FAISS index finds it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from metaindex.coarse.fde import Fde
from metaindex.storage.schema import MOST_DIMENSIONS

MOST_NUMBER = 1 << 20  # as many lists as FAISS is advised to have at most
MOST_BITS = 16
_FDE = re.compile(r"fde\s*(?:\(([^()]*)\))?\s*(?:,|$)", re.IGNORECASE)
_BOUNDS = {
    "repetitions": (1, 1000),
    "bits": (1, 10),
    "inner": (0, MOST_DIMENSIONS),
    "dim": (0, MOST_DIMENSIONS),
    "seed": (0, 2**32 - 1),
}
_SETTING = re.compile(r"\s*(\w+)\s*=\s*(\d{1,10})\s*")
_FACTORY = re.compile(r"[A-Za-z0-9_.+\[\]()-]+(?:,[A-Za-z0-9_.+\[\]()-]+)*")
_EXPECTED = (
    "a FAISS factory string such as 'Flat', 'IVF4096,Flat' or 'HNSW32', with 'fde(...),' before it for embeddings that are not "
    "nested"
)


@dataclass(frozen=True)
class CoarseSpec:
    """``fde``: how a document's tokens become one vector; ``None`` takes its first token. ``factory``: FAISS's own words for
    the index. ``str`` of it parses to the same again."""

    fde: Fde | None
    factory: str

    def __str__(self) -> str:
        return self.factory if self.fde is None else f"{self.fde},{self.factory}"

    def size(self, dim: int) -> int:
        """Numbers in the vector that stands for a document whose tokens have ``dim``."""
        return dim if self.fde is None else self.fde.size(dim)


def parsed(text: str) -> CoarseSpec:
    """What ``text`` means: ``[fde(repetitions=20,bits=3,inner=0,dim=10240,seed=0),]factory``, each setting optional.

    Raises:
        TypeError: it is no text. ValueError: it can't be read, or a number in it is out of bounds.
    """
    if not isinstance(text, str):
        raise TypeError(f"coarse: expected text, {_EXPECTED}; got {type(text).__name__}")
    rest = text.strip()
    fde = None
    if found := _FDE.match(rest):
        fde, rest = _fde(found[1] or ""), rest[found.end() :].lstrip()
    elif rest.lower().startswith("fde"):
        raise ValueError(
            f"coarse: can't read {rest!r}; expected fde(name=number, ...) and then, after a comma, a FAISS factory string"
        )
    factory = "".join(rest.split())
    if not _FACTORY.fullmatch(factory):
        raise ValueError(f"coarse: expected {_EXPECTED}; got {text!r}")
    for number in re.findall(r"\d+", factory):
        if int(number) > MOST_NUMBER:
            raise ValueError(f"coarse: expected numbers up to {MOST_NUMBER:,}, got {number} in {factory!r}")
    for bits in re.findall(r"\dx(\d+)", factory):
        if int(bits) > MOST_BITS:
            raise ValueError(f"coarse: expected codes of at most {MOST_BITS} bits, got {bits} in {factory!r}")
    return CoarseSpec(fde, factory)


def _fde(inside: str) -> Fde:
    settings: dict[str, int] = {}
    for part in filter(str.strip, inside.split(",")):
        found = _SETTING.fullmatch(part)
        names = ", ".join(field.name for field in fields(Fde))
        if found is None or found[1] not in _BOUNDS:
            raise ValueError(f"coarse: can't read {part.strip()!r} in fde({inside}); expected name=number of {names}")
        name, number = found[1], int(found[2])
        least, most = _BOUNDS[name]
        if name in settings:
            raise ValueError(f"coarse: fde names {name} twice")
        if not least <= number <= most:
            raise ValueError(f"coarse: fde {name}: expected {least} to {most}, got {number}")
        settings[name] = number
    return Fde(**settings)
