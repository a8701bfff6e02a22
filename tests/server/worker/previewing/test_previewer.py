"""A preview equals the views of training bit for bit, for images of any shape, every recipe and plugins."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from manyview_server.learn import methods
from manyview_server.learn.methods.reconstruction.masked import MaskedImageSettings
from manyview_server.learn.views import make_views, replay
from manyview_server.learn.views.presets import PRESETS
from manyview_server.messages.message import Hello
from manyview_server.messages.preview import PreviewDone, PreviewFailed, PreviewImages
from manyview_server.messages.training import ScalarsLogged, TrainingStarted
from manyview_server.store.images.shards import image_id_of
from manyview_server.worker.channel import EXIT_ORPHANED
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder
from manyview_server.worker.images.rgb import DEFAULT_RULE
from manyview_server.worker.previewing import previewer
from manyview_server.worker.training import training_step
from manyview_server.worker.training.feed import Feed
from manyview_server.worker.training.trainer import Trainer
from support.learning import job_images, worker_harness
from support.learning.training import Sent
from support.service import plugins
from support.service.plugins import POSTERIZE

SHAPES = [(16, 16), (24, 24), (40, 25), (9, 60), (120, 120)]
FIXED = {"precision": "float32", "memory_format": "contiguous", "evaluation": {"knn_every_epochs": 0}}
EVERYTHING = {
    "preset": "byol",
    "rotation": {"probability": 0.3},
    "quarter_turn": {"probability": 0.3},
    "vertical_flip": {"probability": 0.5},
}


GUARDED = GuardedDecoder("previewer.decode", None, DecodeMemory())


@dataclass
class Seen:
    """The views of a step, as the trainer's network was given them."""

    epoch: int
    image_ids: list[int]
    views: list[Tensor]


def pictures(count: int) -> dict[int, bytes]:
    """Files by image id, in several shapes, as JPEG and PNG."""
    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        height, width = SHAPES[index % len(SHAPES)]
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        files.append(worker_harness.encoded(np.asarray(small.resize((width, height))), "JPEG" if index % 2 else "PNG"))
    return {image_id_of(hashlib.sha256(file).digest()): file for file in files}


def trained(
    directory: Path, monkeypatch: pytest.MonkeyPatch, method: str = "simclr", **overrides: Any
) -> tuple[dict[str, Any], dict[int, bytes], list[Seen]]:
    """Two epochs of a job, in this process: its resolved settings, its images by id, and what its steps saw."""
    files = pictures(40)
    snapshot = worker_harness.write_dataset(directory / "dataset", [(file, 0) for file in files.values()])
    seen: list[Seen] = []

    def make(images: Tensor, sizes: Tensor, image_ids: Tensor, *arguments: Any, epoch: int, **options: Any) -> Any:
        views = make_views(images, sizes, image_ids, *arguments, epoch=epoch, **options)
        seen.append(Seen(epoch, image_ids.tolist(), [view.clone() for view in views]))
        return views

    monkeypatch.setattr(training_step, "make_views", make)
    settings = worker_harness.settings(method, **FIXED, **overrides)
    sent = Sent()
    assert Trainer(sent, worker_harness.start_training(directory, snapshot, settings)).train() == "succeeded"
    (started,) = sent.of(TrainingStarted)
    assert sent.of(ScalarsLogged)
    return {**settings, **started.resolved}, files, seen


def request(settings: dict[str, Any], images: list[bytes], epoch: int = 0, **other: Any) -> PreviewImages:
    fields = {"settings": settings, "epoch": epoch, "max_pixel_bytes": 1 << 24, "blobs": tuple(images), **other}
    return PreviewImages(**fields)


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


