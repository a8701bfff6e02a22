from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manyview_server.learn import methods
from manyview_server.learn.evaluation.knn import EvaluationSettings
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import build_method
from manyview_server.learn.settings import TrainSettings
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.evaluation import knn
from manyview_server.worker.evaluation.knn import KnnEvaluation, Split, split, why_not_measured
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.job_images.pixel_store import PixelStore
from manyview_server.worker.precision import Numerics
from manyview_server.worker.preprocess import Preprocess
from support.learning import job_images, worker_harness

CPU = torch.device("cpu")
FLOAT32 = Numerics(precision="float32", channels_last=True)
BFLOAT16 = Numerics(precision="bfloat16", channels_last=True)


PIXELS = np.stack([worker_harness.picture(row % 4, row) for row in range(200)])


def made(labels: Tensor | None = None, unreadable: Sequence[int] = ()) -> DecodedImages:
    """Return 200 images of four kinds, which are their labels unless others are given."""
    return job_images.from_array(
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2).contiguous(),
        labels=torch.arange(200) % 4 if labels is None else labels,
        unreadable=unreadable,
    )


@pytest.fixture
def images() -> DecodedImages:
    return made()


def settings_of(**evaluation: object) -> TrainSettings:
    small = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16}
    return methods.resolve("simclr", {**small, "evaluation": evaluation})


def measured(accuracies: dict[str, float] | None) -> dict[str, float]:
    assert accuracies is not None, "a stop came in between"
    return accuracies


def evaluation(images: DecodedImages, parts: Split, stopped: Any = lambda: False, **settings: object) -> KnnEvaluation:
    return KnnEvaluation(images, images.index, parts, settings_of(**settings), FLOAT32, stopped)


def test_training_never_sees_an_image_that_is_held_out(images: DecodedImages) -> None:
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    assert 30 < len(parts.held_out) < 70
    assert not set(parts.train.tolist()) & set(parts.held_out.tolist())
    assert set(parts.bank.tolist()) == set(parts.train.tolist())
    assert len(parts.train) + len(parts.held_out) == 200


def test_unlabelled_images_are_only_trained_on() -> None:
    labels = torch.arange(200) % 4
    labels[:100] = -1
    parts = split(made(labels).index, EvaluationSettings())
    assert set(range(100)) <= set(parts.train.tolist())
    assert min(parts.bank.tolist()) >= 100
    assert min(parts.held_out.tolist()) >= 100


def test_unreadable_images_change_no_part_and_are_left_out_of_each_measurement(images: DecodedImages) -> None:
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    lost = [*parts.bank.tolist()[::3], *parts.queries.tolist()[::4]]
    partly = made(unreadable=lost)
    assert torch.equal(split(partly.index, EvaluationSettings(knn_holdout_fraction=0.25)).bank, parts.bank)
    kept = Split(
        train=parts.train,
        held_out=parts.held_out,
        bank=parts.bank[~torch.isin(parts.bank, torch.tensor(lost))],
        queries=parts.queries[~torch.isin(parts.queries, torch.tensor(lost))],
    )
    counted: list[int] = []
    judge = evaluation(partly, parts)
    judge.on_images = counted.append
    assert measured(judge.of_raw_pixels()) == measured(evaluation(images, kept).of_raw_pixels())
    assert sum(counted) == judge.num_images


@pytest.mark.parametrize("part", ["bank", "queries"])
def test_if_nothing_of_a_part_can_be_read_nothing_is_measured(images: DecodedImages, part: str) -> None:
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    assert evaluation(made(unreadable=getattr(parts, part).tolist()), parts).of_raw_pixels() is None


@pytest.mark.parametrize("reason", ["no labels", "switched off"])
def test_without_an_evaluation_nothing_is_held_out(images: DecodedImages, reason: str) -> None:
    settings = EvaluationSettings(knn_every_epochs=0) if reason == "switched off" else EvaluationSettings()
    if reason == "no labels":
        images = made(torch.full((200,), -1))
    parts = split(images.index, settings)
    assert (len(parts.train), len(parts.bank), len(parts.held_out)) == (200, 0, 0)


