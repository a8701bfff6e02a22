"""Subscribers of one job that are slow, late, or many, while it trains (F41, F42, F45)."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

import manyview
from manyview._results.events import event_from
from manyview.v1 import metrics_service_pb2 as pb
from manyview.v1 import metrics_service_pb2_grpc
from manyview_server import failpoints
from support.faults.evidence import Evidence, job_evidence, num_open_files
from support.faults.history import History, Record, read, record_of
from support.faults.validator import validate
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.service.prepared import queue_job
from support.soak.rounds import soaking

pytestmark = pytest.mark.timeout(240)

JOB = SMALL_JOB | {
    "method": "simclr",
    "memory_bank_size": 0,
    "epochs": 100_000,
    "checkpoint_every_epochs": 100,
    "evaluation": {"knn_every_epochs": 0},
}
"""A job that does not end by itself, with an event for each step."""
STEP_S = 0.03
NUM_OLD_EVENTS = 300_000 if soaking() else 3_000
"""A few hundred bytes each, which is many times the window of a subscriber."""
NUM_NEW_EVENTS = 100 if soaking() else 50
NUM_SUBSCRIBERS = 500 if soaking() else 100
PER_CONNECTION = 50
PATIENCE_S = 60.0

Report = Callable[[str, object], None]


class Stage:
    """A job that trains, with a long log."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        server.start()
        self.client = server.client()
        self.job = self.client.job("marathon")
        wait_until(lambda: self.job.refresh().state == "RUNNING", "the job trains", PATIENCE_S)

    def newest(self) -> int:
        return self.job.refresh().last_sequence

    def steps_per_s(self, seconds: float) -> float:
        """Steps per second, counted from the steps in the event log."""
        first, began = self.newest(), time.monotonic()
        time.sleep(seconds)
        return (self.newest() - first) / (time.monotonic() - began)

    def memory_kb(self) -> int:
        """Memory of the server's own process."""
        assert self.server.process is not None
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1])

    def cpu_s(self) -> float:
        """Processor time of the server's own process since its start."""
        assert self.server.process is not None
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("subscribers")
    photos = write_photos(folder / "training", 96, seed=1)
    queue_job(folder / "data", photos, "marathon", JOB, num_old_events=NUM_OLD_EVENTS)
    (folder / "failpoints").mkdir()
    # The cores are for the subscribers.
    (folder / "failpoints" / "trainer.step").write_text(f"sleep {STEP_S} always")
    server = ServerProcess(folder / "data", "--heartbeat-s", "1", catalogue=catalogue)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(failpoints.VARIABLE, str(folder / "failpoints"))
            stage = Stage(server)
        yield stage
        stage.client.close()
    finally:
        server.stop()
    wait_until(lambda: not server.processes(), "every process of the server is gone", 10)


def request(after: int = 0) -> pb.SubscribeMetricsRequest:
    return pb.SubscribeMetricsRequest(train_job="trainJobs/marathon", after_sequence=after, follow=True)


def late_by_s(event: manyview.Event) -> float:
    """The time from the commit of the event until now. Both clocks are this machine's."""
    assert event.time is not None
    return (datetime.now(UTC) - event.time).total_seconds()


def test_a_replay_of_all_goes_over_into_the_live_log_without_a_gap(
    stage: Stage, tmp_path: Path, record_property: Report
) -> None:
    """Several at once, begun at different moments, while the job trains."""
    until = stage.newest() + NUM_NEW_EVENTS

    def subscribe(number: int) -> list[float]:
        time.sleep(0.3 * number)
        history, lateness, end = History(tmp_path / f"subscriber-{number}"), [], None
        with stage.server.client() as client:
            for event in client.job("marathon").metrics():
                history.log_event("marathon", event)
                lateness.append(late_by_s(event))
                if end is None and event.sequence >= until:
                    end = stage.newest() + 50  # only events after this one are live, however long the replay took
                if end is not None and event.sequence >= end:
                    break
        return lateness[-50:]

    with ThreadPoolExecutor(2) as pool:
        lateness = [late for live in pool.map(subscribe, range(2)) for late in live]
    histories = {path.name: read(path) for path in tmp_path.glob("subscriber-*")}
    evidence = Evidence(jobs={"marathon": job_evidence(stage.client, "marathon")})
    verdict = validate(histories, evidence)
    verdict.assert_clean()
    assert verdict.events >= 2 * (NUM_OLD_EVENTS + NUM_NEW_EVENTS + 50)
    assert statistics.median(lateness) < 2
    record_property("events_replayed", verdict.events)
    record_property("max_median_lateness_ms", round(1000 * statistics.median(lateness)))


