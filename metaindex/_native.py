"""The only importer of the compiled module, so that a missing one is one clear error.

``core`` is the compiled module, or a stand-in whose every attribute raises ``BackendError`` with the reason kept in
``missing``. The package stays importable without it: the reference scorer needs numpy only.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from metaindex.errors import BackendError


class _Missing(ModuleType):
    def __init__(self, reason: str) -> None:
        super().__init__("metaindex._core")
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspection by import machinery and debuggers must stay quiet
            raise AttributeError(name)
        raise BackendError(f"the compiled module metaindex._core is missing ({self._reason}); reinstall with: pip install .")


__all__ = ["core", "missing"]

missing: str | None = None
try:
    from metaindex import _core as core
except ImportError as error:
    missing = str(error)
    core = _Missing(missing)
