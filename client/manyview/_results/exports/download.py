"""A model's weights into a file: complete and with the right checksum, or not there at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from manyview._errors import DataLoss, Unavailable
from manyview._progress.report import Report
from manyview._progress.words import number_of
from manyview._transport.backoff import Backoff
from manyview._transport.resume import resumed
from manyview._transport.rpcs import Rpcs
from manyview.v1 import model_service_pb2 as pb

_MAX_ATTEMPTS = 5


def export(rpcs: Rpcs, model: str, path: Path, report: Report) -> Path:
    """Download to `path`.tmp, compare size and SHA-256, then rename. A broken download starts again.

    Raises DataLoss CHECKSUM_MISMATCH when the bytes are not those that the server announced.
    """
    partial = path.with_name(path.name + ".tmp")

    def attempt() -> Iterator[Path]:
        with partial.open("wb") as file:
            _download(rpcs, model, file, report)
        os.replace(partial, path)
        yield path

    try:
        return next(resumed(attempt, Backoff(max_attempts=_MAX_ATTEMPTS)))
    finally:
        partial.unlink(missing_ok=True)


def _download(rpcs: Rpcs, model: str, file: BinaryIO, report: Report) -> None:
    header: pb.ExportHeader | None = None
    digest, num_bytes = hashlib.sha256(), 0
    with rpcs.export_model(pb.ExportModelRequest(name=model)) as stream:
        while (message := stream.receive()) is not None:
            if message.WhichOneof("payload") == "header":
                header = message.header
                report.begin("receiving", header.num_bytes, are_bytes=True)
                continue
            file.write(message.chunk)
            digest.update(message.chunk)
            num_bytes += len(message.chunk)
            report.advance(len(message.chunk))
    if header is None or num_bytes < header.num_bytes:
        raise Unavailable(
            f"the export of {model} ended early, after {number_of(num_bytes, 'byte')}", reason="STREAM_ENDED"
        )
    if digest.digest() != header.sha256:
        raise DataLoss(f"the export of {model} does not match its SHA-256", reason="CHECKSUM_MISMATCH")
    file.flush()
    os.fsync(file.fileno())
