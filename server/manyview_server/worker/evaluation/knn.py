"""The accuracy of nearest neighbors on labelled images that are held out of training.

Shapes: N images of the data set, B batch, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from manyview_server.counted_noun import number_of
from manyview_server.learn.evaluation.knn import EvaluationSettings, knn_rankings, raw_pixel_features, topk_accuracy
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method
from manyview_server.learn.settings import TrainSettings
from manyview_server.worker.job_images.decoded_images import DecodedImages, DecodingStopped
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.precision import Numerics
from manyview_server.worker.preprocess import Preprocess

EVALUATION_BATCH = 256
MIN_CLASSES_FOR_TOP5 = 6
MAX_QUERIES = 10_000
"""The accuracy of this many images is known to half a point, and their raw pixels take 120 MB."""
MIN_QUERIES = 5
"""Fewer images are not classified: one of them would move the accuracy by more than 20 points."""

Features = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, o, o) to features (B, D)."""
Accuracies = dict[str, float]
RAW_PIXELS = "raw_pixels"
NO_PROBES: Mapping[str, LinearProbe] = {}


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of the data set, int64, on the CPU. Without an evaluation all but `train` are empty.

    Labels and ids alone decide about them. Unreadable images are among them, and are left out when they are found.
    """

    train: Tensor
    bank: Tensor
    held_out: Tensor
    queries: Tensor
    """The rows of `held_out` that are classified, MAX_QUERIES at most."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """The features of some labelled images, on the device."""

    features: Tensor
    """(N', D) float32."""
    labels: Tensor
    """(N',) int64."""


def is_held_out(image_ids: Tensor, fraction: float) -> Tensor:
    """Return (N,) bool: true for about `fraction` of all images, by their hash, whatever else is in the data set."""
    # An image id is the first 63 bits of a SHA-256, so it is uniform.
    return image_ids.double() < fraction * 2.0**63


def split(index: ImageIndex, settings: EvaluationSettings) -> Split:
    """Return which images are trained on, and which are held out. Added images change this for no other image."""
    labelled = index.labels >= 0
    held_out = labelled & is_held_out(index.image_ids, settings.knn_holdout_fraction)
    bank = labelled & ~held_out
    if settings.knn_every_epochs == 0 or not held_out.any() or not bank.any():
        held_out, bank = torch.zeros_like(labelled), torch.zeros_like(labelled)
    return Split(
        train=_rows(~held_out),
        bank=_sample(index, bank, settings.knn_max_bank),
        held_out=_rows(held_out),
        queries=_sample(index, held_out, MAX_QUERIES),
    )


def why_not_measured(index: ImageIndex, parts: Split, settings: EvaluationSettings) -> str | None:
    """Return why an accuracy on these images would say nothing about the features, and what to do; None if it would.

    It says nothing where any features would have the same accuracy, or where single images decide it.
    """
    labels = index.labels[index.labels >= 0]
    num_labelled, num_labels = len(labels), len(labels.unique())
    bank, queries = index.labels[parts.bank].unique(), index.labels[parts.queries]
    if num_labelled == 0:
        return "no image has a label. Upload the images with labels to measure it"
    if num_labels == 1 and num_labelled > 1:
        return "every labelled image has the same label. Use at least two labels"
    if num_labels == num_labelled > 1:
        return "each label occurs once. Use labels that several images share"
    if len(queries) < MIN_QUERIES:
        found = number_of(len(queries), "labelled image is", "labelled images are")
        return (
            f"only {found} held out; at least {MIN_QUERIES} are needed. "
            f"Label more images, or raise evaluation.knn_holdout_fraction ({settings.knn_holdout_fraction:g})"
        )
    if len(bank) == 1:
        return "all labelled images that are trained on have the same label. Label more images of the other labels"
    if not torch.isin(queries, bank).any():
        return "no held-out image shares its label with an image that is trained on. Use labels with more images each"
    return None


class KnnEvaluation:
    """Measures accuracies on the held-out images, by neighbors in the bank and by the linear probe, from 0 to 1.

    `knn_top1` uses the k and temperature of the settings. A stop during a measurement makes its result None. Every
    measurement waits for the device: make them between steps.
    """

    def __init__(
        self,
        decoded: DecodedImages,
        index: ImageIndex,
        parts: Split,
        settings: TrainSettings,
        numerics: Numerics,
        stopped: Callable[[], bool],
    ) -> None:
        self.on_images: Callable[[int], None] = lambda _: None
        """Called with the number of images whose features are known, for each network that is measured."""
        self._decoded = decoded
        self._index = index
        self._parts = parts
        self._settings = settings.evaluation
        self._numerics = numerics
        self._device = decoded.store.device
        self._stopped = stopped
        self._of_raw_pixels: Accuracies | None = None
        normalize = settings.views.normalize
        self._preprocess = Preprocess(settings.image_size, normalize.mean, normalize.std, self._device, torch.float32)

    @property
    def num_images(self) -> int:
        """The images of one measurement."""
        return len(self._parts.bank) + len(self._parts.queries)

    @property
    def knows_raw_pixels(self) -> bool:
        """Were the raw pixels measured before?"""
        return self._of_raw_pixels is not None

    def of_method(self, method: Method, probe: LinearProbe | None = None) -> Accuracies | None:
        """Return the accuracies of the method's embedding, and of `probe` on it."""
        return self.measure({"": method}, {} if probe is None else {"": probe})[""]

    def of_raw_pixels(self) -> Accuracies | None:
        """Return the accuracies of the pixels themselves, which learning must beat. They are measured once."""
        return self.measure({}, raw_pixels=True)[RAW_PIXELS]

    def measure(
        self, methods: Mapping[str, Method], probes: Mapping[str, LinearProbe] = NO_PROBES, *, raw_pixels: bool = False
    ) -> dict[str, Accuracies | None]:
        """Return the accuracies of several networks by their names, and of RAW_PIXELS. Each image is decoded once.

        `probes` has those that are measured on the embedding of the method of the same name.
        """
        features: dict[str, Features] = {name: partial(self._embed, method) for name, method in methods.items()}
        if raw_pixels and self._of_raw_pixels is None:
            features[RAW_PIXELS] = raw_pixel_features
        found = self._accuracies(features, probes) if features else {}
        if raw_pixels:
            self._of_raw_pixels = found.setdefault(RAW_PIXELS, self._of_raw_pixels)
        return found

    def _embed(self, method: Method, images: Tensor) -> Tensor:
        # Cosines in bfloat16 are 1/256 apart near 1, so neighbors are compared in float32 for every network.
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._numerics.precision == "bfloat16"):
            return method.embed(images)

    def _accuracies(
        self, features: Mapping[str, Features], probes: Mapping[str, LinearProbe]
    ) -> dict[str, Accuracies | None]:
        banks, all_queries = (self._labelled(features, rows) for rows in (self._parts.bank, self._parts.queries))
        if banks is None or all_queries is None:
            return dict.fromkeys(features)
        found: dict[str, Accuracies | None] = {}
        for name, queries in all_queries.items():
            rankings = self._votes(queries.features, banks.pop(name))
            if name in probes:
                rankings["linear", ""] = probes[name].rankings(queries.features, best=5)
            tops = (1, 5) if self._index.num_classes >= MIN_CLASSES_FOR_TOP5 else (1,)
            found[name] = {
                f"{judge}_top{k}{suffix}": float(topk_accuracy(ranking, queries.labels, k))
                for (judge, suffix), ranking in rankings.items()
                for k in tops
            }
        return found

    def _votes(self, queries: Tensor, bank: LabelledFeatures) -> dict[tuple[str, str], Tensor]:
        """Return the best classes of each query, by ("knn", SUFFIX) for each vote. The first vote has no suffix."""
        first = self._settings.knn_k, self._settings.knn_temperature
        votes = {first: ""}
        for more in self._settings.knn_more:
            votes.setdefault((more.k, more.temperature), f"_k{more.k}_t{more.temperature:g}")
        rankings = knn_rankings(queries, bank.features, bank.labels, self._index.num_classes, votes, best=5)
        return {("knn", suffix): rankings[vote] for vote, suffix in votes.items()}

    @torch.inference_mode()
    def _labelled(self, features: Mapping[str, Features], rows: Tensor) -> dict[str, LabelledFeatures] | None:
        """Return all features of the images of `rows` that can be read, or None after a stop or if there are none."""
        chunks: dict[str, list[Tensor]] = {name: [] for name in features}
        labels: list[Tensor] = []
        with closing(self._decoded.batches(torch.split(rows, EVALUATION_BATCH))) as batches, suppress(DecodingStopped):
            for found in batches:
                images = found.images
                if not found.readable.all():
                    images = images.index_select(0, _rows(found.readable).to(self._device))
                normalized = self._preprocess(images) if len(images) else images
                for name, compute in features.items():
                    if self._stopped():
                        return None
                    if len(images):
                        chunks[name].append(compute(normalized).float())
                    self.on_images(len(found.rows))
                labels.append(self._index.labels[found.rows[found.readable]])
            if sum(map(len, labels)):
                known = torch.cat(labels).to(self._device)
                return {name: LabelledFeatures(torch.cat(chunks.pop(name)), known) for name in features}
        return None


def _sample(index: ImageIndex, mask: Tensor, most: int) -> Tensor:
    """Return at most `most` rows, chosen by their ids: these are hashes, so the order of the upload does not matter."""
    rows = _rows(mask)
    return rows[index.image_ids[rows].argsort()[:most]]


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]
