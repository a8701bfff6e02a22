"""The process from start to end: what it prints, how it ends, and that it starts nowhere twice."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from manyview.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from manyview_server.__main__ import main
from manyview_server.config import ServeSettings
from manyview_server.errors import Unavailable
from manyview_server.front import app as app_module
from manyview_server.front.app import App
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError, Device
from manyview_server.supervise.embedders.embedder import EmbedderSupervisor
from manyview_server.supervise.previewers.previewer import PreviewerSupervisor
from manyview_server.supervise.selectors.selector import SelectorPool
from manyview_server.supervise.trainers.jobs import JobSupervisor
from support.service.harness import free_port

CATALOGUE = Catalogue(
    versions={}, devices=(Device(name="cpu", description="", memory_bytes=1 << 30),), methods=(), backbones=()
)


@pytest.fixture(autouse=True)
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describing takes seconds and a torch."""

    async def read_or_describe(path: Path) -> Catalogue:
        return CATALOGUE

    monkeypatch.setattr(app_module, "read_or_describe", read_or_describe)


def settings(data: Path, **fields: Any) -> ServeSettings:
    return ServeSettings(**{"listen": "127.0.0.1:0", "data": data, "drain_s": 5, **fields})


async def serving(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The line that says where it serves."""
    async with asyncio.timeout(20):
        while not (out := capsys.readouterr().out):
            await asyncio.sleep(0.02)
    line: dict[str, Any] = json.loads(out)
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_the_store_can_be_opened_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    store = Store.open(tmp_path)
    await store.datasets.create("shirts")
    await store.jobs.create("j", "shirts", "simclr", {}, "1")
    await store.jobs.request("j", CANCEL)
    await store.close()
    running = asyncio.create_task(App(settings(tmp_path), "1").run())
    line = await serving(capsys)
    assert line["event"] == "serving"
    assert line["pid"] == os.getpid()
    async with grpc.aio.insecure_channel(line["address"]) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        responses = [
            r async for r in stub.SubscribeMetrics(metrics_service_pb2.SubscribeMetricsRequest(train_job="trainJobs/j"))
        ]
        assert responses[-1].end.reason == metrics_service_pb2.EndOfStream.REASON_JOB_TERMINAL
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            assert await running == 0
    reopened = Store.open(tmp_path)
    await reopened.close()


async def test_who_watches_health_is_told_and_does_not_hold_the_drain_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = asyncio.create_task(App(settings(tmp_path, drain_s=60), "1").run())
    line = await serving(capsys)
    async with grpc.aio.insecure_channel(line["address"]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await running == 0


async def test_the_parents_end_drains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "PARENT_POLL_S", 0.02)
    running = asyncio.create_task(App(settings(tmp_path, exit_with_parent=True), "1").run())
    await serving(capsys)
    monkeypatch.setattr(os, "getppid", lambda: 1_000_000)
    async with asyncio.timeout(10):
        assert await running == 0


async def test_a_data_directory_in_use_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(tmp_path)
    assert await App(settings(tmp_path), "1").run() == 1
    assert "in use" in caplog.text
    await store.close()


async def test_a_data_directory_that_cannot_be_made_is_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert await App(settings(tmp_path / "file" / "data"), "1").run() == 1
    assert "cannot start" in caplog.text


async def test_a_start_that_fails_lets_go_of_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await App(settings(tmp_path, device="cuda:3"), "1").run() == 1
    assert "cuda:3" in caplog.text

    async def read_or_describe(path: Path) -> Catalogue:
        raise CatalogueError("no torch here")

    monkeypatch.setattr(app_module, "read_or_describe", read_or_describe)
    assert await App(settings(tmp_path), "1").run() == 1
    assert "no torch here" in caplog.text
    await Store.open(tmp_path).close()


@pytest.mark.parametrize("error", [Unavailable("STORE_UNAVAILABLE", "read-only disk"), RuntimeError("a bug")])
async def test_a_server_whose_jobs_do_not_come_up_answers_nobody_and_ends_with_status_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    listening, failing = asyncio.Event(), asyncio.Event()

    async def start(self: JobSupervisor) -> None:
        listening.set()
        await failing.wait()
        raise error

    monkeypatch.setattr(JobSupervisor, "start", start)
    address = f"127.0.0.1:{free_port()}"
    running = asyncio.create_task(App(settings(tmp_path, listen=address), "1").run())
    async with asyncio.timeout(20):
        await listening.wait()
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=0.5)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await health
            assert refused.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        failing.set()
        assert await running == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage().startswith("cannot start")
    assert str(error) in caplog.text
    await Store.open(tmp_path).close()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # nobody listens there any more
        free.bind(("127.0.0.1", int(address.rpartition(":")[2])))


async def test_a_taken_port_starts_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(self: JobSupervisor) -> None:
        raise AssertionError("jobs were started")

    monkeypatch.setattr(JobSupervisor, "start", start)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert await App(settings(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}"), "1").run() == 1
    assert "cannot listen" in caplog.text
    await Store.open(tmp_path).close()


async def test_a_worker_that_does_not_end_holds_up_neither_the_others_nor_the_end(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []

    async def hang(self: object) -> None:
        await asyncio.Event().wait()

    async def fail(self: object) -> None:
        raise RuntimeError("a bug")

    async def close(self: object) -> None:
        closed.append("previewer")

    monkeypatch.setattr(app_module, "CLOSE_S", 0.1)
    monkeypatch.setattr(SelectorPool, "close", hang)
    monkeypatch.setattr(EmbedderSupervisor, "close", fail)
    monkeypatch.setattr(PreviewerSupervisor, "close", close)
    running = asyncio.create_task(App(settings(tmp_path), "1").run())
    await serving(capsys)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await running == 0
    assert closed == ["previewer"]
    assert "the selector did not end within 0.1 seconds" in caplog.text
    assert "the embedder could not be ended" in caplog.text
    await Store.open(tmp_path).close()


def test_the_command_knows_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out[0].isdigit()
    assert main(["--help"]) == 0
    assert main([]) == 2
    assert main(["server"]) == 2
    assert main(["serve", "--data", "x", "--device", "tpu"]) == 2
    assert "device" in capsys.readouterr().err


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "manyview_server", "--version"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50)
    assert result.stdout.count(".") >= 2
