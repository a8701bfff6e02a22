"""Images that are wrong: each is refused or listed by itself with its reason, and its neighbors do not notice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import manyview
from manyview.v1 import dataset_service_pb2 as datasets
from manyview.v1 import dataset_service_pb2_grpc as datasets_grpc
from manyview.v1 import embed_service_pb2, embed_service_pb2_grpc, types_pb2
from support.clients.wire import Wire, assert_speaks_of_the_request_alone, batch, finish, header, image, refused
from support.images.pictures import cut_in_its_pixels, png, saved
from support.service.harness import SMALL_JOB, jpeg, write_photos

GOOD = [jpeg(seed=seed) for seed in range(4)]

BAD = {
    "empty.jpg": (b"", "IMAGE_EMPTY", "no bytes"),
    "zeros.jpg": (b"\xff\xd8\xff" + bytes(100), "HEADER_CORRUPT", "JPEG"),
    "cut.jpg": (GOOD[0][:40], "HEADER_CORRUPT", "JPEG"),
    "cut.png": (saved("PNG")[:30], "HEADER_CORRUPT", "IHDR"),
    "changed.png": (saved("PNG").replace(b"IHDR\0\0\0\x10", b"IHDR\0\0\0\x11"), "HEADER_CORRUPT", "checksum"),
    "text.jpg": (b"not an image at all", "FORMAT_NOT_ALLOWED", "AVIF and binary PPM"),
    "icon.ico": (saved("ICO"), "FORMAT_NOT_ALLOWED", "this is ICO"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "FORMAT_NOT_ALLOWED", "heif-convert"),
    "cut.bmp": (saved("BMP")[:-100], "HEADER_CORRUPT", "instead of"),
    "cut.gif": (saved("GIF")[:20], "HEADER_CORRUPT", "first frame"),
    "cut.tif": (saved("TIFF")[:100], "HEADER_CORRUPT", "directory"),
    "cut.avif": (saved("AVIF")[:-100], "HEADER_CORRUPT", "cut off"),
    "gray.pgm": (b"P5 1 1 255 \0", "FORMAT_NOT_ALLOWED", "P5"),
    "short.ppm": (b"P6 2 2 255 abc", "HEADER_CORRUPT", "3 bytes instead of 12"),
    "pixels.png": (png(8001, 8000), "TOO_MANY_PIXELS", "at most 64,000,000"),
    "long.png": (png(20_000, 2), "SIDE_TOO_LONG", "at most 16,384"),
    "bytes.png": (png(16, 16) + bytes(32 << 20), "IMAGE_TOO_LARGE", "at most 33,554,432"),
}


def spoilt() -> dict[str, tuple[types_pb2.Image, str, str]]:
    """(message, reason, words) by key: what the file alone does not show."""
    data = jpeg(seed=50)
    other = hashlib.sha256(b"other").digest()
    return {
        "damaged on the way": (
            types_pb2.Image(data=data, key="damaged", sha256=other),
            "CHECKSUM_MISMATCH",
            other.hex(),
        ),
        "no checksum": (types_pb2.Image(data=data, key="bare"), "CHECKSUM_MISMATCH", "it must have 32"),
        "control": (image(data, key="line\nbreak"), "KEY_INVALID", "control characters"),
        "long key": (image(data, key="k" * 1025), "KEY_INVALID", "at most 1,024"),
        "long label": (image(data, key="labelled", label="l" * 1025), "LABEL_INVALID", "at most 1,024"),
    }


def test_bad_images_of_a_batch_are_refused_one_by_one_and_the_good_ones_are_stored(
    client: manyview.Client, wire: Wire
) -> None:
    wire.call(datasets_grpc.DatasetServiceStub, "CreateDataset", datasets.CreateDatasetRequest(dataset_id="mixed"))
    bad = [(image(data, key), reason, words) for key, (data, reason, words) in BAD.items()] + [*spoilt().values()]
    mixed = [image(GOOD[0], "first.jpg")]
    for message, _, _ in bad:
        mixed.append(message)
    mixed += [image(GOOD[1], "last.jpg"), image(GOOD[0], "again.jpg")]
    answer = wire.upload([header("mixed", "one"), batch(1, *mixed), finish(len(mixed))])
    assert answer.error is None
    _, acknowledged, finished = answer.messages
    results = acknowledged.ack.results
    outcomes = datasets.ImageResult.Outcome
    assert [result.outcome for result in results] == [
        outcomes.OUTCOME_STORED,
        *[outcomes.OUTCOME_REJECTED] * len(bad),
        outcomes.OUTCOME_STORED,
        outcomes.OUTCOME_DUPLICATE,
    ]
    for result, (message, reason, words) in zip(results[1:-2], bad, strict=True):
        assert result.error.reason == reason, message.key
        assert words in result.error.message, message.key
        assert not result.image_id
        assert_speaks_of_the_request_alone(result.error.message)
    assert results[-1].first_key == "first.jpg"
    upload, dataset = finished.finished.upload, finished.finished.dataset
    assert (upload.num_images, upload.num_stored, upload.num_duplicates) == (len(mixed), 2, 1)
    assert upload.num_rejected == dataset.num_rejected == len(bad)
    assert [stored.key for stored in client.images("mixed")] == ["first.jpg", "last.jpg"]
    listed = [(stored.status, stored.error.reason) for stored in client.images("mixed", ["REJECTED"]) if stored.error]
    assert listed == [("REJECTED", reason) for _, reason, _ in bad]


def test_the_report_of_an_upload_names_each_refused_file(client: manyview.Client, tmp_path: Path) -> None:
    write_photos(tmp_path, 4, seed=2)
    (tmp_path / "class0" / "bad.jpg").write_bytes(b"text")
    (tmp_path / "class1" / "large.png").write_bytes(png(16, 16) + bytes(32 << 20))
    report = client.upload(tmp_path, dataset="reported").upload
    assert report is not None
    assert (report.num_stored, report.num_rejected) == (4, 2)
    assert {refusal.key: refusal.error.reason for refusal in report.rejected} == {
        "class0/bad.jpg": "FORMAT_NOT_ALLOWED",
        "class1/large.png": "IMAGE_TOO_LARGE",
    }
    with refused(manyview.UploadRejected, "IMAGES_REJECTED", "2 images were refused", "FORMAT_NOT_ALLOWED"):
        client.upload(tmp_path, dataset="reported-again", on_rejected="raise")
    assert client.dataset("reported-again").num_images == 4


def test_an_image_that_only_decoding_shows_to_be_corrupt_is_listed_after_training_which_goes_on(
    client: manyview.Client, tmp_path: Path
) -> None:
    write_photos(tmp_path, 40, seed=3)
    (tmp_path / "class0" / "half.jpg").write_bytes(cut_in_its_pixels(jpeg(side=64)))
    (tmp_path / "class1" / "noise.png").write_bytes(png(16, 16))
    dataset = client.upload(tmp_path, dataset="unreadable")
    assert dataset.num_images == 42, "their headers are fine"
    whole_epoch = SMALL_JOB | {"batch_size": 14, "evaluation": {"knn_every_epochs": 0}}
    job = client.train(dataset, epochs=1, config=whole_epoch)
    assert job.wait(timeout_s=40).state == "SUCCEEDED"
    found = {stored.key: stored.error for stored in client.images(dataset, ["UNREADABLE"])}
    assert set(found) == {"class0/half.jpg", "class1/noise.png"}
    for error in found.values():
        assert error is not None
        assert error.reason == "DECODE_FAILED"
        assert_speaks_of_the_request_alone(error.message)
    assert client.dataset(dataset.id).num_unreadable == 2
    assert any("2 images cannot be read" in line.text for line in job.logs())


@pytest.mark.parametrize("batch_size", [64, 2], ids=["one call", "a stream"])
def test_embedding_gives_a_row_of_nan_and_a_reason_for_each_bad_image(client: manyview.Client, batch_size: int) -> None:
    large = png(16, 16) + bytes(32 << 20)
    images = [GOOD[0], b"", GOOD[1], BAD["icon.ico"][0], cut_in_its_pixels(jpeg(side=64)), large, GOOD[2]]
    found = client.embed(images, model="backbones/resnet9", batch_size=batch_size)
    assert {row: error.reason for row, error in found.errors.items()} == {
        1: "IMAGE_EMPTY",
        3: "FORMAT_NOT_ALLOWED",
        4: "DECODE_FAILED",
        5: "IMAGE_TOO_LARGE",
    }
    for error in found.errors.values():
        assert_speaks_of_the_request_alone(error.message)
    assert np.isnan(found.array[[1, 3, 4, 5]]).all()
    assert np.isfinite(found.array[[0, 2, 6]]).all()
    alone = client.embed([GOOD[0], GOOD[1], GOOD[2]], model="backbones/resnet9")
    np.testing.assert_allclose(found.array[[0, 2, 6]], alone.array, atol=1e-5)


def test_a_batch_to_embed_may_be_neither_empty_nor_too_long(wire: Wire) -> None:
    for count, words in ((0, "0 images"), (257, "a batch has 1 to 256")):
        request = embed_service_pb2.EmbedRequest(model="backbones/resnet9", images=[types_pb2.Image()] * count)
        with refused(manyview.InvalidArgument, "FIELD_INVALID", "images", words):
            wire.call(embed_service_pb2_grpc.EmbedServiceStub, "Embed", request)
