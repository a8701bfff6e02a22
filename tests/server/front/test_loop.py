"""Nothing that grows with a request runs on the event loop.

Every rpc gets the largest request that it accepts, and a hostile one. The watchdog times each callback of the loop,
and what counts here is the processor time of the loop's thread: a busy machine makes a callback wait, but does not
let it compute longer. Cores that share caches or slow down may stretch it. On two busy cores, 46 ms were measured for
receiving an image of 32 MiB, 27 ms for sending one, and 58 ms for the request that takes longest. Work that is
bounded by the limits may take less than that, so the functions that do it also report the thread on which they run.
The clients run in threads of their own, so that none of their work is on the loop that is watched. The rpcs are taken
from the contract's descriptors: a new one fails the test until it has a case.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from typing import Any

import grpc
import pytest
from benchmarks.largest_requests import METHODS, Case, World, cases, large_ppm, send

from manyview_server.front.convert import job_messages
from manyview_server.front.datasets import service as dataset_service
from manyview_server.front.datasets import upload_stream
from manyview_server.front.embeddings import image_embedder, neighbors, queries, selection
from manyview_server.front.jobs import metrics, previews
from manyview_server.front.loop_watchdog import LoopWatchdog
from manyview_server.front.models import service as model_service
from manyview_server.messages.preview import PreviewDone, PreviewedImage, PreviewedView, PreviewImages
from manyview_server.store.event_payloads import Log, Scalars
from manyview_server.store.records import CheckedImage, NewEvent
from manyview_server.supervise.catalogue.catalogue import Backbone, Catalogue, Device, Method

MOST_CPU_MS = 80
REFUSED = "INVALID_ARGUMENT"
CALL_S = 40.0
NUM_IMAGES, NUM_JOBS, NUM_EVENTS, NUM_LINES, NUM_DATASETS, NUM_CHECKPOINTS = 2_000, 30, 8_000, 4_000, 900, 1_000

OFF_LOOP: list[tuple[Any, str]] = [
    (Catalogue, "resolve"),
    (job_messages, "struct"),
    (job_messages, "plain"),
    (metrics, "fitting"),
    (model_service, "fitting"),
    (metrics, "thinned"),
    (upload_stream, "check_upload"),
    (image_embedder, "check_embed"),
    (selection, "read_selection"),
    (selection, "_message"),
    (queries, "_positions"),
    (neighbors, "_groups"),
    (previews, "_response"),
    (dataset_service, "stored_bytes"),
]
"""The functions whose work grows with a request."""

NUMBER = {"type": "number", "default": 0.5, "minimum": 0, "maximum": 1}
PIPELINE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "count": {"type": "integer", "default": 1, "minimum": 1},
        **{f"number{n}": NUMBER for n in range(12)},
        **{
            f"change{n}": {
                "type": "object",
                "additionalProperties": False,
                "properties": {f"strength{m}": NUMBER for m in range(5)},
            }
            for n in range(8)
        },
    },
}
SCHEMA: Any = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "epochs": {"type": "integer", "default": 50, "minimum": 1},
        "views": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "pipelines": {"type": "array", "items": PIPELINE, "default": [{}], "minItems": 1, "maxItems": 64}
            },
        },
        "batch_size": {"type": ["integer", "null"], "default": None},
        "evaluation": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"knn_every_epochs": {"type": "integer", "default": 0}},
        },
        "max_steps": {"type": ["integer", "null"], "default": None},
        "backbone": {"type": "string", "default": "thin"},
    },
}
"""A schema as large as that of a real method, with larger pipelines."""
CONFIG = {
    "views": {
        "pipelines": [
            {f"change{n}": {f"strength{m}": 0.25 for m in range(5)} for n in range(8)} | {"number3": index / 64}
            for index in range(64)
        ]
    }
}


@pytest.fixture
def offered() -> Catalogue:
    return Catalogue(
        versions={"torch": "0"},
        devices=(Device(name="cpu", description="a pretended CPU", memory_bytes=1 << 30),),
        methods=tuple(Method(name=f"m{n}", title="M", paper="", schema=SCHEMA) for n in range(13)),
        backbones=(Backbone(name="thin", feature_dim=3, num_parameters=11),),
    )


async def filled(front: Any, offered: Catalogue) -> World:
    """A server that holds much, of which one answer can show much."""
    store = front.store
    await store.datasets.create("shirts")
    files = [(f"{n}.png", b"shade %d" % n, ("cat", "dog")[n % 2]) for n in range(NUM_IMAGES)]
    checked = [
        CheckedImage(data=data, key=key, label=label, sha256=sha256(data).digest(), extension="png", width=8, height=8)
        for key, data, label in [*files, ("large.ppm", large_ppm(), "")]
    ]
    await (await store.uploads.open("shirts", "many")).append(1, checked)
    images, _ = await store.datasets.images("shirts", [], NUM_IMAGES)
    settings = offered.resolve("m0", CONFIG)
    for number in range(NUM_JOBS):
        await store.jobs.create(f"j{number}", "shirts", "m0", settings, "1")
    await store.jobs.transition("j0", {"QUEUED"}, "FAILED", reason="INTERNAL", message="m" * 1000)
    values = {"loss": 1.0, **{f"knn_top1_{n}": n / 100 for n in range(40)}}
    scalars = [NewEvent(payload=Scalars(values=values), step=step) for step in range(NUM_EVENTS)]
    lines = [NewEvent(payload=Log(level="info", text="l" * 500)) for _ in range(NUM_LINES)]
    await store.events.append("j0", scalars)
    await store.events.flush("j0")
    await store.events.append("j0", lines)
    card = {"method": "m0", "backbone": "thin", "feature_dim": 3, "projection_dim": 3, "image_size": 32}
    card |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    await store._database.write(
        lambda c: [
            c.executemany(
                "INSERT INTO dataset (dataset_id, uid, create_time) VALUES (?, ?, 1)",
                [(f"set{number:060}", f"{number}") for number in range(NUM_DATASETS)],
            ),
            c.executemany(
                "INSERT INTO checkpoint SELECT pk, ?, 1, 1, ?, 9, 1.0, 0, ? FROM job WHERE train_job_id = 'j0'",
                [(step, f"{step:09}-1", str(card).replace("'", '"')) for step in range(1, NUM_CHECKPOINTS)],
            ),
        ]
    )
    return World(
        dataset="datasets/shirts",
        image_ids=[f"{record.image_id:016x}" for record in images],
        large_key="large.ppm",
        job="trainJobs/j0",
        model="backbones/thin",
        method="m0",
        config=CONFIG,
    )


async def previewed(make: Callable[[], Awaitable[PreviewImages]], time_left_s: float) -> PreviewDone:
    """Return as many views, of as many bytes, as a preview may have."""
    request = await make()
    blob = bytes(request.max_pixel_bytes // (17 * len(request.blobs)))
    view = PreviewedView(pipeline=0, size=32, parameters={"crop": {"top": 1}, "blur": {"sigma": 1.5}})
    image = PreviewedImage(image_id=7, width=8, height=9, views=(view,) * 16)
    count = len(request.blobs)
    return PreviewDone(decode_size=64, images=(image,) * count, blobs=(blob,) * (17 * count))


@pytest.fixture
def on_loop(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The functions of `OFF_LOOP` that were called, and whether that was ever on the loop's thread."""
    found: dict[str, bool] = {}

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            found[name] = found.get(name, False) or threading.current_thread() is threading.main_thread()
            return function(*arguments, **named)

        return call

    for owner, name in OFF_LOOP:
        monkeypatch.setattr(owner, name, watched(f"{owner.__name__}.{name}", getattr(owner, name)))
    return found