@pytest.mark.parametrize("decode_size", [24, 96])
def test_a_preview_is_what_the_trainer_saw_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decode_size: int
) -> None:
    overrides: dict[str, Any] = {"views": EVERYTHING, "decode_size": decode_size, "epochs": 2, "seed": 5}
    settings, files, seen = trained(tmp_path, monkeypatch, **overrides)
    assert [step.epoch for step in seen] == [0, 0, 1, 1]
    normalize = PRESETS["byol"].normalize
    for step in seen[::3]:
        done = previewer.answer(request(settings, [files[image_id] for image_id in step.image_ids], step.epoch))
        assert isinstance(done, PreviewDone)
        assert done.decode_size == decode_size
        blobs = iter(done.blobs)
        for row, image in enumerate(done.images):
            assert image.image_id == step.image_ids[row]
            assert pixels(next(blobs)).shape == (decode_size, decode_size, 3)
            assert [(view.pipeline, view.size) for view in image.views] == [(0, 16), (1, 16)]
            for number in range(2):
                expected = replay.as_bytes(step.views[0][number, row], normalize).permute(1, 2, 0)
                assert np.array_equal(pixels(next(blobs)), expected.numpy()), (step.epoch, row, number)


def test_a_job_with_views_of_several_sizes_is_replayed_as_it_saw_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"views": {"preset": "dino"}, "decode_size": 40, "image_size": 24, "epochs": 1}
    settings, files, seen = trained(tmp_path, monkeypatch, method="dino", **overrides)
    step = seen[-1]
    done = previewer.answer(request(settings, [files[image_id] for image_id in step.image_ids], step.epoch))
    assert isinstance(done, PreviewDone)
    blobs = iter(done.blobs)
    for row, image in enumerate(done.images):
        assert [(view.pipeline, view.size) for view in image.views] == [(0, 24), (1, 24), *[(2, 12)] * 6]
        next(blobs)
        for expected in (view for of_size in step.views for view in of_size[:, row]):
            bytes_seen = replay.as_bytes(expected, PRESETS["dino"].normalize).permute(1, 2, 0)
            assert np.array_equal(pixels(next(blobs)), bytes_seen.numpy())


def test_one_image_alone_is_as_in_its_batch_to_the_last_bit_of_a_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files, seen = trained(tmp_path, monkeypatch, views=EVERYTHING, decode_size=32, epochs=1)
    settings = methods.from_json(worker_harness.settings("simclr", **FIXED, views=EVERYTHING, decode_size=32))
    step = seen[-1]
    for row, image_id in enumerate(step.image_ids):
        image = previewer._decoded(files[image_id], 32, DEFAULT_RULE, GUARDED)
        assert not isinstance(image, DecodeError)
        ((one, other),) = previewer._views(settings, step.epoch, [image])
        assert torch.equal(one.pixels, step.views[0][0, row])
        assert torch.equal(other.pixels, step.views[0][1, row])


@pytest.mark.parametrize("preset", ["dino", "swav", "mae"])
def test_views_of_several_sizes_are_those_of_the_feed(tmp_path: Path, preset: str) -> None:
    files = pictures(20)
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", [(file, 0) for file in files.values()])
    images = job_images.from_dataset(tmp_path / "dataset", snapshot, 40)
    feed = Feed(images, images.index, torch.arange(20), batch_size=8, seed=3)
    (batch,) = feed.batches(3, 4)  # the second step of the second epoch
    assert batch.epoch == 1
    views = PRESETS[preset]
    by_size = make_views(batch.images, batch.sizes, batch.image_ids, views, image_size=20, seed=3, epoch=1)
    decoded = [previewer._decoded(files[image_id], 40, DEFAULT_RULE, GUARDED) for image_id in batch.image_ids.tolist()]
    resampled = [image for image in decoded if not isinstance(image, DecodeError)]
    found = replay.replay(
        torch.stack([image.pixels for image in resampled]),
        torch.tensor([(image.height, image.width) for image in resampled]),
        batch.image_ids,
        views,
        image_size=20,
        seed=3,
        epoch=1,
    )
    for row, of_image in enumerate(found):
        expected = [view[row] for of_size in by_size for view in of_size]
        assert [view.pipeline for view in of_image] == [
            index for index, pipeline in enumerate(views.pipelines) for _ in range(pipeline.count)
        ]
        for one, other in zip(of_image, expected, strict=True):
            assert torch.equal(one.pixels, other)


