"""Requests for workers, and the descriptors that travel with them."""

from __future__ import annotations

import errno
import os

import pytest

from manyview_server.link.fork_requests import (
    ForkAnswer,
    ForkRequest,
    WorkerDescriptors,
    parse_answer,
    receive_request,
    send_answer,
    send_request,
    socket_pair,
)
from support.service.descriptors import open_descriptors


def test_descriptors_that_cannot_all_be_duplicated_leave_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    descriptors = WorkerDescriptors(link=read, notes=read, stdout=write, stderr=write)
    left = iter([os.dup(read), os.dup(read)])
    pipe = os.readlink(f"/proc/self/fd/{read}")

    def dup(descriptor: int) -> int:
        if (copy := next(left, None)) is None:
            raise OSError(errno.EMFILE, "too many open files")
        return copy

    monkeypatch.setattr(os, "dup", dup)
    with pytest.raises(OSError, match="too many open files"):
        descriptors.duplicate()
    ends = [entry for entry in open_descriptors() if entry.endswith(pipe)]
    assert sorted(ends) == sorted([f"{read} {pipe}", f"{write} {pipe}"])
    os.close(read)
    os.close(write)


def test_a_request_arrives_with_copies_of_its_descriptors() -> None:
    ours, theirs = socket_pair()
    request = ForkRequest(kind="trainer", environment={"A": "ä"}, arguments=("--x",))
    read, write = os.pipe()
    with ours, theirs:
        send_request(ours, request, WorkerDescriptors(link=read, notes=read, stdout=write, stderr=write))
        received = receive_request(theirs)
        assert received
        arrived, descriptors = received
        assert (arrived.kind, arrived.environment, tuple(arrived.arguments)) == ("trainer", {"A": "ä"}, ("--x",))
        os.write(descriptors.stderr, b"hello")
        assert os.read(read, 5) == b"hello"
        descriptors.close()
        send_answer(theirs, ForkAnswer(pid=7))
        assert parse_answer(ours.recv(1000)) == ForkAnswer(pid=7)
    os.close(read)
    os.close(write)


def test_the_end_of_either_side_is_seen_and_a_request_too_long_is_an_oserror() -> None:
    ours, theirs = socket_pair()
    with theirs:
        ours.close()
        assert receive_request(theirs) is None
    ours, theirs = socket_pair()
    with ours, theirs:
        descriptors = WorkerDescriptors(link=0, notes=0, stdout=1, stderr=2)
        long = ForkRequest(kind="trainer", environment={"A": "x" * (4 << 20)})
        with pytest.raises(OSError, match="Message too long"):
            send_request(ours, long, descriptors)
        theirs.close()
        assert parse_answer(ours.recv(1000)).error == "it ended before it answered"
