from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from manyview_server.learn import methods
from manyview_server.learn.evaluation import EvaluationSettings
from manyview_server.worker.cache import ImageCache
from manyview_server.worker.knn import KnnEvaluation, Split, split
from manyview_server.worker.precision import Numerics

CPU = torch.device("cpu")
FLOAT32 = Numerics(precision="float32", channels_last=True)


@pytest.fixture
def images(harness) -> ImageCache:
    labels = torch.arange(200) % 4
    pixels = np.stack([harness.picture(label, seed) for seed, label in enumerate(labels.tolist())])
    return ImageCache(
        storage=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        sizes=torch.full((200, 2), 16),
        image_ids=torch.from_numpy(np.random.default_rng(0).integers(0, 2**63, 200)),
        labels=labels,
        readable=torch.ones(200, dtype=torch.bool),
        location="device",
        unreadable=(),
    )


def evaluation(images: ImageCache, parts: Split, stopped=lambda: False) -> KnnEvaluation:
    return KnnEvaluation(images, parts, methods.resolve("simclr", {"image_size": 16}), FLOAT32, CPU, stopped)


def test_training_never_sees_an_image_that_is_held_out(images: ImageCache) -> None:
    parts = split(images, EvaluationSettings(knn_holdout_fraction=0.25))
    assert 30 < len(parts.held_out) < 70
    assert not set(parts.train.tolist()) & set(parts.held_out.tolist())
    assert set(parts.bank.tolist()) == set(parts.train.tolist())
    assert len(parts.train) + len(parts.held_out) == 200


def test_unreadable_images_take_no_part_and_unlabelled_ones_are_only_trained_on(images: ImageCache) -> None:
    labels, readable = images.labels.clone(), images.readable.clone()
    labels[:100], readable[50:60] = -1, False
    parts = split(dataclasses.replace(images, labels=labels, readable=readable), EvaluationSettings())
    everywhere = torch.cat([parts.train, parts.bank, parts.held_out]).tolist()
    assert not set(everywhere) & set(range(50, 60))
    assert set(range(50)) <= set(parts.train.tolist())
    assert min(parts.bank.tolist()) >= 100
    assert min(parts.held_out.tolist()) >= 100


@pytest.mark.parametrize("reason", ["no labels", "switched off"])
def test_without_an_evaluation_nothing_is_held_out(images: ImageCache, reason: str) -> None:
    settings = EvaluationSettings(knn_every_epochs=0) if reason == "switched off" else EvaluationSettings()
    if reason == "no labels":
        images = dataclasses.replace(images, labels=torch.full((200,), -1))
    parts = split(images, settings)
    assert (len(parts.train), len(parts.bank), len(parts.held_out)) == (200, 0, 0)


def test_the_bank_has_at_most_as_many_images_as_the_settings_say(images: ImageCache) -> None:
    parts = split(images, EvaluationSettings(knn_max_bank=20))
    assert len(parts.bank) == 20
    assert set(parts.bank.tolist()) <= set(parts.train.tolist())


def test_pixels_tell_bars_apart_and_wrong_labels_do_not(images: ImageCache) -> None:
    parts = split(images, EvaluationSettings(knn_holdout_fraction=0.25))
    assert evaluation(images, parts).of_raw_pixels() > 0.9
    shuffled = dataclasses.replace(images, labels=images.labels[torch.randperm(200)])
    assert evaluation(shuffled, parts).of_raw_pixels() < 0.6


def test_a_stop_ends_an_evaluation(images: ImageCache) -> None:
    parts = split(images, EvaluationSettings(knn_holdout_fraction=0.25))
    assert evaluation(images, parts, stopped=lambda: True).of_raw_pixels() is None