@pytest.mark.parametrize(("method", "num_hidden"), [("mae", 48), ("simmim", 38)])
def test_a_preview_names_the_patches_that_training_hides(method: str, num_hidden: int) -> None:
    resolved = methods.resolve(method, {"image_size": 64, "seed": 7})
    assert isinstance(resolved, MaskedImageSettings)
    settings, files = methods.to_json(resolved), pictures(2)
    for epoch in (0, 5):
        done = previewer.answer(request(settings, list(files.values()), epoch))
        assert isinstance(done, PreviewDone)
        masks = resolved.hidden_patches(torch.tensor(list(files)), 64, epoch=epoch)
        assert masks is not None
        for image, mask in zip(done.images, masks, strict=True):
            (view,) = image.views
            assert view.parameters["hidden_patches"] == {"patch_size": 8, "patches": mask.nonzero().flatten().tolist()}
            assert int(mask.sum()) == num_hidden


def test_a_plugins_transform_is_previewed_as_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.install(tmp_path / "site", "posterize_previewed", POSTERIZE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    settings = worker_harness.settings("simclr", **FIXED)
    (pipeline,) = settings["views"]["pipelines"]
    pipeline["custom"] = {"posterize_previewed": {"probability": 0.5, "bits": 1, "spread": 0.0}}
    with worker_harness.Worker("previewer") as worker:
        worker.until(Hello)
        worker.send(request(settings, list(pictures(10).values())))
        done = worker.until(PreviewDone)
    blobs, applied = iter(done.blobs), 0
    for image in done.images:
        next(blobs)
        for view in image.views:
            is_coarse = set(np.unique(pixels(next(blobs)))) <= {0, 128}
            numbers = view.parameters.get("custom", {}).get("posterize_previewed", {}).get("numbers", [])
            assert is_coarse == (len(numbers) == 2)
            applied += is_coarse
    assert 0 < applied < 20


def test_what_was_not_done_is_not_told() -> None:
    files = list(pictures(40).values())
    plain = worker_harness.settings("simclr", **FIXED, views={"pipelines": [{"count": 2}]})
    done = previewer.answer(request(plain, files[:1]))
    assert isinstance(done, PreviewDone)
    assert [set(view.parameters) for view in done.images[0].views] == [{"crop"}, {"crop"}]
    both = {"blur": {"probability": 1}, "solarize": {"probability": 1, "before_blur": True}}
    everything = worker_harness.settings("simclr", **FIXED, views=EVERYTHING | both, decode_size=50)
    done = previewer.answer(request(everything, files))
    assert isinstance(done, PreviewDone)
    parameters_of_views = [view.parameters for image in done.images for view in image.views]
    steps = set().union(*parameters_of_views)
    assert steps == {
        *("crop", "horizontal_flip", "vertical_flip", "quarter_turn", "rotation", "color_jitter", "grayscale"),
        *("solarize", "blur"),
    }
    order = list(methods.from_json(everything).views.pipelines[0].__dataclass_fields__)
    for parameters in parameters_of_views:
        names = [name for name in parameters if name not in ("blur", "solarize")]
        assert names == sorted(names, key=order.index)
        assert list(parameters)[-2:] == ["solarize", "blur"]
        assert parameters["solarize"]["threshold"] == pytest.approx(128, abs=1e-4)
        assert 0.1 <= parameters["blur"]["sigma"] <= 2
        crop = parameters["crop"]
        assert 0 <= crop["top"] < crop["top"] + crop["height"] <= 50
        if "color_jitter" in parameters:
            assert sorted(parameters["color_jitter"].pop("order")) == sorted(parameters["color_jitter"])


def test_the_size_is_that_of_a_data_set_of_these_images() -> None:
    squares = [worker_harness.encoded(worker_harness.picture(0, seed, side=20)) for seed in range(2)]
    other = worker_harness.encoded(worker_harness.picture(0, 0, side=28))
    sizes = [
        previewer.answer(request(worker_harness.settings("simclr"), images)) for images in (squares, [*squares, other])
    ]
    assert [done.decode_size for done in sizes if isinstance(done, PreviewDone)] == [20, 32]


@pytest.mark.parametrize(("transparency", "level"), [("white", 255), ("black", 0), ("drop", 70)])
def test_a_preview_shows_what_a_job_makes_of_transparency(transparency: str, level: int) -> None:
    clear = worker_harness.encoded(np.full((16, 16, 4), (70, 70, 70, 0), np.uint8))
    done = previewer.answer(request(worker_harness.settings("simclr", transparency=transparency), [clear]))
    assert isinstance(done, PreviewDone)
    assert np.unique(pixels(done.blobs[0])).tolist() == [level]


def test_an_image_that_took_too_long_is_not_decoded_again() -> None:
    good = worker_harness.encoded(worker_harness.picture(0, 0))
    done = previewer.answer(replace(request(worker_harness.settings("simclr"), [good, good]), too_slow=(0,)))
    assert isinstance(done, PreviewDone)
    assert [image.reason for image in done.images] == ["DECODE_TOO_SLOW", ""]


def test_images_that_cannot_be_read_cost_only_themselves() -> None:
    good = worker_harness.encoded(worker_harness.picture(0, 0))
    done = previewer.answer(request(worker_harness.settings("simclr"), [b"", good, b"\xff\xd8\xff junk"]))
    assert isinstance(done, PreviewDone)
    assert [image.reason for image in done.images] == ["IMAGE_EMPTY", "", "HEADER_CORRUPT"]
    assert [len(image.views) for image in done.images] == [0, 2, 0]
    assert len(done.blobs) == 3
    none = previewer.answer(request(worker_harness.settings("simclr"), [b""]))
    assert isinstance(none, PreviewDone)
    assert none.blobs == ()


def failure(answer: Any) -> tuple[str, str, str]:
    assert isinstance(answer, PreviewFailed)
    return answer.code, answer.reason, answer.message


def test_too_many_pixels_are_refused_with_the_number_that_fits() -> None:
    images = [worker_harness.encoded(worker_harness.picture(0, seed)) for seed in range(5)]
    most = 3 * 3 * (16**2 + 2 * 16**2)
    code, reason, message = failure(
        previewer.answer(request(worker_harness.settings("simclr"), images, max_pixel_bytes=most))
    )
    assert (code, reason) == ("INVALID_ARGUMENT", "PREVIEW_TOO_LARGE")
    assert message == "5 images of 16 x 16 pixels with 2 views each do not fit into a message; at most 3 do"
    fits = request(worker_harness.settings("simclr"), images[:3], max_pixel_bytes=most)
    assert isinstance(previewer.answer(fits), PreviewDone)


def test_settings_that_cannot_be_used_are_told() -> None:
    image = worker_harness.encoded(worker_harness.picture(0, 0))
    gone = worker_harness.settings("simclr")
    gone["views"]["pipelines"][0]["custom"] = {"gone": {"probability": 0.5}}
    code, reason, message = failure(previewer.answer(request(gone, [image])))
    assert (code, reason) == ("FAILED_PRECONDITION", "PLUGIN_FAILED")
    assert "'gone'" in message
    code, reason, message = failure(previewer.answer(request({"method": "simclr", "epochs": 0}, [image])))
    assert (code, reason) == ("FAILED_PRECONDITION", "CONFIG_INVALID")


def test_it_answers_one_request_after_the_other_until_its_front_is_gone() -> None:
    image = worker_harness.encoded(worker_harness.picture(0, 0))
    with worker_harness.Worker("previewer") as worker:
        for _ in range(2):
            worker.send(request(worker_harness.settings("simclr"), [image]))
            assert worker.until(PreviewDone).decode_size == 16
        assert worker.close() == EXIT_ORPHANED
