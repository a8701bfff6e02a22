"""The rules that every call runs under: deadlines, retries, the token, TLS."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import manyview
from manyview._transport.backoff import Backoff
from manyview._transport.channel import Channel
from manyview.testing import FakeServer
from manyview.v1 import model_service_pb2

UNARY = {
    "GetDataset": lambda client: client.dataset("pets"),
    "ListDatasets": lambda client: client.datasets(),
    "ListTrainJobs": lambda client: client.jobs(),
    "ListMethods": lambda client: client.methods(),
    "ListModels": lambda client: client.models(),
    "GetModel": lambda client: client.model("backbones/resnet18"),
    "GetServerInfo": lambda client: client.server_info(),
    "Check": lambda client: client.health(),
    "Embed": lambda client: client.embed([b"a"], "backbones/resnet18"),
}


@pytest.mark.parametrize("rpc", UNARY)
def test_a_call_with_one_answer_has_a_deadline(client: manyview.Client, server: FakeServer, rpc: str) -> None:
    client.upload([b"a"], "pets")
    server.calls.clear()
    UNARY[rpc](client)
    deadlines = [call.deadline_s for call in server.calls if call.rpc == rpc]
    assert len(deadlines) == 1
    assert deadlines[0] is not None
    assert 5 < deadlines[0] < 11  # the wire rounds up


def test_a_silent_stream_counts_as_broken(server: FakeServer) -> None:
    server.reply("SubscribeMetrics", *[lambda *_: _silence(server)] * 9)
    deadlines = manyview.Deadlines(idle_s=0.2, reconnect_s=0.7)
    with manyview.Client(server.target, deadlines=deadlines) as client:
        client.upload([b"a"], "pets")
        job = client.train("pets")
        with pytest.raises(manyview.Unavailable, match=r"sent nothing for 0.2 s") as raised:
            next(iter(job.metrics()))
    assert raised.value.reason == "STREAM_IDLE"
    assert sum(call.rpc == "SubscribeMetrics" for call in server.calls) >= 2


def _silence(server: FakeServer) -> Any:
    with server.state._changed:
        server.state._changed.wait_for(lambda: server.state._closed, 3)
    yield from ()


def test_an_unavailable_server_is_asked_again(client: manyview.Client, server: FakeServer) -> None:
    server.fail("GetServerInfo", "UNAVAILABLE", times=3)
    assert client.server_info().version == "0.0.0-fake"
    assert len(server.requests("GetServerInfo")) == 4


def test_a_server_that_stays_unavailable_is_given_up(client: manyview.Client, server: FakeServer) -> None:
    server.fail("GetServerInfo", "UNAVAILABLE", times=99, message="later")
    with pytest.raises(manyview.Unavailable, match="later"):
        client.server_info()
    assert len(server.requests("GetServerInfo")) == 5


def test_a_server_that_answered_before_is_waited_for(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyview._transport.channel.Backoff", partial(Backoff, sleep=lambda _: None))
    client.server_info()
    server.fail("GetServerInfo", "UNAVAILABLE", times=12)
    assert client.server_info().version == "0.0.0-fake"


def test_a_server_that_does_not_come_back_is_waited_for_until_the_deadline(server: FakeServer) -> None:
    with manyview.Client(server.target, timeout_s=0.5) as client:
        client.server_info()
        server.fail("GetServerInfo", "UNAVAILABLE", times=99, message="gone")
        began = time.monotonic()
        with pytest.raises(manyview.Unavailable, match="gone"):
            client.server_info()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("code", ["UNKNOWN", "INTERNAL", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_what_will_not_succeed_is_not_asked_again(client: manyview.Client, server: FakeServer, code: str) -> None:
    server.fail("GetServerInfo", code)
    with pytest.raises(manyview.ManyviewError):
        client.server_info()
    assert len(server.requests("GetServerInfo")) == 1


def test_a_call_that_the_server_gave_up_is_made_again(client: manyview.Client, server: FakeServer) -> None:
    """gRPC cancels the calls of a server whose loop has ended, without a word from the server itself."""
    server.fail("GetServerInfo", "CANCELLED")
    assert client.server_info().version == "0.0.0-fake"


def test_a_stream_that_the_server_gave_up_is_opened_again(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a"], "pets")
    job = client.train("pets")
    server.fail("SubscribeMetrics", "CANCELLED")
    events = list(job.metrics(follow=False))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(server.requests("SubscribeMetrics")) == 2


def test_a_full_server_that_says_when_to_come_back_is_asked_again(client: manyview.Client, server: FakeServer) -> None:
    server.fail("GetServerInfo", "RESOURCE_EXHAUSTED", retry_after_s=0.01)
    assert client.server_info().version == "0.0.0-fake"


def test_threads_that_call_at_once_get_their_own_answers(client: manyview.Client, server: FakeServer) -> None:
    names = [f"pets-{number}" for number in range(6)]
    for name in names[:5]:
        client.upload([b"a"], name)
    together = threading.Barrier(len(names))

    def answer(request: Any, context: Any) -> Any:
        together.wait(10)
        return server.state.get_dataset(request, context)

    server.reply("GetDataset", *[answer] * len(names))
    with ThreadPoolExecutor(len(names)) as pool:
        asked = [pool.submit(client.dataset, name) for name in names]
        assert [each.result(10).id for each in asked[:5]] == names[:5]
        with pytest.raises(manyview.NotFound, match="pets-5"):
            asked[5].result(10)


@pytest.fixture
def held(client: manyview.Client, server: FakeServer) -> Iterator[threading.Event]:
    """While another thread waits for its answer. The event is set when a further call of `server_info` is cancelled."""
    let_go, arrived, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hold(_: Any, context: Any) -> Any:
        context.add_callback(cancelled.set if arrived.is_set() else lambda: None)
        arrived.set()
        let_go.wait(10)
        return server.state.get_server_info(_, context)

    server.reply("GetServerInfo", hold, hold)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.server_info)
        assert arrived.wait(10)
        yield cancelled
        let_go.set()
        assert first.exception(10) is None


@pytest.mark.usefixtures("held")
def test_a_call_beside_another_has_a_deadline(client: manyview.Client) -> None:
    method, request = "/manyview.v1.ModelService/GetServerInfo", model_service_pb2.GetServerInfoRequest()
    began = time.monotonic()
    with pytest.raises(manyview.DeadlineExceeded):
        client._channel.unary(method, request, model_service_pb2.GetServerInfoResponse, timeout_s=0.3)
    assert 0.2 < time.monotonic() - began < 5


def test_a_call_beside_another_is_cancelled_by_an_interrupt(client: manyview.Client, held: threading.Event) -> None:
    interrupt = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        client.server_info()
    assert held.wait(5), "the server learns of it"


def test_a_client_that_is_closed_ends_all_its_calls(server: FakeServer) -> None:
    arrived, let_go = threading.Semaphore(0), threading.Event()

    def hold(request: Any, context: Any) -> Any:
        arrived.release()
        let_go.wait(10)
        return server.state.get_server_info(request, context)

    server.reply("GetServerInfo", hold, hold)
    client = manyview.Client(server.target, timeout_s=60)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.server_info) for _ in range(2)]
        assert all(arrived.acquire(timeout=10) for _ in asked)
        client.close()
        try:
            assert all(isinstance(each.exception(10), manyview.Cancelled) for each in asked)
        finally:
            let_go.set()


def test_a_change_keeps_its_request_id_over_all_attempts(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a"], "pets")
    server.fail("CreateTrainJob", "UNAVAILABLE", times=2)
    client.train("pets")
    client.train("pets")
    ids = [request.request_id for request in server.requests("CreateTrainJob")]
    assert len(ids[0]) == 36
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_the_token_goes_with_every_call() -> None:
    with FakeServer(token="secret") as server:
        with manyview.Client(server.target, token="secret") as client:
            client.upload([b"a"], "pets")
            client.health()
        assert {call.metadata["authorization"] for call in server.calls} == {"Bearer secret"}
        with manyview.Client(server.target, token="wrong") as client, pytest.raises(manyview.Unauthenticated):
            client.datasets()


def test_target_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(token="secret") as server:
        monkeypatch.setenv("MANYVIEW_TARGET", server.target)
        monkeypatch.setenv("MANYVIEW_TOKEN", "secret")
        with manyview.Client() as client:
            assert client.datasets() == []


def test_a_token_without_encryption_to_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel("gpu-box.invalid:1", token="secret", tls=None, deadlines=manyview.Deadlines())
    with caplog.at_level(logging.WARNING, "manyview"):
        channel._connect()
    channel.close()
    assert "without encryption" in caplog.text
    assert "secret" not in caplog.text


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    client = manyview.Client("localhost:1", tls=manyview.TLSOptions(cert=tmp_path / "cert.pem"))
    with pytest.raises(ValueError, match="set both cert and key, or neither"):
        client.health()


def test_a_closed_client_says_so(client: manyview.Client) -> None:
    client.close()
    client.close()
    with pytest.raises(ValueError, match="this client is closed"):
        client.health()


def test_nothing_is_connected_before_the_first_call() -> None:
    client = manyview.Client("no-such-host.invalid:1")
    assert repr(client) == "<manyview.Client no-such-host.invalid:1>"
    client.close()


def test_a_wait_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="idle_s must be above 0"):
        manyview.Deadlines(idle_s=0)
