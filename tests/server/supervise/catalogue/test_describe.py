"""The catalogue is read from what a worker prints."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import Any

import pytest

from manyview_server.supervise.catalogue import describe as describe_module
from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError
from manyview_server.supervise.catalogue.describe import describe

DOCUMENT = {
    "versions": {"torch": "2"},
    "devices": [{"name": "cpu", "description": "a CPU", "memory_bytes": 1}],
    "methods": [{"name": "moco", "title": "MoCo", "paper": "", "schema": {"type": "object", "properties": {}}}],
    "backbones": [{"name": "resnet18", "feature_dim": 512, "num_parameters": 11}],
    "plugin_errors": [{"group": "g", "name": "n", "package": "p 1", "problem": "it fails", "traceback": "…"}],
}


async def test_the_catalogue_is_what_the_worker_prints(scripted: Any) -> None:
    assert await describe(scripted(describe=json.dumps(DOCUMENT))) == Catalogue.parse(json.dumps(DOCUMENT))


async def test_a_worker_that_fails_to_describe_is_told_with_what_it_printed() -> None:
    command = (sys.executable, "-S", "-c", "raise SystemExit('libcuda is broken')")
    with pytest.raises(CatalogueError, match=r"exit status 1(?s:.*)libcuda is broken"):
        await describe(command)


async def test_a_worker_that_takes_too_long_to_describe_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(CatalogueError, match=r"longer than 0\.2 seconds"):
        await describe((sys.executable, "-S", "-c", "import time; time.sleep(600)"), deadline_s=0.2)
    assert time.monotonic() - started < 10


async def test_a_missing_program_is_a_catalogue_error() -> None:
    with pytest.raises(CatalogueError, match="no-such-program"):
        await describe(("/no-such-program",))


async def test_where_describing_fails_with_plugins_it_is_done_without_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = json.dumps(DOCUMENT)
    program = f"import sys; sys.exit(7) if '--without-plugins' not in sys.argv else print({text!r})"
    command = (sys.executable, "-S", "-c", program)
    with pytest.raises(CatalogueError, match="exit status 7"):
        await describe(command)
    monkeypatch.setattr(describe_module, "packages_with_plugins", lambda: ["posterize"])
    assert await describe(command) == dataclasses.replace(Catalogue.parse(text), without_plugins=True)
    assert "describing the plugins of posterize failed, so all plugins are left out" in caplog.text
