from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from manyview_server.image_header import ImageHeader
from manyview_server.link.decode_notes import ALONE, DecodeNotes
from manyview_server.store.images.shards import image_id_of
from manyview_server.worker.images import decoder
from manyview_server.worker.images.decoder import Picture
from manyview_server.worker.images.rgb import PixelRule
from manyview_server.worker.job_images.findings import Finding
from manyview_server.worker.job_images.image_decoder import ImageDecoder
from support.learning import job_images, worker_harness


def found(decodes: ImageDecoder, snapshot: np.ndarray, row: int, size: int = 16) -> tuple[Finding, np.ndarray]:
    pixels = np.full((3, size, size), 99, np.uint8)
    return decodes.decode(row, snapshot[row], pixels), pixels


def test_any_shape_becomes_a_square_with_its_true_size_beside_it(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    snapshot = worker_harness.write_dataset(tmp_path, [(worker_harness.encoded(wide), 0)])
    finding, pixels = found(ImageDecoder(tmp_path, 24), snapshot, 0, 24)
    assert (finding.height, finding.width, finding.used_bits, finding.unreadable) == (20, 50, 0, None)
    assert np.array_equal(pixels, decoder.resize(wide, 24).numpy())


def test_an_unreadable_image_has_a_reason_and_no_pixels(tmp_path: Path) -> None:
    images = worker_harness.digits(6)
    images[2] = (b"junk", 0)
    snapshot = worker_harness.write_dataset(tmp_path, images)
    snapshot["image_id"][4] += 1  # what is stored is not what the index says
    snapshot["shard"][5] = 9  # lost with its shard
    quarantined = dict(zip(snapshot["image_id"][:2].tolist(), ("DECODER_CRASHED", "DECODE_TOO_SLOW"), strict=True))
    decodes = ImageDecoder(tmp_path, 16, quarantined=quarantined)
    reasons = []
    for row in range(6):
        finding, pixels = found(decodes, snapshot, row)
        assert (finding.unreadable is None) == (row == 3) == bool((pixels != 99).any())
        assert finding.image_id == snapshot["image_id"][row]
        reasons.append(finding.unreadable.reason if finding.unreadable else "")
    assert reasons == [
        *("DECODER_CRASHED", "DECODE_TOO_SLOW", "FORMAT_NOT_ALLOWED", "", "CHECKSUM_MISMATCH", "IMAGE_LOST")
    ]


def test_files_of_coming_images_are_read_ahead_and_what_is_lost_is_no_error_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(6))
    snapshot["shard"][5] = 9
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr("os.posix_fadvise", lambda _, *place: asked.append(place))
    images = job_images.from_dataset(tmp_path, snapshot)
    found = images.gather(torch.arange(6))
    assert found.readable.tolist() == [True] * 5 + [False]
    places = [(int(row["offset"]), int(row["length"]), os.POSIX_FADV_WILLNEED) for row in snapshot[:5]]
    assert asked == places
    images.gather(torch.arange(6))
    assert asked == places, "nothing is read for images that are kept or lost"
    images.close()


def test_the_bits_of_an_image_of_sixteen_bits_are_found(tmp_path: Path) -> None:
    dark = worker_harness.encoded(np.full((16, 16), 4095, np.uint16))
    snapshot = worker_harness.write_dataset(tmp_path, [(dark, 0)])
    assert found(ImageDecoder(tmp_path, 16), snapshot, 0)[0].used_bits == 12


def test_each_thread_notes_what_it_decodes_and_a_suspect_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(150))
    notes, seen = DecodeNotes.private(), []
    decode_really = decoder.read_picture

    def decode_and_look(data: bytes, header: ImageHeader, rule: PixelRule) -> Picture:
        noted = notes.read()
        alone = [note.kind for note in noted] == [ALONE]
        seen.append((image_id_of(hashlib.sha256(data).digest()), (alone, tuple(note.item for note in noted))))
        return decode_really(data, header, rule)

    monkeypatch.setattr(decoder, "read_picture", decode_and_look)
    suspects = snapshot["image_id"][[7, 140]].tolist()
    ImageDecoder(tmp_path, 16, notes=notes).try_alone(snapshot, {*suspects, 12345})
    assert seen == [(suspect, (True, (suspect,))) for suspect in suspects]
    seen.clear()
    images = job_images.from_dataset(tmp_path, snapshot, notes=notes)
    images.gather(torch.arange(150))
    images.close()
    assert len(seen) == 150
    for image_id, (alone, noted) in seen:
        assert image_id in noted
        assert not alone
    assert notes.read() == ()
