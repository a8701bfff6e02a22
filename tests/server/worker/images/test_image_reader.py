from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from manyview_server.store.images.shards import ShardReader
from manyview_server.worker.images import image_reader
from manyview_server.worker.images.decoder import DecodeError
from support.learning import worker_harness


def test_the_bytes_that_were_sent_or_a_reason(tmp_path: Path) -> None:
    files = worker_harness.digits(2)
    rows = worker_harness.write_dataset(tmp_path, files)
    reader = ShardReader(tmp_path)
    assert image_reader.read(reader, rows[1]) == files[1][0]
    moved = rows[1].copy()
    moved["offset"] += 1
    for row, quarantined, reason in (
        (rows[0], {int(rows[0]["image_id"]): "DECODER_CRASHED"}, "DECODER_CRASHED"),
        (rows[0], {int(rows[0]["image_id"]): "DECODE_TOO_SLOW"}, "DECODE_TOO_SLOW"),
        (moved, {}, "CHECKSUM_MISMATCH"),
    ):
        with pytest.raises(DecodeError) as caught:
            image_reader.read(reader, row, quarantined)
        assert caught.value.reason == reason
    reader.close()


@pytest.mark.parametrize(("number", "is_lost"), [(errno.EIO, True), (errno.ENOENT, True), (errno.EMFILE, False)])
def test_want_of_descriptors_says_nothing_about_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_lost: bool
) -> None:
    rows = worker_harness.write_dataset(tmp_path, worker_harness.digits(1))

    def refuse(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(DecodeError if is_lost else OSError) as caught:
        image_reader.read(ShardReader(tmp_path), rows[0])
    assert getattr(caught.value, "reason", "") == ("IMAGE_LOST" if is_lost else "")