def test_the_bank_has_at_most_as_many_images_as_the_settings_say(images: DecodedImages) -> None:
    parts = split(images.index, EvaluationSettings(knn_max_bank=20))
    assert len(parts.bank) == 20
    assert set(parts.bank.tolist()) <= set(parts.train.tolist())


def test_pixels_tell_bars_apart_and_wrong_labels_do_not(images: DecodedImages) -> None:
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    assert measured(evaluation(images, parts).of_raw_pixels())["knn_top1"] > 0.9
    shuffled = made(images.index.labels[torch.randperm(200)])
    assert measured(evaluation(shuffled, parts).of_raw_pixels())["knn_top1"] < 0.6


def test_each_vote_is_told_by_its_name_and_the_first_one_by_none(images: DecodedImages) -> None:
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    more = [{"k": 3, "temperature": 0.5}, {"k": 1000}, {"k": 1, "temperature": 0.1}]
    found = measured(evaluation(images, parts, knn_k=1, knn_more=more).of_raw_pixels())
    assert list(found) == ["knn_top1", "knn_top1_k3_t0.5", "knn_top1_k1000_t0.07"]
    alone = measured(evaluation(images, parts, knn_k=3, knn_temperature=0.5).of_raw_pixels())
    assert found["knn_top1_k3_t0.5"] == alone["knn_top1"]


@pytest.mark.parametrize(("num_classes", "has_top5"), [(5, False), (6, True)])
def test_top_5_is_told_where_there_are_more_than_five_classes(
    images: DecodedImages, num_classes: int, has_top5: bool
) -> None:
    images = made(torch.arange(200) % num_classes)
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    found = measured(evaluation(images, parts).of_raw_pixels())
    assert ("knn_top5" in found) is has_top5
    if has_top5:
        assert found["knn_top5"] >= found["knn_top1"]
        assert found["knn_top5_k20_t0.07"] >= found["knn_top1_k20_t0.07"]


def test_the_probe_is_judged_by_the_same_held_out_images(images: DecodedImages) -> None:
    """A probe that was taught the features of the training images themselves, as they are embedded."""
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    judge = evaluation(images, parts)
    method = build_method(settings_of(), 200)
    probe = LinearProbe(method.encoder.feature_dim, 4, 0.1)
    untaught = measured(judge.of_method(method, probe))
    normalize = settings_of().views.normalize
    preprocess = Preprocess(16, normalize.mean, normalize.std, CPU, torch.float32)
    features = method.embed(preprocess(images.gather(parts.train).images))
    for _ in range(100):
        probe.learn(features, images.index.labels[parts.train], torch.tensor(True))
    taught = measured(judge.of_method(method, probe))
    share_of_class_0 = (images.index.labels[parts.held_out] == 0).float().mean().item()
    assert untaught["linear_top1"] == pytest.approx(share_of_class_0), "at zero all classes tie"
    assert taught["linear_top1"] > 0.9
    assert taught["knn_top1"] == untaught["knn_top1"]
    assert "linear_top1" not in measured(judge.of_method(method))


def test_a_stop_ends_an_evaluation(images: DecodedImages) -> None:
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    assert evaluation(images, parts, stopped=lambda: True).of_raw_pixels() is None


