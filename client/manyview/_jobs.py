"""A train job: watch it, wait for it, stop it, export its weights. Also the request that creates one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from manyview import _convert, _job_line, _names
from manyview._arguments import count, duration_s, positive_s, some, text
from manyview._errors import DeadlineExceeded, TrainJobCancelled, TrainJobFailed
from manyview._progress.report import ProgressOption, reporting
from manyview._requests import DEFAULT_METHOD, config_struct
from manyview._results import events, history
from manyview._results.events import Event
from manyview._results.exports import download
from manyview._results.history import History
from manyview._transport.deadline import LATE_READ_S, Deadline
from manyview._transport.paging import pages
from manyview._transport.resume import replies
from manyview._transport.rpcs import Rpcs
from manyview._transport.stream import Stream
from manyview._types.datasets import Dataset
from manyview._types.jobs import LogLine, TrainJobInfo
from manyview._types.models import Model
from manyview._types.words import EventKind, JobState
from manyview.v1 import model_service_pb2
from manyview.v1 import train_job_service_pb2 as pb

_MAX_LOG_LINES = 10_000


class Job:
    """A train job on the server. `info` and `state` are from the last call that fetched them; `refresh` fetches them
    again."""

    def __init__(self, rpcs: Rpcs, info: TrainJobInfo) -> None:
        self._rpcs = rpcs
        self._info = info

    def __repr__(self) -> str:
        return f"<manyview.Job {self.name} {self.state}>"

    @property
    def name(self) -> str:
        """ "trainJobs/{id}"."""
        return self._info.name

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def info(self) -> TrainJobInfo:
        return self._info

    @property
    def state(self) -> JobState:
        return self._info.state

    def refresh(self) -> TrainJobInfo:
        """Fetch the job's state and progress from the server, and return them."""
        return self._refresh()

    def _refresh(self, timeout_s: float | None = None) -> TrainJobInfo:
        self._info = self._fetch(timeout_s)
        return self._info

    def _fetch(self, timeout_s: float | None = None) -> TrainJobInfo:
        reply = self._rpcs.get_train_job(pb.GetTrainJobRequest(name=self.name), timeout_s=timeout_s)
        return _convert.train_job(reply.train_job)

    def metrics(
        self,
        after: int = 0,
        *,
        follow: bool = True,
        kinds: Iterable[EventKind] | EventKind | None = None,
        reconnect_timeout_s: float | None = None,
    ) -> Iterator[Event]:
        """Yield every event after the sequence number `after`, in order and each once: first the past ones, then, with
        `follow`, new ones until the job has ended.

        A dropped connection or a restart of the server is bridged. The error is raised only after
        `reconnect_timeout_s` (300) of continuous failure. `kinds` selects kinds of events. Raises OutOfRange
        SEQUENCE_EXPIRED when `after` is too old, and SEQUENCE_AHEAD when it is beyond the newest event; `metadata` has
        the sequence numbers of the oldest and the newest event that the server holds, "oldest" and "newest".
        """
        reconnect_s = positive_s("reconnect_timeout_s", reconnect_timeout_s)
        return events.follow(
            self._rpcs,
            self.name,
            after=after,
            live=follow,
            kinds=events.kind_names(kinds),
            reconnect_s=reconnect_s,
        )

    def history(self, names: Sequence[str] | None = None, *, max_rows: int | None = None) -> History:
        """Return the scalars so far as a table, without superseded rows. `names` selects scalars. `max_rows`, at least
        2, thins the table to about that many rows."""
        max_rows = count("max_rows", max_rows, at_least=2)
        return history.query(
            self._rpcs, self.name, names=some("names", [names] if isinstance(names, str) else names), max_rows=max_rows
        )

    def logs(self, lines: int = 100, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield the newest `lines` (1 to 10,000) of the job's log, the oldest first, and with `follow` also new lines
        until the job has ended. Alerts are lines, too."""
        if not 1 <= lines <= _MAX_LOG_LINES:
            raise ValueError(f"lines must be from 1 to {_MAX_LOG_LINES:,}, not {lines}")
        return self._logs(lines, follow=follow)

    def _logs(self, lines: int, *, follow: bool) -> Iterator[LogLine]:
        seen = 0

        def open_stream() -> Stream[pb.TailLogsRequest, pb.TailLogsResponse]:
            wanted = lines if seen == 0 else _MAX_LOG_LINES
            return self._rpcs.tail_logs(pb.TailLogsRequest(train_job=self.name, num_lines=wanted, follow=follow))

        for message in replies(open_stream, self._rpcs.channel.deadlines, is_end=lambda reply: reply.end):
            for line in message.lines:
                if line.sequence > seen:
                    seen = line.sequence
                    yield _convert.log_line(line)

    def wait(self, timeout_s: float | None = None, *, progress: ProgressOption = None) -> TrainJobInfo:
        """Wait until the job has succeeded, also while it is paused. A `timeout_s` of 0 checks once. A terminal or a
        notebook shows what the job is doing; `progress` changes that, as in `Client.upload`, and counts steps.

        Raises TrainJobFailed with a reason and a hint, TrainJobCancelled, ValueError for a `timeout_s` below 0, and
        DeadlineExceeded (a TimeoutError) after `timeout_s`; then the job itself continues."""
        began = time.monotonic()
        if timeout_s is not None and timeout_s < 0:
            raise ValueError(f"timeout_s must be at least 0, or None for no limit, not {timeout_s}")
        info = self._look(timeout_s, LATE_READ_S if timeout_s == 0 else timeout_s)
        if not info.is_terminal:
            if timeout_s == 0:
                raise DeadlineExceeded(f"{self.name} is {info.state}: not done within 0 s")
            with _job_line.shown(self._fetch, self.id, progress):
                for _ in events.follow(
                    self._rpcs,
                    self.name,
                    after=info.last_sequence,
                    kinds=events.kind_names(["state"]),
                    timeout_s=timeout_s,
                    began=began,
                ):
                    pass
            # The job ended in time. Its final state must still be fetched.
            left_s = Deadline(timeout_s, began=began).left_s()
            info = self._look(timeout_s, None if left_s is None else max(left_s, LATE_READ_S))
        if info.state == "CANCELLED":
            raise TrainJobCancelled(self.name)
        if info.state == "FAILED":
            failure = info.failure
            reason, message, hint = (failure.reason, failure.message, failure.hint) if failure else ("INTERNAL", "", "")
            raise TrainJobFailed(self.name, reason=reason, message=message, hint=hint)
        return info

    def _look(self, timeout_s: float | None, left_s: float | None) -> TrainJobInfo:
        """Refresh within `left_s`, the rest of `timeout_s`. Raises DeadlineExceeded."""
        try:
            return self._refresh(left_s)
        except DeadlineExceeded as error:
            if error.reason or left_s is None or left_s >= self._rpcs.channel.deadlines.unary_s:
                raise
            raise DeadlineExceeded(f"not done within {timeout_s:g} s") from error

    def pause(self) -> TrainJobInfo:
        """Pause the job: it writes a checkpoint after its current step and leaves the device to the next job. A running
        job is PAUSING first. Pausing a paused job does nothing. Raises FailedPrecondition if the job is ending or has
        ended."""
        reply = self._rpcs.pause_train_job(pb.PauseTrainJobRequest(name=self.name))
        self._info = _convert.train_job(reply.train_job)
        return self._info

    def resume(self) -> TrainJobInfo:
        """Queue a paused job again; it continues from its newest checkpoint. Resuming a running job does nothing.
        Raises FailedPrecondition if the job is ending or has ended; then see `Client.train` with `continue_from`."""
        reply = self._rpcs.resume_train_job(pb.ResumeTrainJobRequest(name=self.name))
        self._info = _convert.train_job(reply.train_job)
        return self._info

    def cancel(self) -> TrainJobInfo:
        """Cancel the job: it writes a checkpoint after its current step and stops for good. Cancelling a cancelled job
        does nothing."""
        reply = self._rpcs.cancel_train_job(pb.CancelTrainJobRequest(name=self.name))
        self._info = _convert.train_job(reply.train_job)
        return self._info

    def delete(self) -> None:
        """Remove the job, its events and its checkpoints. Raises FailedPrecondition while it still runs."""
        self._rpcs.delete_train_job(pb.DeleteTrainJobRequest(name=self.name))

    def checkpoints(self) -> list[Model]:
        """Return the checkpoints that the server keeps of this job, newest first."""
        return list(list_models(self._rpcs, self.name))

    def export(self, path: str | PathLike[str], *, progress: ProgressOption = None) -> Path:
        """Write the backbone of the newest checkpoint as a safetensors file, as `Client.export` does."""
        with reporting(progress, f"export {self.name}", "waiting for the file") as report:
            return download.export(self._rpcs, self.name, Path(path), report)


def train_request(
    dataset: Dataset | str | None,
    method: str | None,
    backbone: str | None,
    epochs: int | None,
    config: Mapping[str, Any] | None,
    clone_from: Job | str | None,
    continue_from: Job | Model | str | None,
    follow: int | None,
    time_budget: float | str | None = None,
) -> pb.CreateTrainJobRequest:
    """Return a request that creates a job. Raises ValueError for a wrong argument."""
    has_origin = clone_from is not None or continue_from is not None
    if dataset is None and not has_origin:
        raise ValueError("dataset is required, unless clone_from or continue_from names a job")
    given = {name: value for name, value in (("backbone", backbone), ("epochs", epochs)) if value is not None}
    for name in given.keys() & (config or {}).keys():
        raise ValueError(f"{name} is given twice, as an argument and in config")
    return pb.CreateTrainJobRequest(
        follow=None if follow is None else pb.Follow(min_images=follow),
        dataset="" if dataset is None else _names.dataset_name(dataset),
        method=text("method", method) or ("" if has_origin else DEFAULT_METHOD),
        config=config_struct({**(config or {}), **given}),
        clone_from="" if clone_from is None else _names.job_name(clone_from),
        continue_from="" if continue_from is None else _names.model_name(continue_from),
        time_budget_s=duration_s("time_budget", time_budget),
    )


def list_models(rpcs: Rpcs, job: str = "") -> Iterator[Model]:
    """Yield the checkpoints of a job, or those of all jobs and then the plain backbones."""

    def fetch(token: str) -> model_service_pb2.ListModelsResponse:
        return rpcs.list_models(model_service_pb2.ListModelsRequest(train_job=job, page_size=1000, page_token=token))

    return (_convert.model(model) for page in pages(fetch) for model in page.models)
