"""Calls past the SDK: any message in any order, and errors as a client of any language would read them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

import manyview
from manyview._errors import from_rpc_error
from manyview.v1 import dataset_service_pb2 as datasets
from manyview.v1 import types_pb2

DEADLINE_S = 20.0
SHAPES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
LEAK = re.compile(r"Traceback|[A-Z]\w*(?:Error|Exception)\b|Errno|\.py\b|\.so\b|0x[0-9a-f]{6}|(?<!\w)/\w+/\w|\.tar\b")
"""Text that only exceptions and paths of the server contain."""


def assert_speaks_of_the_request_alone(text: str) -> None:
    """No exception's text and no path of the server's."""
    assert text.strip()
    assert not LEAK.search(text), text


@contextmanager
def refused(kind: type[manyview.ManyviewError], reason: str, *words: str) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block raises `kind` with `reason`; its text has all the `words` and nothing of the server's inside."""
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert error.code == kind.code
    assert error.reason == reason
    for word in words:
        assert word in str(error)
    assert_speaks_of_the_request_alone(str(error))


@dataclass(frozen=True)
class Answer:
    """The messages of a stream and, if it failed, the error of its status."""

    messages: list[Any]
    error: manyview.ManyviewError | None

    def assert_failed(self, code: str, reason: str) -> types_pb2.StreamError:
        """The last message is the error, and the status says the same; gives that message."""
        last = self.messages[-1].error
        assert self.error is not None
        assert (self.error.code, self.error.reason) == (code, reason)
        assert (last.code, last.reason) == (grpc.StatusCode[code].value[0], reason)
        assert last.message == self.error.message
        assert dict(last.metadata) == self.error.metadata
        assert_speaks_of_the_request_alone(last.message)
        return last


class Wire:
    """A channel without the SDK's limits."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])

    def call(self, stub: Callable[..., Any], method: str, request: Any) -> Any:
        """One unary call of the generated stub's class; its error as the SDK's."""
        try:
            return getattr(stub(self.channel), method)(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def send_bytes(self, service: str, method: str, *, streams: tuple[bool, bool], data: bytes) -> None:
        """Send `data` as a method's request, whatever it is, and read the answer to its end."""
        call: Any = getattr(self.channel, SHAPES[streams])(f"/{service}/{method}")
        try:
            answer = call(iter([data]) if streams[0] else data, timeout=DEADLINE_S)
            for _ in answer if streams[1] else ():
                pass
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def upload(self, requests: Iterable[datasets.UploadImagesRequest]) -> Answer:
        """Send these on one upload stream, half-close, and read to the end."""
        call = self.channel.stream_stream(
            "/manyview.v1.DatasetService/UploadImages",
            request_serializer=datasets.UploadImagesRequest.SerializeToString,
            response_deserializer=datasets.UploadImagesResponse.FromString,
        )
        messages = []
        try:
            for message in call(iter(list(requests)), timeout=DEADLINE_S):
                messages.append(message)
        except grpc.RpcError as error:
            return Answer(messages, from_rpc_error(error))
        return Answer(messages, None)


def image(data: bytes, key: str = "", label: str = "") -> types_pb2.Image:
    """An image with its checksum."""
    return types_pb2.Image(data=data, key=key, label=label, sha256=hashlib.sha256(data).digest())


def header(dataset: str, upload_id: str, resume_digest: bytes = b"") -> datasets.UploadImagesRequest:
    """The first message of an upload."""
    sent = datasets.UploadHeader(dataset=f"datasets/{dataset}", upload_id=upload_id, resume_digest=resume_digest)
    return datasets.UploadImagesRequest(header=sent)


def batch(number: int, *images: types_pb2.Image) -> datasets.UploadImagesRequest:
    """A numbered batch."""
    return datasets.UploadImagesRequest(batch=types_pb2.ImageBatch(number=number, images=images))


def finish(num_images: int) -> datasets.UploadImagesRequest:
    """The last message of an upload."""
    return datasets.UploadImagesRequest(finish=datasets.UploadFinish(num_images=num_images))
