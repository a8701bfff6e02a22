"""One streaming call. A thread reads it, so that every wait for a message has a limit and Ctrl-C works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc

from manyview._errors import Cancelled, Internal, ManyviewError, Unavailable, from_stream_error
from manyview._transport.deadline import take

Q = TypeVar("Q")
R = TypeVar("R")

# Messages that are read before the caller asks for them. Beyond that, flow control holds the server back.
_READ_AHEAD = 16


class Stream(Generic[Q, R]):
    """A stream of requests and replies. Close it, or leave its `with` block, to cancel the call if it still runs."""

    def __init__(
        self,
        call: Callable[[Iterator[Q]], Any],
        error_of: Callable[[grpc.RpcError], ManyviewError],
        *,
        target: str,
        idle_s: float,
        on_message: Callable[[], None] = lambda: None,
    ) -> None:
        """`call` starts the call. `error_of` converts its failure. `on_message` is called from another thread whenever
        there is something to receive."""
        self._start_call = call
        self._target = target
        self._error_of = error_of
        self._on_message = on_message
        self._idle_s = idle_s
        self._closed = threading.Event()
        self._outbox: queue.SimpleQueue[Q | None] = queue.SimpleQueue()
        self._inbox: queue.Queue[R | ManyviewError | None] = queue.Queue(_READ_AHEAD)
        self._call: Any = None

    def start(self) -> Stream[Q, R]:
        """Start the call and the thread that reads it, and return the stream."""
        self._call = self._start_call(iter(self._outbox.get, None))
        threading.Thread(target=self._read, name="manyview-stream", daemon=True).start()
        return self

    def __enter__(self) -> Stream[Q, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: Q) -> None:
        """Queue a message. The caller must limit how many are unanswered. `receive` reports a broken stream."""
        self._outbox.put(message)

    def finish_sending(self) -> None:
        """Half-close the stream: no more messages will be sent."""
        self._outbox.put(None)

    @property
    def ready(self) -> bool:
        """Would `receive` return at once?"""
        return not self._inbox.empty()

    def receive(self, timeout_s: float | None = None, *, idle_s: float | None = None) -> R | None:
        """Return the next message, or None at the regular end of the stream. `idle_s` replaces the stream's idle time.

        Raises TimeoutError if `timeout_s` passes first, Unavailable STREAM_IDLE if the stream was silent for its whole
        idle time, Cancelled if it was closed, and the call's error if it broke.
        """
        if self._closed.is_set() and self._inbox.empty():
            raise Cancelled("the stream was closed")
        idle_s = self._idle_s if idle_s is None else idle_s
        idle_first = timeout_s is None or timeout_s >= idle_s
        try:
            item = take(self._inbox, idle_s if idle_first else timeout_s)
        except queue.Empty:
            if idle_first:
                message = f"{self._target} sent nothing for {idle_s:g} s"
                raise Unavailable(message, reason="STREAM_IDLE") from None
            raise TimeoutError(f"no message within {timeout_s:g} s") from None
        if item is None or isinstance(item, ManyviewError):
            self._inbox.put(item)  # every later call must find the end again
            if item is not None:
                raise item
            return None
        return item

    def expect(self, kind: str, *, idle_s: float | None = None) -> R:
        """Return the next message, whose `payload` must be `kind`. `idle_s` replaces the stream's idle time.

        Raises the error that the server sent instead, Unavailable STREAM_ENDED if the server ended the stream, and
        Internal PROTOCOL for any other message.
        """
        message: Any = self.receive(idle_s=idle_s)
        if message is None:
            raise Unavailable("the server ended the stream too early", reason="STREAM_ENDED")
        received = message.WhichOneof("payload")
        if received == "error":
            raise from_stream_error(message.error)
        if received != kind:
            raise Internal(f"the server sent {received!r} where {kind!r} was expected", reason="PROTOCOL")
        expected: R = message
        return expected

    def close(self) -> None:
        """Cancel the call if it still runs. Another thread that waits in `receive` gets Cancelled."""
        self._closed.set()
        self._outbox.put(None)
        self._call.cancel()
        with suppress(queue.Full):  # a full inbox means that no thread waits
            self._inbox.put_nowait(Cancelled("the stream was closed"))

    def _read(self) -> None:
        try:
            for message in self._call:
                self._deliver(message)
            self._deliver(None)
        except grpc.RpcError as error:
            failure = self._error_of(error)
            failure.__cause__ = error
            self._deliver(failure)

    def _deliver(self, item: R | ManyviewError | None) -> None:
        while not self._closed.is_set():
            try:
                self._inbox.put(item, timeout=0.2)
                self._on_message()
                return
            except queue.Full:
                continue
