"""How fast this machine is: what ``metaindex doctor --calibrate`` measured, kept in the user's cache folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from metaindex.checks import usable_cores
from metaindex.planning.cost import FarRates, LaneRates, OperationRates, Rates, Threads

_VERSION = 2
Measured = Mapping[tuple[str, str], Rates]
"""Rates by the names of scorer and codec."""


def folder() -> Path:
    """``$XDG_CACHE_HOME/metaindex``, by default in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a path that is not absolute.
    return Path(root if os.path.isabs(root) else os.path.expanduser("~/.cache"), "metaindex")


def machine() -> dict[str, Any]:
    """What rates hold for: this processor, as many cores of it, and this version of the package."""
    from importlib import metadata  # some sixty modules, for those only who calibrated

    from metaindex.processor import caches, cpu_flags, cpu_model

    try:
        package = metadata.version("metaindex")
    except metadata.PackageNotFoundError:
        package = "source"
    known = {"cpu": cpu_model(), "flags": cpu_flags(), "caches": caches(), "cores": usable_cores()}
    return {"version": _VERSION, "package": package, **known}


def path() -> Path:
    """The file for this machine."""
    import hashlib

    key = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()[:16]
    return folder() / f"calibration-{key}.json"


def save(rates: Measured) -> Path:
    """Keep ``rates`` for this machine, beside those of other scorers and codecs, in one step; return the file."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = {**_read(target), **rates}
    entries = [{"scorer": scorer, "codec": codec, **asdict(each)} for (scorer, codec), each in kept.items()]
    staged = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    staged.write_text(json.dumps({"machine": machine(), "rates": entries}, indent=1), encoding="utf-8")
    staged.replace(target)
    _loaded.cache_clear()
    return target


def rates(scorer: str, codec: str) -> Rates | None:
    """The rates of a scorer for a codec on this machine; ``None`` where it was not calibrated."""
    return _loaded(str(folder())).get((scorer, codec))


def known() -> list[tuple[str, str]]:
    """The scorers and codecs that were calibrated on this machine."""
    return sorted(_loaded(str(folder())))


@lru_cache(maxsize=2)
def _loaded(where: str) -> Measured:
    return _read(path()) if os.path.isdir(where) else {}


def _read(file: Path) -> dict[tuple[str, str], Rates]:
    """What a file holds; nothing where it is missing or damaged: it can be measured again."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["rates"]
        return {(entry["scorer"], entry["codec"]): _rates(entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _rates(entry: dict[str, Any]) -> Rates:
    return Rates(_operation(entry["scan"]), _operation(entry["gather"]))


def _operation(entry: dict[str, Any]) -> OperationRates:
    count, *threads = entry["threads"]
    stage, document, piece, byte, near, away = entry["far"]
    if not 0 < near < away:
        raise ValueError(f"far: expected two rising sizes of caches, got {near} and {away}")
    return OperationRates(
        stage=float(entry["stage"]),
        comparison=float(entry["comparison"]),
        pack=float(entry["pack"]),
        kept=float(entry["kept"]),
        sifted=float(entry["sifted"]),
        lanes=tuple(LaneRates(int(lanes), *map(float, each)) for lanes, *each in entry["lanes"]),
        piece=float(entry["piece"]),
        far=FarRates(float(stage), float(document), float(piece), float(byte), int(near), int(away)),
        threads=Threads(int(count), *map(float, threads)),
    )
