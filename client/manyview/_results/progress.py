"""Streams of answers about a data set. The server reports progress while it embeds and compares, then it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from manyview._progress.report import Report
from manyview._progress.words import number_of
from manyview._transport.resume import replies
from manyview._transport.rpcs import Rpcs
from manyview._transport.stream import Stream
from manyview.v1 import embed_service_pb2 as pb

_WORDS = {
    pb.EmbeddingsProgress.STAGE_COMPUTING: "computing",
    pb.EmbeddingsProgress.STAGE_STARTING_WORKER: "starting a worker",
    pb.EmbeddingsProgress.STAGE_QUEUED: "waiting for other calls",
}
"""Stages that have nothing to count."""


class IsProgress:
    """Does a message prove progress? `opened` does not, and neither does a count that was reported before: a server
    that fails again and again may repeat both each time."""

    def __init__(self) -> None:
        self._done = -1

    def __call__(self, message: Any) -> bool:
        if message.HasField("progress"):
            before, self._done = self._done, max(self._done, message.progress.done)
            return self._done > before
        return not message.HasField("opened")


def answers(
    rpcs: Rpcs,
    call: Callable[[Any], Stream[Any, Any]],
    request: Any,
    report: Report,
    timeout_s: float | None,
    *,
    began: float | None = None,
) -> Iterator[Any]:
    """Yield the messages of a call, without its reports of progress. If the stream breaks, the call is repeated, and
    its answer starts again with `opened`. `timeout_s` runs from `began`, by default from now.

    The last count of the server does not stay on the screen: it may have embedded a part of the images before."""
    for message in replies(
        lambda: call(request),
        rpcs.channel.deadlines,
        is_end=lambda m: m.HasField("end"),
        is_progress=IsProgress(),
        timeout_s=timeout_s,
        began=began,
    ):
        if message.HasField("progress"):
            show(message.progress, report)
        else:
            report.say("receiving the answer")
            yield message


def show(progress: pb.EmbeddingsProgress, report: Report, total: int | None = None) -> None:
    """Report the progress that the server sent. `total` replaces the server's, if the caller counts something else."""
    if progress.stage in _WORDS:
        report.say(_WORDS[progress.stage])
    elif progress.stage == pb.EmbeddingsProgress.STAGE_EMBEDDING_QUERIES:
        report.say(f"embedding {number_of(progress.total, 'query', 'queries')}")
    else:
        report.count(progress.done, progress.total if total is None else total, "embedding")
