"""Listings whose items are large are cut by bytes: every page can be received, and together they hold everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

import manyview
from manyview.v1 import dataset_service_pb2 as ds
from manyview.v1 import metrics_service_pb2 as ms
from manyview.v1 import model_service_pb2 as mo
from manyview.v1 import train_job_service_pb2 as tj
from manyview_server.front.models import service
from manyview_server.front.rpc import pages
from manyview_server.store.event_payloads import Log, Scalars
from manyview_server.store.records import CheckedImage, NewEvent

MESSAGE_BYTES = 4 << 20
"""The largest message that a gRPC client receives by default."""


async def all_pages(call: Callable[..., Any], request: Any, items: str) -> tuple[list[int], list[Any]]:
    """The number of items of each page, and all items."""
    found: list[Any] = []
    sizes: list[int] = []
    while True:
        reply = await call(request)
        assert reply.ByteSize() < MESSAGE_BYTES
        page = getattr(reply, items)
        assert page, "a page without items would never end"
        sizes.append(len(page))
        found += page
        request.page_token = reply.next_page_token
        if not request.page_token:
            return sizes, found


@pytest.fixture
async def large_jobs(front: Any) -> list[str]:
    """Jobs of an earlier release, which took configurations of any length: about 300 kB each, and one of 1.2 MB."""
    await front.store.datasets.create("shirts")
    names = [f"j{number}" for number in range(7)]
    for number, name in enumerate(names):
        more = [{"k": 20, "temperature": 0.1}] * (20_000 if number == 5 else 5_000)
        await front.store.jobs.create(name, "shirts", "simclr", {"evaluation": {"knn_more": more}}, "0.1")
    return names


async def test_jobs_with_long_configurations_break_no_listing(front: Any, large_jobs: list[str]) -> None:
    request = tj.ListTrainJobsRequest(page_size=1000)
    sizes, jobs = await all_pages(front.jobs.ListTrainJobs, request, "train_jobs")
    assert [job.name for job in jobs] == [f"trainJobs/{name}" for name in reversed(large_jobs)]
    assert len(sizes) > 3


async def test_the_sdk_lists_all_of_them(front: Any, large_jobs: list[str]) -> None:
    def listed() -> list[str]:
        with manyview.Client(front.server.address) as client:
            return [job.name for job in client.jobs()]

    assert await asyncio.to_thread(listed) == [f"trainJobs/{name}" for name in reversed(large_jobs)]


async def test_images_with_long_keys_come_in_pages_that_fit(front: Any) -> None:
    await front.store.datasets.create("shirts")
    session = await front.store.uploads.open("shirts", "u")
    names = [f"{number:05}" + "k" * 1000 for number in range(3000)]
    images = [
        CheckedImage(
            data=name[:5].encode(),
            key=name,
            label="l" * 1000,
            sha256=int(name[:5]).to_bytes(4, "big") + bytes(28),
            extension="png",
            width=8,
            height=8,
        )
        for name in names[1:]
    ]
    await session.append(1, images)
    sizes, found = await all_pages(
        front.datasets.ListImages, ds.ListImagesRequest(dataset="datasets/shirts", page_size=10_000), "images"
    )
    assert [image.key for image in found] == names[1:]
    assert len(sizes) > 4

    def listed() -> list[str]:
        with manyview.Client(front.server.address) as client:
            return [image.key for image in client.images("shirts")]

    assert await asyncio.to_thread(listed) == names[1:]


async def test_rows_with_many_scalars_come_in_pages_that_fit(front: Any) -> None:
    await front.store.datasets.create("shirts")
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    many = {f"a_scalar_with_a_long_name_{number}": float(number) for number in range(300)}
    scalars = Scalars(values=many)
    await front.store.events.append("j", [NewEvent(payload=scalars, step=step) for step in range(900)])
    await front.store.events.flush("j")
    for max_rows in (0, 800):
        request = ms.QueryMetricsRequest(train_job="trainJobs/j", page_size=10_000, max_rows=max_rows)
        sizes, rows = await all_pages(front.metrics.QueryMetrics, request, "rows")
        assert len(sizes) > 4
        steps = [row.step for row in rows]
        assert (steps[0], steps[-1]) == (0, 899)
        assert steps == sorted(set(steps))
        assert len(steps) == 900 if not max_rows else 700 < len(steps) <= 800

    def history() -> int:
        with manyview.Client(front.server.address) as client:
            return len(client.job("j").history())

    assert await asyncio.to_thread(history) == 900


async def test_lines_that_are_too_long_are_cut_and_come_in_messages_that_fit(front: Any) -> None:
    await front.store.datasets.create("shirts")
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    long = Log(level="info", text="x" * 1_000_000)
    await front.store.events.append("j", [NewEvent(payload=long, step=step) for step in range(300)])
    call = front.jobs.TailLogs(tj.TailLogsRequest(train_job="trainJobs/j", num_lines=1000))
    messages = [message async for message in call]
    assert max(message.ByteSize() for message in messages) < MESSAGE_BYTES
    lines = [line for message in messages for line in message.lines]
    assert len(lines) == 300
    assert {len(line.log.text) for line in lines} == {8192}
    assert lines[0].log.text.endswith("x…")


def fitting_within(max_bytes: int, records: Any, convert: Any, _: int) -> Any:
    return pages.fitting(records, convert, max_bytes)


async def test_models_come_in_pages_that_fit(front: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await front.store.datasets.create("shirts")
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    card = {"method": "m" * 900, "backbone": "thin", "feature_dim": 3, "projection_dim": 3, "image_size": 32}
    card |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    for step in range(1, 9):
        directory = f"{step:09}-1"
        await front.store.checkpoints.add(
            "j", step=step, epoch=1, attempt=1, directory=directory, num_bytes=9, model=card
        )
    monkeypatch.setattr(service, "fitting", partial(fitting_within, 2_500))
    sizes, models = await all_pages(front.models.ListModels, mo.ListModelsRequest(page_size=1000), "models")
    assert [model.step for model in models] == [*range(8, 0, -1), 0, 0]
    assert max(sizes) < len(models)


async def test_a_configuration_that_is_too_large_is_refused_over_the_wire_by_its_field(
    front: Any, refused: Any
) -> None:
    await front.store.datasets.create("shirts")
    bomb = json_format.ParseDict({"views": {"pipelines": [{}] * 30_000}}, Struct())
    request = tj.CreateTrainJobRequest(dataset="datasets/shirts", method="simclr", config=bomb, validate_only=True)
    error = await refused(front.jobs.CreateTrainJob(request))
    assert (error.reason, error.fields) == ("FIELD_INVALID", ("config.views.pipelines",))
    assert "at most 256 are allowed" in error.text


async def test_a_page_of_large_items_is_asked_of_the_database_by_its_bytes(front: Any, large_jobs: list[str]) -> None:
    jobs, token = await front.store.jobs.list(1000, max_bytes=pages.PAGE_BYTES)
    assert len(jobs) < 6
    assert token
    alone, _ = await front.store.jobs.list(1000, max_bytes=1)
    assert len(alone) == 1
