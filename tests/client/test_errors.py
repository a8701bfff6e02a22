"""Every status becomes the SDK's own error, with its details; the raw one stays its cause."""

import grpc
import pytest

import manyview
from manyview import _errors
from manyview.testing import FakeServer
from manyview.v1 import types_pb2

CODES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_class_of_its_own_with_reason_and_metadata(
    client: manyview.Client, server: FakeServer, code: str
) -> None:
    server.fail(
        "ListMethods", code, times=9, message="no", reason="WHY", metadata={"at": "7"}, violations={"epochs": "low"}
    )
    with pytest.raises(manyview.ManyviewError) as raised:
        client.methods()
    error = raised.value
    assert type(error).__name__ == "".join(word.title() for word in code.split("_"))
    assert (error.code, error.reason, error.message, error.metadata) == (code, "WHY", "no", {"at": "7"})
    assert error.violations == (manyview.Violation("epochs", "low"),)
    assert str(error) == "no [WHY]\n  epochs: low"
    assert isinstance(error.__cause__, grpc.RpcError)


def test_a_status_without_details_still_has_its_class(client: manyview.Client, server: FakeServer) -> None:
    server.fail("GetTrainJob", "NOT_FOUND", message="gone")
    with pytest.raises(manyview.NotFound, match="gone") as raised:
        client.job("x")
    assert (raised.value.reason, raised.value.retry_after_s) == ("", None)


def test_a_deadline_is_also_a_timeout_error() -> None:
    assert issubclass(manyview.DeadlineExceeded, TimeoutError)


def test_an_error_within_a_stream_says_as_much_as_one_in_the_status() -> None:
    message = types_pb2.StreamError(
        code=8, message="full", reason="DISK_FULL", metadata={"a": "b"}, retry_after_ms=1500
    )
    error = _errors.from_stream_error(message)
    assert isinstance(error, manyview.ResourceExhausted)
    assert (error.reason, error.metadata, error.retry_after_s) == ("DISK_FULL", {"a": "b"}, 1.5)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (manyview.Unavailable("x"), True),
        (manyview.ResourceExhausted("x", retry_after_s=1.0), True),
        (manyview.ResourceExhausted("x"), False),
        (manyview.Unknown("x"), False),
        (manyview.InvalidArgument("x"), False),
        (manyview.DeadlineExceeded("x"), False),
    ],
)
def test_only_what_may_succeed_later_is_transient(error: manyview.ManyviewError, transient: bool) -> None:
    assert _errors.is_transient(error) is transient


def test_one_wrong_field_is_one_line_and_several_are_a_list() -> None:
    one, two = manyview.Violation("config.epochs", "0 is too few"), manyview.Violation("", "and 150 more violations")
    error = manyview.InvalidArgument("config.epochs: 0 is…", reason="FIELD_INVALID", violations=(one,))
    assert str(error) == "config.epochs: 0 is too few [FIELD_INVALID]", "the message was cut"
    error = manyview.InvalidArgument("config.epochs: 0 is…", reason="FIELD_INVALID", violations=(one, two))
    lines = ["2 fields are wrong [FIELD_INVALID]", "  config.epochs: 0 is too few", "  and 150 more violations"]
    assert str(error).splitlines() == lines


@pytest.mark.parametrize(
    ("target", "end"),
    [
        ("localhost:1", "no manyview server answered at localhost:1: connection refused [UNAVAILABLE]"),
        ("127.0.0.1", "; the address has no port: is it 127.0.0.1:50051? [UNAVAILABLE]"),
    ],
)
def test_a_server_that_does_not_answer_is_reported_in_one_short_line(target: str, end: str) -> None:
    with manyview.Client(target, timeout_s=5) as client, pytest.raises(manyview.Unavailable) as raised:
        client.health()
    assert str(raised.value).endswith(end)
    assert len(str(raised.value)) < 150


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://gpu-box:50051/", "write 'gpu-box:50051'$"),
        ("https://gpu-box:50051", "write 'gpu-box:50051' with tls=True$"),
    ],
)
def test_a_url_is_no_target(url: str, advice: str) -> None:
    with pytest.raises(ValueError, match=f"target must be host:port, not a URL: '{url}'; {advice}"):
        manyview.Client(url)


def test_a_notebook_shows_the_lines_of_the_caller_alone(client: manyview.Client, server: FakeServer) -> None:
    with pytest.raises(manyview.NotFound) as raised:
        client.job("none")
    shown = "".join(raised.value._render_traceback_())
    assert 'client.job("none")' in shown
    assert shown.endswith("NotFound: no train job trainJobs/none [TRAIN_JOB_NOT_FOUND]")
    assert "_transport" not in shown
    assert "grpc" not in shown


def test_a_failed_job_says_what_to_do() -> None:
    error = manyview.TrainJobFailed("trainJobs/x", reason="CRASH_LOOP", message="died", hint="use fewer images")
    assert str(error) == "trainJobs/x failed: died [CRASH_LOOP]\n  use fewer images"
