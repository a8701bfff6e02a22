"""The client: one object for one server. Each method is one thing a user wants done."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from manyview import _convert, _names
from manyview._arguments import positive_s, some, text
from manyview._errors import AlreadyExists, NotFound, UploadChanged, UploadRejected
from manyview._jobs import Job, list_models
from manyview._progress import ProgressOption, gauge, reporter
from manyview._results import dataset_embeddings, embeddings, export, preview, selection
from manyview._results.embeddings import Embeddings, EmbedRun
from manyview._results.preview import Preview
from manyview._transport.channel import Channel, Deadlines, TLSOptions
from manyview._transport.paging import pages
from manyview._transport.rpcs import Rpcs
from manyview._types import (
    Dataset,
    DuplicateGroup,
    Methods,
    Model,
    QueryNeighbors,
    Selection,
    ServerInfo,
    StoredImage,
    UploadReport,
)
from manyview._uploads import sources
from manyview._uploads.upload import Upload
from manyview.v1 import dataset_service_pb2, embed_service_pb2, model_service_pb2, train_job_service_pb2

_DEFAULT_METHOD = "simclr"
_DEFAULT_TARGET = "localhost:50051"
_PAGE_SIZE = 1000


class Client:
    """A connection to a manyview server; safe to share between threads. Use it in a `with` block, or `close` it.

    `target` is host:port or unix:/path ($MANYVIEW_TARGET, else localhost:50051), `token` a bearer token
    ($MANYVIEW_TOKEN), `tls` True, the path of a CA file ($MANYVIEW_TLS_CA, with $MANYVIEW_TLS_SERVER_NAME), or
    `TLSOptions`. `timeout_s` is how long a call with one answer may take over all its attempts (default 30);
    `deadlines` sets every kind of wait. Give one of the two. Nothing is connected before the first call.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls: bool | str | PathLike[str] | TLSOptions | None = None,
        timeout_s: float | None = None,
        deadlines: Deadlines | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.target = text("target", target) or os.environ.get("MANYVIEW_TARGET") or _DEFAULT_TARGET
        self._channel = Channel(
            self.target,
            token=text("token", token) or os.environ.get("MANYVIEW_TOKEN"),
            tls=TLSOptions.from_environment() if tls is None else tls,
            deadlines=_deadlines(positive_s("timeout_s", timeout_s), deadlines),
        )
        self._rpcs = Rpcs(self._channel)
        self._on_close = on_close

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<manyview.Client {self.target}>"

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
        if self._on_close is not None:
            self._on_close()

    # --- images in

    def upload(
        self,
        images: Any,
        dataset: Dataset | str,
        *,
        labels: sources.Labels | None = None,
        upload_id: str | None = None,
        progress: ProgressOption = None,
        on_rejected: Literal["report", "raise"] = "report",
    ) -> Dataset:
        """Send images into a data set, which is created if need be, and return it with `.upload`, the report.

        `images`: a folder (an image's label is the name of the subfolder that it lies in), WebDataset shards, paths,
        bytes, PIL images, uint8 arrays (H, W, 3), or any iterable of those or of (image, label) pairs. An iterable is
        pulled in the calling thread, as fast as the server takes the images; while it pauses, its images are sent.
        `labels` gives labels in the same order, or by key. A dropped connection is bridged; after a crash the same call
        goes on where it stopped, for folders and paths by itself and for iterators when `upload_id` is given.

        Raises UploadChanged when the images differ from those sent before under this id, UploadRejected with
        `on_rejected="raise"` when some were refused, FileNotFoundError, ValueError and TypeError for what are no
        images.
        """
        if on_rejected not in ("report", "raise"):
            raise ValueError(f"on_rejected must be 'report' or 'raise', not {on_rejected!r}")
        name = _names.dataset_name(dataset)
        text("upload_id", upload_id)
        limits = self._info.limits
        source = sources.open_source(images, max_image_bytes=limits.max_image_bytes, labels=labels)
        self._create_dataset_if_missing(name)
        report = self._upload(source, name, upload_id or _upload_id(name, source), progress, own_id=upload_id is None)
        if report.num_rejected and on_rejected == "raise":
            raise UploadRejected(report)
        return replace(self.dataset(name), upload=report)

    def _upload(
        self, source: sources.ImageSource, name: str, upload_id: str, progress: ProgressOption, *, own_id: bool
    ) -> UploadReport:
        with reporter(progress, f"upload to {name}", source.total) as advance:
            upload = Upload(self._rpcs, source, name, upload_id, self._info.limits, advance)
            try:
                return upload.run()
            except UploadChanged:
                # The same files, finished before and changed since, are a new upload; the server keeps what it has.
                if not own_id or source.identity is None or not upload.was_finished:
                    raise
        return self._upload(source, name, uuid.uuid4().hex, progress, own_id=False)

    def _create_dataset_if_missing(self, name: str) -> None:
        try:
            self.dataset(name)
        except NotFound:
            try:
                self.create_dataset(name)
            except AlreadyExists:
                return

    def create_dataset(self, name: str) -> Dataset:
        """A new, empty data set, such as one that a job is to follow; `upload` creates its own.

        Raises AlreadyExists DATASET_EXISTS."""
        dataset_id = _names.dataset_name(name).removeprefix("datasets/")
        request = dataset_service_pb2.CreateDatasetRequest(dataset_id=dataset_id)
        return _convert.dataset(self._rpcs.create_dataset(request).dataset)

    def dataset(self, name: str) -> Dataset:
        """A data set by name or id."""
        request = dataset_service_pb2.GetDatasetRequest(name=_names.dataset_name(name))
        return _convert.dataset(self._rpcs.get_dataset(request).dataset)

    def datasets(self) -> list[Dataset]:
        """All data sets."""

        def fetch(token: str) -> dataset_service_pb2.ListDatasetsResponse:
            request = dataset_service_pb2.ListDatasetsRequest(page_size=_PAGE_SIZE, page_token=token)
            return self._rpcs.list_datasets(request)

        return [_convert.dataset(dataset) for page in pages(fetch) for dataset in page.datasets]

    def delete_dataset(self, dataset: Dataset | str) -> None:
        """Remove a data set and its images. Raises FailedPrecondition DATASET_IN_USE while a job reads it."""
        self._rpcs.delete_dataset(dataset_service_pb2.DeleteDatasetRequest(name=_names.dataset_name(dataset)))

    def images(self, dataset: Dataset | str, statuses: Iterable[str] | None = None) -> Iterator[StoredImage]:
        """The images of a data set in the order of their commit, fetched page by page. `statuses`: any of STORED,
        REJECTED, UNREADABLE; by default the first and the last."""
        known = dataset_service_pb2.StoredImage.Status.keys()[1:]
        names = [f"STATUS_{name.upper()}" for name in some("statuses", statuses) or ()]
        for name in names:
            if name not in known:
                raise ValueError(f"unknown status {name.removeprefix('STATUS_')}: STORED, REJECTED or UNREADABLE")
        return self._list_images(_names.dataset_name(dataset), names)

    def _list_images(self, name: str, statuses: list[str]) -> Iterator[StoredImage]:
        def fetch(token: str) -> dataset_service_pb2.ListImagesResponse:
            request = dataset_service_pb2.ListImagesRequest(dataset=name, page_token=token, statuses=statuses)
            return self._rpcs.list_images(request)

        return (_convert.stored_image(image) for page in pages(fetch) for image in page.images)

    def read_image(self, dataset: Dataset | str, image: StoredImage | str) -> bytes:
        """The file of one stored image, as it was sent; `image` is one that was listed, or a key. Raises NotFound
        IMAGE_NOT_FOUND, FailedPrecondition KEY_AMBIGUOUS and, where the disk lost or changed it, DataLoss."""
        request = dataset_service_pb2.GetImageRequest(
            dataset=_names.dataset_name(dataset), image=_names.image_ref(image)
        )
        return self._rpcs.get_image(request).data

    # --- training

    def train(
        self,
        dataset: Dataset | str | None = None,
        method: str | None = None,
        *,
        backbone: str | None = None,
        epochs: int | None = None,
        config: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        clone_from: Job | str | None = None,
        continue_from: Job | Model | str | None = None,
        follow: int | None = None,
    ) -> Job:
        """Queue a job over the images that the data set holds now. `config` names only what differs from the defaults
        of the method (see `methods`), which is SimCLR unless another is named.

        With `clone_from`, a job, the data set and the whole configuration are that job's unless said otherwise, and
        training begins anew. With `continue_from`, a job or a checkpoint, it goes on from there, step numbers included:
        raise `epochs`.

        With `follow=1000` the job trains while images still come in: it starts once the data set holds 1,000, and
        adopts what is added, each time with a "snapshot" event. `config["max_steps"]` says when it ends.

        Raises InvalidArgument with every violation named, AlreadyExists when `job_id` is taken."""
        request = _train_request(dataset, method, backbone, epochs, config, clone_from, continue_from, follow)
        request.train_job_id = text("job_id", job_id) or ""
        return Job(self._rpcs, _convert.train_job(self._rpcs.create_train_job(request).train_job))

    def resolve_config(
        self,
        dataset: Dataset | str | None = None,
        method: str | None = None,
        *,
        backbone: str | None = None,
        epochs: int | None = None,
        config: Mapping[str, Any] | None = None,
        clone_from: Job | str | None = None,
        continue_from: Job | Model | str | None = None,
        follow: int | None = None,
    ) -> dict[str, Any]:
        """The whole configuration that `train` would run with, checked as there; nothing is created."""
        request = _train_request(dataset, method, backbone, epochs, config, clone_from, continue_from, follow)
        request.validate_only = True
        return _convert.config(self._rpcs.create_train_job(request).train_job.config)

    def job(self, name: str) -> Job:
        """A job by name or id."""
        request = train_job_service_pb2.GetTrainJobRequest(name=_names.job_name(name))
        return Job(self._rpcs, _convert.train_job(self._rpcs.get_train_job(request).train_job))

    def jobs(self) -> list[Job]:
        """All jobs, newest first."""

        def fetch(token: str) -> train_job_service_pb2.ListTrainJobsResponse:
            request = train_job_service_pb2.ListTrainJobsRequest(page_size=_PAGE_SIZE, page_token=token)
            return self._rpcs.list_train_jobs(request)

        return [Job(self._rpcs, _convert.train_job(job)) for page in pages(fetch) for job in page.train_jobs]

    def methods(self) -> Methods:
        """The methods and backbones that can be trained on this server, with every parameter's default and bounds."""
        return _convert.methods(self._rpcs.list_methods(train_job_service_pb2.ListMethodsRequest()))

    def preview(
        self,
        images: Any,
        method: str | None = None,
        *,
        job: Job | str | None = None,
        config: Mapping[str, Any] | None = None,
        seed: int | None = None,
        epoch: int = 0,
        dataset: Dataset | str | None = None,
    ) -> Preview:
        """The views of up to 16 images as training makes them, with what was done to make each.

        `images`: whatever `upload` takes, or, with `dataset`, keys of images of that data set; what `images` lists of a
        job's own needs no `dataset`. With `job` they are the very views that this job makes of them in `epoch`, which
        counts from 0; without, those of a method, SimCLR unless another is named, with `config` and `seed` as for
        `train`.

        Raises InvalidArgument with every violation named, FailedPrecondition where a plugin fails.
        """
        wanted = preview.request(job=job, method=method, config=config, seed=seed, epoch=epoch, default=_DEFAULT_METHOD)
        errors = {}
        are_stored, images = _names.are_stored(images)
        if dataset is not None or are_stored:
            wanted.dataset = "" if dataset is None else _names.dataset_name(dataset)
            found = preview.stored(images)
        else:
            files = preview.sent(images, self._info.limits)
            errors = {at: image.error for at, (image, _) in enumerate(files) if image.error is not None}
            found = [(image.key, message) for image, message in files]
        wanted.images.extend(message for _, message in found)
        return preview.preview([key for key, _ in found], errors, self._rpcs.preview_views(wanted))

    # --- embeddings and weights out

    def embed(
        self,
        images: Any,
        model: Job | Model | str,
        *,
        output: str = "backbone",
        l2_normalize: bool = False,
        dtype: str = "float32",
        batch_size: int = 64,
        progress: ProgressOption = None,
    ) -> Embeddings:
        """Embed images (whatever `upload` takes) with a job's newest checkpoint, a checkpoint, or "backbones/NAME".

        Returns rows in the order of the images; the row of an image that cannot be decoded is NaN and has an entry in
        `.errors`. `output` is "backbone" or "projection", `dtype` "float32" or "float16".
        """
        how = embeddings.options(output, l2_normalize, dtype)
        source = sources.open_source(images, max_image_bytes=self._info.limits.max_image_bytes)
        chunks = []
        with reporter(progress, "embed", source.total) as advance:
            for chunk in self._embed(source, model, how, batch_size):
                chunks.append(chunk)
                advance(len(chunk))
        return embeddings.joined(chunks)

    def embed_iter(
        self,
        images: Any,
        model: Job | Model | str,
        *,
        output: str = "backbone",
        l2_normalize: bool = False,
        dtype: str = "float32",
        batch_size: int = 64,
    ) -> Iterator[Embeddings]:
        """As `embed`, but in chunks as they come, with bounded memory: for images without end."""
        how = embeddings.options(output, l2_normalize, dtype)
        source = sources.open_source(images, max_image_bytes=self._info.limits.max_image_bytes)
        return self._embed(source, model, how, batch_size)

    def _embed(
        self, source: sources.ImageSource, model: Job | Model | str, how: Any, batch_size: int
    ) -> Iterator[Embeddings]:
        made = embeddings.batches(iter(source), batch_size, self._info.limits)
        return EmbedRun(self._rpcs, _names.model_name(model), how).run(made)

    def embed_dataset(
        self,
        dataset: Dataset | str,
        model: Job | Model | str,
        *,
        output: str = "backbone",
        l2_normalize: bool = False,
        dtype: str = "float32",
        version: int | None = None,
        pca: int | float | None = None,
        whiten: bool = False,
        progress: ProgressOption = None,
    ) -> Embeddings:
        """The embeddings of all images that a data set holds, or of its first `version`, in the order of their upload.

        Nothing but the rows travels; the server keeps them, and the next call for the same model gets them at once. The
        row of an unreadable image is NaN and has an entry in `.errors`. With `pca` they are reduced to so many
        dimensions (an int), or to as few as keep a share of the variance (a float), fitted on the data set:
        `.variance_kept` says how much that is. `whiten` scales each dimension to variance 1.
        """
        asked = _embed_dataset_request(dataset, model, output, l2_normalize, dtype, version, pca, whiten)
        with gauge(progress, f"embed {asked.dataset}") as report:
            return embeddings.joined(list(dataset_embeddings.pages(self._rpcs, asked, report)))

    def embed_dataset_iter(
        self,
        dataset: Dataset | str,
        model: Job | Model | str,
        *,
        output: str = "backbone",
        l2_normalize: bool = False,
        dtype: str = "float32",
        version: int | None = None,
        pca: int | float | None = None,
        whiten: bool = False,
    ) -> Iterator[Embeddings]:
        """As `embed_dataset`, but in chunks as they come, with bounded memory; `.start` is a chunk's first row."""
        asked = _embed_dataset_request(dataset, model, output, l2_normalize, dtype, version, pca, whiten)
        return dataset_embeddings.pages(self._rpcs, asked, lambda _done, _total: None)

    # --- which images

    def select(
        self,
        dataset: Dataset | str,
        count: int | None = None,
        *,
        model: Job | Model | str | None = None,
        strategy: str = "coreset",
        seed: int | None = None,
        distance: float | None = None,
        num_neighbors: int | None = None,
        like: Any = None,
        like_keys: Iterable[Any] | None = None,
        chosen: Iterable[Any] = (),
        balance: str | Mapping[str, int] | None = None,
        output: str | None = None,
        metric: str | None = None,
        version: int | None = None,
        progress: ProgressOption = None,
        timeout_s: float | None = None,
    ) -> Selection:
        """Choose `count` images of a data set by their embeddings. The same request gives the same images.

        `strategy`: "coreset", diverse ones, each the farthest from all before it; "minimum_distance", the same until
        nothing is farther than `distance`; "typicality", those in the midst of many others (`num_neighbors`, 20);
        "similarity", the nearest to the images `like` (whatever `embed` takes, or images of the data set as `images`
        lists them; or their keys as `like_keys`); "random", which needs no model. `seed` is for the first two and the
        last.

        `chosen` are images that were chosen before, by key or as this gives them: the new ones are chosen with regard
        to them. `balance` is a number for each label, {"dress": 10}, or "equal" or "proportional" shares of `count`.
        `metric` "cosine" measures between rows scaled to length 1, from 0 to 2, "euclidean" as they are.

        Raises InvalidArgument that names every field that is wrong, DeadlineExceeded after `timeout_s`.
        """
        positive_s("timeout_s", timeout_s)
        request = embed_service_pb2.SelectSamplesRequest(
            dataset=_names.dataset_name(dataset),
            model="" if model is None else _names.model_name(model),
            output=None if output is None else selection.output(output),
            metric=None if metric is None else selection.metric(metric),
            chosen=[_names.image_ref(image) for image in chosen],
            balance=selection.balance(balance),
        )
        _convert.set_count(request, "version", version)
        _convert.set_count(request, "count", count)
        given = {
            "seed": seed,
            "distance": distance,
            "num_neighbors": num_neighbors,
            "like": like,
            "like_keys": like_keys,
        }
        selection.set_strategy(request, strategy, given, self._info.limits)
        with gauge(progress, f"select from {request.dataset}") as report:
            return selection.select(self._rpcs, request, report, timeout_s)

    def neighbors(
        self,
        dataset: Dataset | str,
        images: Any = None,
        *,
        keys: Iterable[Any] | None = None,
        model: Job | Model | str,
        num_neighbors: int | None = None,
        output: str = "backbone",
        metric: str = "cosine",
        version: int | None = None,
        progress: ProgressOption = None,
        timeout_s: float | None = None,
    ) -> list[QueryNeighbors]:
        """The images of a data set that are nearest to each of `images` (whatever `embed` takes), or to each of its
        own: as `images` or `select` give them, or by their `keys`; these are no neighbors of themselves.

        One entry for each query, in their order; a query that cannot be decoded has an `.error` and no neighbors.
        """
        positive_s("timeout_s", timeout_s)
        request = embed_service_pb2.FindNeighborsRequest(
            dataset=_names.dataset_name(dataset),
            model=_names.model_name(model),
            output=selection.output(output),
            metric=selection.metric(metric),
        )
        _convert.set_count(request, "version", version)
        _convert.set_count(request, "num_neighbors", num_neighbors)
        limits = self._info.limits
        asked = selection.queries(images, keys, limits)
        with gauge(progress, f"neighbors in {request.dataset}") as report:
            return selection.neighbors(self._rpcs, request, asked, limits, report, timeout_s)

    def duplicates(
        self,
        dataset: Dataset | str,
        *,
        model: Job | Model | str,
        max_distance: float,
        output: str = "backbone",
        metric: str = "cosine",
        version: int | None = None,
        progress: ProgressOption = None,
        timeout_s: float | None = None,
    ) -> list[DuplicateGroup]:
        """Groups of near-duplicates: images that are connected through pairs at most `max_distance` apart, in the order
        of their first images. 0 finds images with equal embeddings."""
        positive_s("timeout_s", timeout_s)
        request = embed_service_pb2.FindDuplicatesRequest(
            dataset=_names.dataset_name(dataset),
            model=_names.model_name(model),
            output=selection.output(output),
            metric=selection.metric(metric),
            max_distance=max_distance,
        )
        _convert.set_count(request, "version", version)
        with gauge(progress, f"duplicates in {request.dataset}") as report:
            return selection.duplicates(self._rpcs, request, report, timeout_s)

    # --- models

    def models(self, job: Job | str | None = None) -> list[Model]:
        """What can embed: the checkpoints of one job, or of all jobs and then the plain backbones."""
        return list(list_models(self._rpcs, "" if job is None else _names.job_name(job)))

    def model(self, model: Job | str) -> Model:
        """A model by name; a job means its newest checkpoint."""
        request = model_service_pb2.GetModelRequest(name=_names.model_name(model))
        return _convert.model(self._rpcs.get_model(request).model)

    def export(self, model: Job | Model | str, path: str | PathLike[str]) -> Path:
        """Write a model's backbone to `path` as a safetensors file, which torchvision loads as it is. The file
        appears when it is complete and its SHA-256 is right."""
        return export.export(self._rpcs, _names.model_name(model), Path(path))

    # --- the server

    def server_info(self) -> ServerInfo:
        """The server's version, limits and devices."""
        reply = self._rpcs.get_server_info(model_service_pb2.GetServerInfoRequest())
        return _convert.server_info(reply)

    def health(self) -> str:
        """ "SERVING", or "NOT_SERVING" while the server starts or drains. Raises Unavailable when it cannot be
        reached."""
        return self._channel.health()

    @cached_property
    def _info(self) -> ServerInfo:
        return self.server_info()


