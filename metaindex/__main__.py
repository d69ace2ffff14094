"""``python -m metaindex`` is the ``metaindex`` command."""

import sys

from metaindex.cli import main

sys.exit(main())
