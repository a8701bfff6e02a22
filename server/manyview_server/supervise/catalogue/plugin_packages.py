"""The installed packages that register plugins, as the front sees them: it imports none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

GROUPS = "manyview."
"""Every group of entry points that is ours begins so."""


def packages_with_plugins() -> list[str]:
    """Their names."""
    return sorted({package.name for package in _packages()})


def plugin_files() -> Iterator[Path]:
    """The files of those packages, also where one is installed to be edited: its version stays the same then."""
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
