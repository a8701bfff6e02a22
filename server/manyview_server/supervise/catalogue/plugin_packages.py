"""Installed packages that register plugins, found by their metadata: the front imports none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

GROUPS = "manyview."
"""The prefix of all our groups of entry points."""


def packages_with_plugins() -> list[str]:
    """Return the names of the packages that register plugins."""
    return sorted({package.name for package in _packages()})


def plugin_files() -> Iterator[Path]:
    """Yield the files of those packages. The version of an editable install stays the same, so its sources count."""
    for package in _packages():
        for file in package.files or ():
            yield Path(str(package.locate_file(file)))
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            yield from Path(unquote(urlparse(origin["url"]).path)).rglob("*.py")


def _packages() -> Iterator[metadata.Distribution]:
    for package in metadata.distributions():
        if any(entry.group.startswith(GROUPS) for entry in package.entry_points):
            yield package