def test_subscribers_that_never_read_cost_nobody_anything_and_miss_nothing(
    stage: Stage, tmp_path: Path, record_property: Report
) -> None:
    before_kb, before_per_s = stage.memory_kb(), stage.steps_per_s(3)
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65_536),
    ]
    channels = [grpc.insecure_channel(stage.server.address, options) for _ in range(3)]
    stuck = [metrics_service_pb2_grpc.MetricsServiceStub(channel).SubscribeMetrics(request()) for channel in channels]
    history, lateness = History(tmp_path / "slow"), []
    with stage.server.client() as client:
        first = stage.newest()
        began = time.monotonic()
        for event in client.job("marathon").metrics(after=first):
            lateness.append(late_by_s(event))
            if time.monotonic() - began > 4:
                break
    during_per_s, during_kb = stage.steps_per_s(3), stage.memory_kb()
    # They read on at last: nothing is missing, though all of it was sent long ago or not yet.
    until = stage.newest()
    for call in stuck:
        expected = 1
        for message in call:
            assert [event.sequence for event in message.events] == list(range(expected, expected + len(message.events)))
            expected += len(message.events)
            for event in message.events if call is stuck[0] else ():
                history.log_event("marathon", event_from(event))
            if expected > until:
                break
        call.cancel()
    for channel in channels:
        channel.close()
    evidence = Evidence(jobs={"marathon": job_evidence(stage.client, "marathon")})
    validate({"slow": read(tmp_path / "slow")}, evidence).assert_clean()
    assert statistics.median(lateness) < 2
    assert during_per_s > before_per_s / 2
    assert during_kb - before_kb < 40_000
    record_property("max_median_lateness_ms", round(1000 * statistics.median(lateness)))
    record_property("max_slowdown_percent", round(100 * (1 - during_per_s / before_per_s)))
    record_property("max_memory_growth_kb", during_kb - before_kb)


def test_many_subscribers_at_once_see_the_same_and_the_server_stays_prompt(
    stage: Stage, record_property: Report
) -> None:
    files, cpu_s, began = num_open_files(stage.server), stage.cpu_s(), time.monotonic()
    since = stage.newest()
    until = since + NUM_NEW_EVENTS
    seen, health_s = asyncio.run(crowd(stage.server.address, since, until))
    share = (stage.cpu_s() - cpu_s) / (time.monotonic() - began)
    assert len(seen) == NUM_SUBSCRIBERS
    wanted = [event for event in job_evidence(stage.client, "marathon", since).events if event["sequence"] <= until]
    assert wanted[-1]["sequence"] == until
    assert all(events == [json.dumps(event) for event in wanted] for events in seen)
    assert statistics.quantiles(health_s, n=100)[98] < 2
    wait_until(lambda: num_open_files(stage.server) <= files, "the server's descriptors are back", 10)
    record_property("max_subscribers", len(seen))
    record_property("max_server_cpu_percent", round(100 * share))
    record_property("max_health_p99_ms", round(1000 * statistics.quantiles(health_s, n=100)[98]))
    record_property("max_health_median_ms", round(1000 * statistics.median(health_s)))


async def crowd(address: str, since: int, until: int) -> tuple[list[list[str]], list[float]]:
    """The events that each subscriber saw, as text, and how long the health calls beside them took."""
    channels = [
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-NUM_SUBSCRIBERS // PER_CONNECTION))
    ]

    async def subscribe(number: int) -> list[str]:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channels[number // PER_CONNECTION])
        events: list[Record] = []
        call = stub.SubscribeMetrics(request(since), timeout=PATIENCE_S)
        async for message in call:
            events += [record_of("marathon", event_from(event)) for event in message.events]
            if message.cursor >= until:
                break
        call.cancel()
        return [json.dumps(event) for event in events if event["sequence"] <= until]

    async def ask_for_health() -> list[float]:
        waits_s: list[float] = []
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
            while True:
                began = time.monotonic()
                try:
                    await check(b"", timeout=PATIENCE_S)
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    return waits_s
                waits_s.append(time.monotonic() - began - 0.02)

    asking = asyncio.create_task(ask_for_health())
    seen = await asyncio.gather(*(subscribe(number) for number in range(NUM_SUBSCRIBERS)))
    asking.cancel()
    health_s = await asking
    for channel in channels:
        await channel.close(None)
    return seen, health_s
