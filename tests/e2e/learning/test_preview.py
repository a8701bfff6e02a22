"""Previews of a method's and a job's views, seen from outside, with images of every kind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyview
from support.images.pictures import cut_in_its_pixels, saved
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos

BYOL = {"views": {"preset": "byol", "solarize": {"probability": 1}}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("photos"), 32, seed=11, side=40)


@pytest.fixture(scope="module")
def job(client: manyview.Client, files: list[Path]) -> manyview.Job:
    """Done, over the data set "previewed"."""
    folder = files[0].parent.parent
    dataset = client.upload(folder, dataset="previewed")
    job = client.train(dataset, "simclr", epochs=1, config={**SMALL_JOB, **BYOL, "seed": 9})
    job.wait(timeout_s=50)
    return job


def same(one: manyview.Preview, other: manyview.Preview) -> bool:
    pairs = zip(one.views, other.views, strict=True)
    return all(np.array_equal(a, b) for views in pairs for a, b in zip(*views, strict=True))


def test_the_views_of_a_method_are_repeated_by_its_seed_and_epoch(client: manyview.Client, files: list[Path]) -> None:
    config = {"image_size": 24, **BYOL}
    found = client.preview(files[:3], "simclr", config=config, seed=4)
    assert found.errors == {}
    assert found.decode_size == 40, "the images' own side"
    assert [view.shape for views in found.views for view in views] == [(24, 24, 3)] * 6
    assert found.pipelines == ((0, 1),) * 3
    assert all("solarize" in done for of_image in found.parameters for done in of_image)
    assert same(found, client.preview(files[:3], "simclr", config=config, seed=4, epoch=0))
    for seed, epoch in ((5, 0), (4, 1)):
        assert not same(found, client.preview(files[:3], "simclr", config=config, seed=seed, epoch=epoch))
    assert same(found, client.preview([path.read_bytes() for path in files[:3]], config={**config, "seed": 4}))


def test_a_job_s_views_are_those_of_its_configuration_and_seed(
    client: manyview.Client, job: manyview.Job, files: list[Path]
) -> None:
    listed = list(client.images("previewed"))[:4]
    found = client.preview(listed, job=job, epoch=3)
    assert found.decode_size == job.refresh().config["decode_size"] == 2 * SMALL_JOB["image_size"]
    by_key = client.preview([image.key for image in listed], job=job, epoch=3, dataset="previewed")
    sent = client.preview([client.read_image("previewed", image) for image in listed], job=job.id, epoch=3)
    assert same(found, by_key)
    assert same(found, sent)
    assert found.image_ids == tuple(image.image_id for image in listed)
    config = job.info.config
    assert same(found, client.preview(listed, "simclr", config=config, epoch=3, dataset="previewed"))
    assert not same(
        found, client.preview(listed, "simclr", config={**config, "seed": 10}, epoch=3, dataset="previewed")
    )


def test_views_of_several_sizes_come_in_the_order_of_the_recipe(client: manyview.Client, files: list[Path]) -> None:
    found = client.preview(files[:2], "dino", config={"image_size": 32, "views": {"preset": "dino"}})
    assert found.pipelines == ((0, 1, 2, 2, 2, 2, 2, 2),) * 2
    assert [view.shape[0] for view in found.views[0]] == [32, 32, *[12] * 6]


def test_bad_images_and_a_killed_previewer_cost_nobody_else(
    client: manyview.Client, server: ServerProcess, files: list[Path]
) -> None:
    bad = [b"", b"8BPS", cut_in_its_pixels(files[0].read_bytes()), b"\xff\xd8\xff\xe0 junk", saved("ICO")]
    found = client.preview([*bad, files[1].read_bytes()])
    assert sorted(found.errors) == [0, 1, 2, 3, 4]
    assert {error.reason for error in found.errors.values()} <= {
        *("IMAGE_EMPTY", "FORMAT_NOT_ALLOWED", "DECODE_FAILED", "HEADER_CORRUPT"),
    }
    assert len(found.views[5]) == 2
    (previewer,) = server.workers("previewer")
    os.kill(previewer, signal.SIGKILL)
    wait_until(lambda: previewer not in server.processes(), "it is gone")
    assert client.preview(files[1]).errors == {}
    assert client.health() == "SERVING"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "simcrl"}, "did you mean 'simclr'"),
        ({"config": {"views": {"preset": "bylo"}}}, "views.preset: must be one of 'simclr'"),
        ({"config": {"views": {"blurr": {"probability": 1}}}}, "did you mean 'views.blur'"),
        ({"config": {"views": {"custom": {"posterize": {}}}}}, "is not an installed plugin"),
        ({"config": {"views": {"pipelines": [{"count": 2}]}, "image_size": 1024}}, "at most 2 do"),
        ({"epoch": -1}, "epoch: -1 is outside of 0"),
    ],
)
def test_what_cannot_be_previewed_is_told(
    client: manyview.Client, files: list[Path], arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(manyview.InvalidArgument) as caught:
        client.preview(files[:4], **dict[str, Any]({"config": {"image_size": 24}, **arguments}))
    assert text in str(caught.value)


def test_a_job_or_an_image_that_is_not_there_is_told(client: manyview.Client, job: manyview.Job) -> None:
    with pytest.raises(manyview.NotFound, match="none"):
        client.preview(b"x", job="none")
    with pytest.raises(manyview.NotFound):
        client.preview("nowhere", job=job, dataset="previewed")
