"""Jobs: their events without gap or repeat, their history, and how they end."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyview
from manyview._testing.replies import WEIGHTS
from manyview.testing import FakeServer
from manyview.v1 import metrics_service_pb2 as pb
from manyview.v1 import model_service_pb2, train_job_service_pb2


@pytest.fixture
def job(client: manyview.Client) -> manyview.Job:
    client.upload([b"a", b"b"], "pets")
    return client.train("pets", "moco", backbone="resnet18", epochs=3, config={"views": {"blur": {"probability": 0.5}}})


def test_a_job_is_created_with_what_was_chosen(client: manyview.Client, job: manyview.Job, server: FakeServer) -> None:
    assert job.info.config == {
        "method": "moco", "backbone": "resnet18", "epochs": 3, "views": {"blur": {"probability": 0.5}},
    }  # fmt: skip
    assert isinstance(job.info.config["epochs"], int)
    assert client.job(job.id).name == client.jobs()[0].name == job.name


def test_a_configuration_is_resolved_without_creating_a_job(client: manyview.Client) -> None:
    client.upload([b"a"], "pets")
    assert client.resolve_config("pets", config={"seed": 1}) == {"method": "simclr", "seed": 1}
    assert client.jobs() == []


def test_a_parameter_given_twice_is_refused(client: manyview.Client) -> None:
    with pytest.raises(ValueError, match="epochs is given twice"):
        client.train("pets", epochs=3, config={"epochs": 4})
    with pytest.raises(ValueError, match="that JSON cannot represent"):
        client.train("pets", config={"epochs": float("nan")})


def test_events_come_live_in_order_and_end_with_the_job(job: manyview.Job, server: FakeServer) -> None:
    def train() -> None:
        for step in range(1, 30):
            server.add_scalars(job.name, step, loss=1 / step)
        server.finish_job(job.name)

    thread = threading.Thread(target=train)
    thread.start()
    events = list(job.metrics())
    thread.join()
    assert [event.sequence for event in events] == list(range(1, 31))
    assert events[1]["loss"] == 0.5
    assert events[1].get("knn_top1") is None
    assert (events[-1].kind, events[-1]["to"]) == ("state", "SUCCEEDED")
    with pytest.raises(KeyError, match="a scalars event has no 'acc'; it has loss"):
        events[0]["acc"]


def test_broken_connections_leave_neither_gap_nor_repeat(job: manyview.Job, server: FakeServer) -> None:
    for step in range(1, 20):
        server.add_scalars(job.name, step, loss=1.0)
    server.finish_job(job.name)
    for after in (1, 5, 0, 7):
        server.fail("SubscribeMetrics", "UNAVAILABLE", after=after)
    assert [event.sequence for event in job.metrics(after=3)] == list(range(4, 21))
    cursors = [request.after_sequence for request in server.requests("SubscribeMetrics")]
    assert cursors == [3, 4, 9, 9, 16]


def test_a_stream_that_ends_without_its_end_is_opened_again(job: manyview.Job, server: FakeServer) -> None:
    server.add_scalars(job.name, 1, loss=1.0)
    server.finish_job(job.name)
    draining = pb.SubscribeMetricsResponse(cursor=1, end=pb.EndOfStream(reason="REASON_DRAINING"))
    event = pb.SubscribeMetricsResponse(events=server.state.events[job.name][:1], cursor=1)
    server.reply("SubscribeMetrics", lambda *_: iter([event]), lambda *_: iter([draining]))
    assert [event.sequence for event in job.metrics()] == [1, 2]
    assert len(server.requests("SubscribeMetrics")) == 3


def test_a_proxys_limit_on_streams_is_bridged_at_the_cursor(job: manyview.Job, server: FakeServer) -> None:
    for step in range(1, 5):
        server.add_scalars(job.name, step, loss=1.0)
    server.finish_job(job.name)
    server.fail("SubscribeMetrics", "DEADLINE_EXCEEDED", message="stream timeout", after=2)
    assert [event.sequence for event in job.metrics()] == [1, 2, 3, 4, 5]
    assert [request.after_sequence for request in server.requests("SubscribeMetrics")] == [0, 2]


@pytest.mark.parametrize("timeout_s", [None, 10.0], ids=["without a limit", "with a limit"])
def test_a_deadline_of_the_servers_keeps_its_reason(
    job: manyview.Job, server: FakeServer, timeout_s: float | None
) -> None:
    server.fail("SubscribeMetrics", "DEADLINE_EXCEEDED", message="the server's words", reason="SOME_DEADLINE")
    with pytest.raises(manyview.DeadlineExceeded, match="the server's words") as raised:
        job.wait(timeout_s)
    assert raised.value.reason == "SOME_DEADLINE"


def test_without_follow_the_events_end_where_the_log_does(job: manyview.Job, server: FakeServer) -> None:
    server.add_scalars(job.name, 1, loss=1.0)
    assert len(list(job.metrics(follow=False))) == 1


def test_only_the_kinds_asked_for_come(job: manyview.Job, server: FakeServer) -> None:
    server.add_scalars(job.name, 1, loss=1.0)
    server.add_event(job.name, kind="KIND_ALERT", alert=pb.Alert(reason="COLLAPSE", message="std 0.01"))
    server.finish_job(job.name)
    assert [(event.kind, event["reason"]) for event in job.metrics(kinds=["alert"])] == [("alert", "COLLAPSE")]
    with pytest.raises(ValueError, match=r"kinds must be one of scalars, .*, not 'loss'"):
        next(iter(job.metrics(kinds=["loss"])))  # type: ignore[list-item]


def test_a_cursor_that_is_too_old_is_an_error_not_a_gap(job: manyview.Job, server: FakeServer) -> None:
    server.fail("SubscribeMetrics", "OUT_OF_RANGE", reason="SEQUENCE_EXPIRED", metadata={"oldest": "500"})
    with pytest.raises(manyview.OutOfRange) as raised:
        next(iter(job.metrics(after=1)))
    assert raised.value.metadata == {"oldest": "500"}


def test_a_cursor_beyond_the_newest_event_is_an_error_with_both_ends_of_what_is_held(
    job: manyview.Job, server: FakeServer
) -> None:
    server.add_scalars(job.name, 1, loss=1.0)
    with pytest.raises(manyview.OutOfRange) as raised:
        next(iter(job.metrics(after=9)))
    assert raised.value.reason == "SEQUENCE_AHEAD"
    assert raised.value.metadata == {"oldest": "1", "newest": "1"}


def test_a_server_that_stays_away_is_given_up_after_the_callers_time(job: manyview.Job, server: FakeServer) -> None:
    server.fail("SubscribeMetrics", "UNAVAILABLE", times=999)
    start = time.monotonic()
    with pytest.raises(manyview.Unavailable):
        next(iter(job.metrics(reconnect_timeout_s=0.5)))
    assert time.monotonic() - start < 2


def test_every_kind_of_event_has_its_values(job: manyview.Job, server: FakeServer) -> None:
    server.add_event(job.name, kind="KIND_CHECKPOINT", checkpoint=pb.CheckpointSaved(name="c", num_bytes=5))
    server.add_event(job.name, kind="KIND_ROLLBACK", rollback=pb.Rollback(to_step=3, superseded_after_sequence=1))
    server.add_event(job.name, kind="KIND_LOG", log={"level": "LEVEL_WARNING", "text": "slow"})
    assert [(event.kind, event.values) for event in job.metrics(follow=False)] == [
        ("checkpoint", {"name": "c", "num_bytes": 5}),
        ("rollback", {"to_step": 3, "superseded_after_sequence": 1}),
        ("log", {"level": "WARNING", "text": "slow"}),
    ]


def test_the_history_is_a_table_over_all_pages(job: manyview.Job, server: FakeServer) -> None:
    first = pb.MetricsRow(sequence=1, step=10, values={"loss": 2.0})
    second = pb.MetricsRow(sequence=4, step=20, values={"loss": 1.0, "knn_top1": 0.5})
    server.reply(
        "QueryMetrics",
        pb.QueryMetricsResponse(rows=[first], next_page_token="2"),
        pb.QueryMetricsResponse(rows=[second]),
    )
    history = job.history(["loss", "knn_top1"], max_rows=50)
    assert (len(history), history.names) == (2, ("loss", "knn_top1"))
    np.testing.assert_array_equal(history["loss"], [2.0, 1.0])
    np.testing.assert_array_equal(history["knn_top1"], [np.nan, 0.5])
    np.testing.assert_array_equal(history["step"], [10, 20])
    requests = server.requests("QueryMetrics")
    assert [(request.page_token, request.max_rows) for request in requests] == [("", 50), ("2", 50)]
    with pytest.raises(KeyError, match="there is no scalar named 'acc'; known: loss, knn_top1"):
        history["acc"]


def test_waiting_ends_when_the_job_has_succeeded(job: manyview.Job, server: FakeServer) -> None:
    timer = threading.Timer(0.2, server.finish_job, [job.name])
    timer.start()
    assert job.wait(timeout_s=10).state == job.state == "SUCCEEDED"
    timer.join()


def test_waiting_shows_the_steps_of_the_job(job: manyview.Job, server: FakeServer) -> None:
    seen: list[tuple[int, int | None]] = []

    def count(done: int, total: int | None) -> None:
        seen.append((done, total))
        server.finish_job(job.name)

    progress = train_job_service_pb2.Progress(step=120, num_steps=300)
    running = train_job_service_pb2.TrainJob(state="TRAIN_JOB_STATE_RUNNING", progress=progress)
    server.state.jobs[job.name].MergeFrom(running)
    assert job.wait(timeout_s=10, progress=count).state == "SUCCEEDED"
    assert seen == [(120, 300)]


def test_waiting_that_nobody_watches_asks_no_more_than_it_must(job: manyview.Job, server: FakeServer) -> None:
    timer = threading.Timer(1.5, server.finish_job, [job.name])
    timer.start()
    server.calls.clear()
    job.wait(timeout_s=10)
    timer.join()
    assert len([call for call in server.calls if call.rpc == "GetTrainJob"]) == 2


def test_waiting_for_a_job_that_fails_says_why(job: manyview.Job, server: FakeServer) -> None:
    failure = {"reason": "NON_FINITE_LOSS", "message": "step 3", "hint": "lower the learning rate"}
    server.finish_job(job.name, "FAILED", failure=failure)
    with pytest.raises(manyview.TrainJobFailed, match="lower the learning rate") as raised:
        job.wait()
    assert (raised.value.reason, raised.value.job) == ("NON_FINITE_LOSS", job.name)


def test_waiting_for_a_cancelled_job_says_so(job: manyview.Job) -> None:
    assert job.cancel().state == "CANCELLED"
    with pytest.raises(manyview.TrainJobCancelled):
        job.wait()


def test_waiting_has_a_limit(job: manyview.Job) -> None:
    with pytest.raises(TimeoutError, match=r"not done within 0.5 s"):
        job.wait(timeout_s=0.5)


def test_the_first_look_at_a_job_is_within_the_limit_too(job: manyview.Job, server: FakeServer) -> None:
    server.calls.clear()
    with pytest.raises(TimeoutError, match=r"not done within 0.5 s"):
        job.wait(timeout_s=0.5)
    (look,) = [call for call in server.calls if call.rpc == "GetTrainJob"]
    assert look.deadline_s is not None
    assert look.deadline_s < 2, "the wire rounds up; the client's deadline for calls is 10 s"


def test_waiting_for_no_time_looks_once(job: manyview.Job, server: FakeServer) -> None:
    with pytest.raises(TimeoutError, match=r"not done within 0 s"):
        job.wait(timeout_s=0)
    server.finish_job(job.name)
    assert job.wait(timeout_s=0).state == "SUCCEEDED"


def test_only_a_terminal_job_can_be_deleted(client: manyview.Client, job: manyview.Job, server: FakeServer) -> None:
    with pytest.raises(manyview.FailedPrecondition):
        job.delete()
    server.finish_job(job.name)
    job.delete()
    with pytest.raises(manyview.NotFound):
        job.refresh()


def test_a_followed_log_without_lines_is_kept_open_by_heartbeats(server: FakeServer) -> None:
    """The log is without a line for longer than a client waits for a server that says nothing."""
    deadlines = manyview.Deadlines(idle_s=1, reconnect_s=2)
    server.state.heartbeat_s = 0.1
    heard = threading.Event()
    with manyview.Client(server.target, deadlines=deadlines) as client:
        client.upload([b"a"], "pets")
        job = client.train("pets")

        def is_quiet(request: Any, context: Any) -> Iterator[Any]:
            for beat, message in enumerate(server.state.tail_logs(request, context)):
                if beat == 50:
                    heard.set()
                yield message

        def ends() -> None:
            heard.wait(30)
            server.state.logs[job.name].append("the only line")
            server.finish_job(job.name)

        server.reply("TailLogs", is_quiet)
        thread = threading.Thread(target=ends)
        thread.start()
        assert [line.text for line in job.logs(follow=True)] == ["the only line"]
        thread.join()


def test_log_lines_come_once_over_broken_connections(job: manyview.Job, server: FakeServer) -> None:
    server.state.logs[job.name] = ["one", "two"]
    server.finish_job(job.name)

    def breaks(request: Any, context: Any) -> Iterator[Any]:
        yield next(iter(server.state.tail_logs(request, context)))

    server.reply("TailLogs", breaks)
    assert [(line.sequence, line.text) for line in job.logs(follow=True)] == [(1, "one"), (2, "two")]
    assert len(server.requests("TailLogs")) == 2


def test_weights_are_written_whole_or_not_at_all(job: manyview.Job, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    server.fail("ExportModel", "UNAVAILABLE", after=2)
    assert job.export(path) == path
    assert path.read_bytes() == WEIGHTS
    header = model_service_pb2.ExportHeader(num_bytes=3, sha256=b"0" * 32)
    damaged = [
        model_service_pb2.ExportModelResponse(header=header),
        model_service_pb2.ExportModelResponse(chunk=b"abc"),
    ]
    server.reply("ExportModel", lambda *_: iter(damaged))
    with pytest.raises(manyview.DataLoss, match="does not match its SHA-256"):
        job.export(tmp_path / "other")
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_are_the_jobs_own(job: manyview.Job) -> None:
    assert [model.train_job for model in job.checkpoints()] == [job.name]


def test_methods_come_with_their_schema(client: manyview.Client) -> None:
    found = client.methods()
    assert found.methods[0].config_schema["properties"]["epochs"]["default"] == 100
    assert found.backbones == (manyview.Backbone(name="resnet18", feature_dim=512, num_parameters=0),)


def test_states_are_those_of_the_contract() -> None:
    state: Any = train_job_service_pb2.TrainJob.DESCRIPTOR.fields_by_name["state"].enum_type
    names = state.values_by_name
    from manyview._types.words import TERMINAL_STATES

    assert {f"TRAIN_JOB_STATE_{state}" for state in TERMINAL_STATES} <= set(names)


def test_a_job_that_follows_its_data_set_is_asked_for_with_its_first_images(
    client: manyview.Client, server: FakeServer
) -> None:
    client.create_dataset("robots")
    job = client.train("robots", config={"max_steps": 100}, follow=64, job_id="following")
    assert (job.info.min_images, job.info.num_images) == (64, 0)
    (request,) = server.requests("CreateTrainJob")
    assert request.follow.min_images == 64
    assert not client.train("robots", job_id="static").info.min_images
    with pytest.raises(manyview.AlreadyExists):
        client.create_dataset("robots")
