"""A data set and a timer whose answers are known, for plans of jobs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from manyview_server import configuration
from manyview_server.errors import DeadlineExceeded, ServiceError
from manyview_server.front.jobs.job_plans import JobPlanner
from manyview_server.learn.methods.contrastive.simclr import SimCLRSettings
from manyview_server.learn.methods.reconstruction.mae import MAESettings
from manyview_server.messages.timing import StepTimed
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue, Device, Method

NUM_IMAGES, WIDTH, HEIGHT = 320, 600, 400
METHODS = {"simclr": SimCLRSettings, "mae": MAESettings}


@dataclass
class FakeTimer:
    """A step of ResNet-18 takes a second at 128 pixels. The time grows with the pixels and with the network."""

    device: str = "cpu"
    num_threads: int = 2
    starts_at_once: bool = True
    failure: ServiceError | None = None
    delay_s: float = 0.0
    step_s: float = 1.0
    embed_s: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def time(self, settings: dict[str, Any], *, num_images: int, decode_size: int, wait_s: float) -> StepTimed:
        network = {name: settings[name] for name in ("backbone", "backbone_width", "image_size")}
        self.asked.append({**network, "num_images": num_images, "decode_size": decode_size})
        await asyncio.sleep(min(self.delay_s, max(0.0, wait_s)))
        if self.failure is not None:
            raise self.failure
        if self.delay_s > wait_s:
            raise DeadlineExceeded("TIMING_DEADLINE", "too slow")
        factor = {"resnet9": 0.5, "resnet50": 2.3}.get(settings["backbone"], 1.0) * settings["backbone_width"] ** 2
        step_s = self.step_s * factor * (settings["image_size"] / 128) ** 2
        return StepTimed(batch_size=settings["batch_size"] or 32, step_s=step_s, embed_s=self.embed_s, decode_s=0.0)


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture(scope="session")
def torch_catalogue() -> Catalogue:
    """The real configurations of two methods."""
    methods = tuple(
        Method(name=name, title="", paper="", schema=configuration.json_schema(settings))
        for name, settings in METHODS.items()
    )
    devices = (Device(name="cpu", description="two cores", memory_bytes=1 << 30),)
    return Catalogue(versions={}, devices=devices, methods=methods, backbones=())


class AnyBackbone:
    """Knows no problem with any network."""

    async def problem(self, name: str) -> str:
        return ""

    async def find(self, name: str) -> None:
        return None


class AnyWeights:
    """Finds that all weights fit."""

    async def problem(self, weights_dir: Path, settings: Mapping[str, Any]) -> str:
        return ""


@pytest.fixture
def planner(shirts: Store, torch_catalogue: Catalogue) -> JobPlanner:
    return JobPlanner(shirts, torch_catalogue, AnyBackbone(), AnyWeights())


@pytest.fixture
async def shirts(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with 320 images of 600 x 400 pixels in the data set "shirts", 320 with labels in "labelled", 20 of 32 x
    32 in "icons", and "none"."""
    opened = Store.open(tmp_path / "planned")
    await fill(opened, "shirts", NUM_IMAGES, WIDTH, HEIGHT)
    await fill(opened, "labelled", NUM_IMAGES, WIDTH, HEIGHT, label="shirt")
    await fill(opened, "icons", 20, 32, 32)
    await opened.datasets.create("none")
    yield opened
    await opened.close()


async def fill(store: Store, dataset: str, count: int, width: int, height: int, label: str = "") -> None:
    await store.datasets.create(dataset)
    session = await store.uploads.open(dataset, "u1")
    await session.append(1, [_checked(b"%d" % number, width, height, label) for number in range(count)])


def _checked(data: bytes, width: int, height: int, label: str) -> CheckedImage:
    return CheckedImage(
        data=data,
        key=data.decode(),
        label=label,
        sha256=hashlib.sha256(data).digest(),
        extension="png",
        width=width,
        height=height,
    )