@pytest.fixture
def young_heap() -> Iterator[None]:
    """Freeze the heap, as a server does when it starts. Otherwise the collector would look again and again at
    everything that the tests have imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("young_heap")
@pytest.mark.timeout(180)
async def test_no_request_keeps_the_loop_however_large_it_is(
    front: Any, offered: Catalogue, on_loop: dict[str, bool]
) -> None:
    front.previewer.preview = previewed
    world = await filled(front, offered)
    on_loop.clear()
    every = list(await asyncio.to_thread(lambda: list(cases(world))))
    assert {case.method for case in every} == set(METHODS), "each rpc needs a case in benchmarks/largest_requests.py"
    watchdog = LoopWatchdog()
    watchdog.start()
    statuses: dict[Case, str] = {}
    cpu_ms: dict[Case, float] = {}
    limit = [("grpc.max_receive_message_length", 64 << 20)]
    try:
        with grpc.insecure_channel(front.server.address, options=limit) as channel:
            for case in every:
                watchdog.reset()
                statuses[case] = await asyncio.to_thread(send, channel, case, CALL_S)
                cpu_ms[case] = 1000 * watchdog.hardest.cpu_s
    finally:
        watchdog.stop()
    assert {f"{case.method} {case.label}": ms for case, ms in cpu_ms.items() if ms > MOST_CPU_MS} == {}
    assert {case.method for case, status in statuses.items() if case.label == "bomb" and status != REFUSED} == set()
    assert {case.method for case, status in statuses.items() if status in ("INTERNAL", "UNKNOWN")} == set()
    assert on_loop == {f"{owner.__name__}.{name}": False for owner, name in OFF_LOOP}
