"""What commands print with ``--json``."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON that every reader takes.

    Raises:
        ValueError: infinity or NaN is in it, for which JSON has no number.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        raise ValueError("the result holds infinity or NaN, for which JSON has no number; leave out --json to see it") from None
