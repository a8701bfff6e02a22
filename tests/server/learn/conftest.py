"""Plugins for tests of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from manyview_server.learn import plugins as registered
from manyview_server.learn.methods import from_plugin
from manyview_server.learn.views import custom
from support.service.plugins import install


def forget() -> None:
    """Search for plugins again."""
    registered.names.cache_clear()
    custom._found.cache_clear()
    from_plugin._found.cache_clear()


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`install` a package for the time of a test. Each needs a name of its own, because modules stay imported."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(*arguments: str, **options: str) -> None:
        partial(install, site)(*arguments, **options)
        forget()

    yield add
    monkeypatch.undo()
    forget()
