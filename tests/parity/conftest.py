"""Comparisons with lightly 1.5.26, the reference. `make parity` sets up an environment that has it."""

from __future__ import annotations

import importlib.util

# Elsewhere, as in `make test`, none of this is collected; `make parity` then fails, since it finds no test.
collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("lightly") is None else []
