"""The catalogue is described once, and again when what it depends on has changed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from manyview_server.supervise.catalogue import catalogue_cache
from manyview_server.supervise.catalogue.catalogue import Backbone, Catalogue, CatalogueError, Device, Method
from manyview_server.supervise.catalogue.plugin_packages import packages_with_plugins
from support.service.plugins import install

CATALOGUE = Catalogue(
    versions={"torch": "2.11"},
    devices=(Device(name="cpu", description="2 cores", memory_bytes=1 << 34),),
    methods=(Method(name="simclr", title="SimCLR", paper="", schema={"type": "object"}),),
    backbones=(Backbone(name="resnet18", feature_dim=512, num_parameters=11_176_512),),
)


class Describe:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> Catalogue:
        self.calls += 1
        return CATALOGUE


async def test_a_second_start_does_not_describe_again(tmp_path: Path) -> None:
    describe, path = Describe(), tmp_path / "catalogue.json"
    assert await catalogue_cache.read_or_describe(path, describe) == CATALOGUE
    assert await catalogue_cache.read_or_describe(path, describe) == CATALOGUE
    assert describe.calls == 1


async def test_another_set_of_devices_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe, path = Describe(), tmp_path / "catalogue.json"
    await catalogue_cache.read_or_describe(path, describe)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    await catalogue_cache.read_or_describe(path, describe)
    assert describe.calls == 2


async def test_a_changed_source_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "learn" / "settings.py"
    source.parent.mkdir()
    source.write_text("a = 1")
    monkeypatch.setattr(catalogue_cache, "SOURCES", tmp_path)
    before = catalogue_cache.fingerprint()
    source.write_text("a = 12")
    assert catalogue_cache.fingerprint() != before


async def test_what_was_described_without_plugins_is_not_remembered(tmp_path: Path) -> None:
    async def without() -> Catalogue:
        return replace(CATALOGUE, without_plugins=True)

    assert (await catalogue_cache.read_or_describe(tmp_path / "catalogue.json", without)).without_plugins
    assert await catalogue_cache.read_or_describe(tmp_path / "catalogue.json", Describe()) == CATALOGUE


def test_a_plugins_changed_source_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "posterize", "a = 1")
    before = catalogue_cache.fingerprint()
    (tmp_path / "posterize_plugin.py").write_text("a = 12")
    assert catalogue_cache.fingerprint() != before


def test_a_plugin_that_is_installed_to_be_edited_is_described_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, source = tmp_path / "site", tmp_path / "a source" / "posterize.py"
    source.parent.mkdir()
    source.write_text("a = 1")
    install(site, "posterize", "")
    origin = {"url": source.parent.as_uri(), "dir_info": {"editable": True}}
    (site / "posterize_plugin-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(site))
    before = catalogue_cache.fingerprint()
    source.write_text("a = 12")
    assert catalogue_cache.fingerprint() != before
    assert packages_with_plugins() == ["posterize_plugin"]


@pytest.mark.parametrize("damaged", ["", "{}", "[1]", '{"fingerprint": "KEY", "catalogue": {"versions": 1}}'])
async def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damaged: str) -> None:
    describe, path = Describe(), tmp_path / "catalogue.json"
    path.write_text(damaged.replace("KEY", catalogue_cache.fingerprint()))
    assert await catalogue_cache.read_or_describe(path, describe) == CATALOGUE
    assert describe.calls == 1
    assert json.loads(path.read_text())["catalogue"]["devices"][0]["name"] == "cpu"


async def test_a_folder_that_cannot_be_written_only_costs_the_memory(tmp_path: Path) -> None:
    assert await catalogue_cache.read_or_describe(tmp_path / "missing" / "catalogue.json", Describe()) == CATALOGUE


async def test_a_failure_to_describe_is_the_callers(tmp_path: Path) -> None:
    async def fails() -> Catalogue:
        raise CatalogueError("no torch")

    with pytest.raises(CatalogueError, match="no torch"):
        await catalogue_cache.read_or_describe(tmp_path / "catalogue.json", fails)
    assert list(tmp_path.iterdir()) == []


async def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut soon after the first start costs no second description."""
    path, synced = tmp_path / "catalogue.json", list[tuple[str, bool]]()
    real = os.fsync

    def sync(fd: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, path.exists()))
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    await catalogue_cache.read_or_describe(path, Describe())
    assert synced == [("catalogue.tmp", False), (tmp_path.name, True)]
