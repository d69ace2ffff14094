"""Before anything imports Triton: on a machine without a GPU its kernels run under its interpreter."""

from __future__ import annotations

import os

from metaindex.device.devices import gpus

if not gpus():
    os.environ["TRITON_INTERPRET"] = "1"