def _deadlines(timeout_s: float | None, deadlines: Deadlines | None) -> Deadlines:
    if timeout_s is None:
        return deadlines or Deadlines()
    if deadlines is not None:
        raise ValueError("give timeout_s or deadlines, not both: timeout_s is the same as Deadlines(unary_s=…)")
    return Deadlines(unary_s=timeout_s)


def _train_request(
    dataset: Dataset | str | None,
    method: str | None,
    backbone: str | None,
    epochs: int | None,
    config: Mapping[str, Any] | None,
    clone_from: Job | str | None,
    continue_from: Job | Model | str | None,
    follow: int | None,
) -> train_job_service_pb2.CreateTrainJobRequest:
    has_origin = clone_from is not None or continue_from is not None
    if dataset is None and not has_origin:
        raise ValueError("dataset is needed, unless clone_from or continue_from names a job")
    given = {name: value for name, value in (("backbone", backbone), ("epochs", epochs)) if value is not None}
    for name in given.keys() & (config or {}).keys():
        raise ValueError(f"{name} is given twice, as an argument and in config")
    return train_job_service_pb2.CreateTrainJobRequest(
        follow=None if follow is None else train_job_service_pb2.Follow(min_images=follow),
        dataset="" if dataset is None else _names.dataset_name(dataset),
        method=text("method", method) or ("" if has_origin else _DEFAULT_METHOD),
        config=_convert.config_struct({**(config or {}), **given}),
        clone_from="" if clone_from is None else _names.job_name(clone_from),
        continue_from="" if continue_from is None else _names.model_name(continue_from),
    )


def _embed_dataset_request(
    dataset: Dataset | str,
    model: Job | Model | str,
    output: str,
    l2_normalize: bool,
    dtype: str,
    version: int | None,
    pca: int | float | None,
    whiten: bool,
) -> embed_service_pb2.EmbedDatasetRequest:
    request = embed_service_pb2.EmbedDatasetRequest(
        dataset=_names.dataset_name(dataset),
        model=_names.model_name(model),
        options=embeddings.options(output, l2_normalize, dtype),
        pca=dataset_embeddings.pca(pca, whiten),
    )
    _convert.set_count(request, "version", version)
    return request


def _upload_id(dataset: str, source: sources.ImageSource) -> str:
    """The same for the same names in the same data set, so that a second run finds the first; random for iterators."""
    if source.identity is None:
        return uuid.uuid4().hex
    names = hashlib.sha256("\n".join([dataset, *source.identity]).encode("utf-8", "surrogateescape"))
    return f"auto-{names.hexdigest()[:32]}"