def test_neighbors_of_a_network_in_bfloat16_are_distinguished_in_float32(
    images: DecodedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features around one far centre: all cosines are above 0.99, where those in bfloat16 are 1/256 apart."""
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    method = build_method(settings_of(), 200)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        assert torch.is_autocast_enabled("cpu")
        return 60 + pixels.float().flatten(1)

    monkeypatch.setattr(method, "embed", embed)
    found = measured(
        KnnEvaluation(images, images.index, parts, settings_of(knn_k=1), BFLOAT16, lambda: False).of_method(method)
    )
    monkeypatch.setattr(method, "embed", lambda pixels: 60 + pixels.float().flatten(1))
    expected = measured(
        KnnEvaluation(images, images.index, parts, settings_of(knn_k=1), FLOAT32, lambda: False).of_method(method)
    )
    assert found == expected
    assert found["knn_top1"] > 0.9


def test_more_may_be_held_out_than_are_classified(images: DecodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    assert set(whole.queries.tolist()) == set(whole.held_out.tolist())
    monkeypatch.setattr(knn, "MAX_QUERIES", 20)
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    assert len(parts.queries) == 20
    assert set(parts.queries.tolist()) < set(whole.queries.tolist())
    assert torch.equal(parts.train, whole.train)
    assert torch.equal(parts.held_out, whole.held_out)


def why(labels: list[int], **settings: Any) -> str | None:
    """Return why kNN is not measured on images with these labels. The images of odd index are held out."""
    rows = np.zeros(len(labels), SNAPSHOT_DTYPE)
    numbers = np.arange(len(labels))
    rows["image_id"], rows["label"] = np.where(numbers % 2 == 1, numbers, 2**62 + numbers), labels
    index = ImageIndex(rows)
    chosen = EvaluationSettings(**{"knn_holdout_fraction": 0.25, **settings})
    return why_not_measured(index, split(index, chosen), chosen)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([-1] * 40, "no image has a label. Upload"),
        ([0] * 40, "every labelled image has the same label. Use at least two"),
        ([-1, 0] * 20, "every labelled image has the same label"),
        (list(range(40)), "each label occurs once. Use labels that several images share"),
        ([0, 1] * 4, "only 4 labelled images are held out; at least 5 are needed. Label more images, or raise .*0.25"),
        ([0, 1, -1, -1] * 4, "only 4 labelled images are held out"),
        ([0, 1, 0, -1, 0, -1], "only 1 labelled image is held out"),
        ([0, 1] * 20, "all labelled images that are trained on have the same label. Label more images of the other"),
        ([0, 2, 1, 2] * 10, "no held-out image shares its label with an image that is trained on"),
        ([0, 0, 1, 1] * 10, None),
        ([0, 0, 1, 1] * 2 + [0, 1], None),
    ],
)  # fmt: skip
def test_an_accuracy_that_any_features_would_have_is_not_measured(labels: list[int], reason: str | None) -> None:
    found = why(labels)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.match(reason, found), found


def test_raw_pixels_are_measured_once(images: DecodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = evaluation(images, split(images.index, EvaluationSettings(knn_holdout_fraction=0.25)))
    first = judge.of_raw_pixels()
    monkeypatch.setattr(knn, "raw_pixel_features", lambda _: pytest.fail("measured again"))
    assert judge.of_raw_pixels() == first


def test_networks_and_raw_pixels_that_are_measured_together_decode_each_image_once() -> None:
    images = made(unreadable=[3, 50])
    images.store = PixelStore(images.size, CPU, 0, 200)
    parts = split(images.index, EvaluationSettings(knn_holdout_fraction=0.25))
    first, second = build_method(settings_of(), 200), build_method(settings_of(), 150)
    second.load_state_dict({name: 0.5 * value for name, value in first.state_dict().items()})
    probe = LinearProbe(first.encoder.feature_dim, 4, 0.1)
    alone, counted = evaluation(images, parts), list[int]()
    expected = {
        "first": alone.of_method(first, probe),
        "second": alone.of_method(second),
        "raw_pixels": alone.of_raw_pixels(),
    }
    decoded = images._decoder.decoded  # type: ignore[attr-defined]
    decoded.clear()
    judge = evaluation(images, parts)
    judge.on_images = counted.append
    assert judge.measure({"first": first, "second": second}, {"first": probe}, raw_pixels=True) == expected
    assert sorted(decoded) == sorted({*parts.bank.tolist(), *parts.queries.tolist()} - {3, 50})
    assert sum(counted) == 3 * judge.num_images
    assert judge.of_raw_pixels() == expected["raw_pixels"]
