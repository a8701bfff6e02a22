"""The client: one object for one server, with one method for each thing that a user can ask for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from manyview import _convert, _names
from manyview._arguments import address, one_of, positive_s, some, text
from manyview._errors import NotFound, UploadRejected
from manyview._jobs import Job, list_models, train_request
from manyview._progress.report import SILENT, ProgressOption, reporting
from manyview._requests import embed_options
from manyview._results import dataset_embeddings, embeddings, neighbors, preview_request, selection, sheets
from manyview._results.contact_sheet import draw, require_pillow
from manyview._results.embeddings import Embeddings, EmbedRun
from manyview._results.exports import download
from manyview._results.preview import Preview
from manyview._transport.channel import Channel, Deadlines, TLSOptions
from manyview._transport.paging import pages
from manyview._transport.rpcs import Rpcs
from manyview._types.datasets import Dataset
from manyview._types.images import StoredImage
from manyview._types.jobs import TrainJobInfo
from manyview._types.models import Methods, Model
from manyview._types.neighbors import DuplicateGroup, QueryNeighbors
from manyview._types.selections import Selection
from manyview._types.server import ServerInfo
from manyview._types.words import Balance, DataType, HealthStatus, ImageStatus, JobState, Metric, Output, Strategy
from manyview._uploads import sources
from manyview._uploads.labels.label_rule import Labels
from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.upload import upload_source
from manyview.v1 import dataset_service_pb2, model_service_pb2, train_job_service_pb2

if TYPE_CHECKING:
    from PIL import Image

_DEFAULT_TARGET = "localhost:50051"
_PAGE_SIZE = 1000


class Client:
    """A connection to a manyview server. Threads can share it. Use it in a `with` block, or `close` it.

    `target` is host:port or unix:/path (default: $MANYVIEW_TARGET, else localhost:50051). `token` is a bearer token
    (default: $MANYVIEW_TOKEN). `tls` is True, the path of a CA file or `TLSOptions` (default: $MANYVIEW_TLS_CA and
    $MANYVIEW_TLS_SERVER_NAME, else no encryption). `timeout_s` limits a call with one answer, over all its attempts
    (default 30). `deadlines` sets the limit of every kind of wait and excludes `timeout_s`. The first call connects.

    Methods that may take long have `progress`: None shows on a terminal or in a notebook what is being done and how far
    it is, True and False force that or prevent it, and a function gets (done, total).
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls: bool | str | PathLike[str] | TLSOptions | None = None,
        timeout_s: float | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.target = address(text("target", target) or os.environ.get("MANYVIEW_TARGET") or _DEFAULT_TARGET)
        self._channel = Channel(
            self.target,
            token=text("token", token) or os.environ.get("MANYVIEW_TOKEN"),
            tls=TLSOptions.from_environment() if tls is None else tls,
            deadlines=_deadlines(positive_s("timeout_s", timeout_s), deadlines),
        )
        self._rpcs = Rpcs(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<manyview.Client {self.target}>"

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    # --- data sets

    def upload(
        self,
        images: Any,
        dataset: Dataset | str,
        *,
        labels: Labels | None = None,
        image: str | None = None,
        label: str | None = None,
        upload_id: str | None = None,
        progress: ProgressOption = None,
        on_rejected: Literal["report", "raise"] = "report",
    ) -> Dataset:
        """Send images into a data set and return it; its `.upload` is the report. A missing data set is created.

        `images`: a folder, WebDataset shards, paths, bytes, binary files, PIL images, arrays, or any iterable of
        those or of (image, label) pairs. Arrays are (H, W), (H, W, 3), or with an alpha channel (H, W, 2) or (H, W, 4),
        of uint8, uint16, bool, or floats in [0, 1]. The calling thread pulls an iterable as fast as the server takes
        the images; while the iterable pauses, its images are sent.

        An image that has no label of its own, in a pair or a shard, is labelled with the folder that it lies in.
        `labels` changes that: "folder" for the last folder (2024/05/a.jpg is "05"; also inside of shards), "path" for
        the whole path ("2024/05"), "none" for no labels at all, a file (.csv, .tsv, .json, .jsonl), a mapping from keys
        to labels, or a sequence in the order of the images. docs/uploads.md describes the files, and which label wins.

        In WebDataset shards, `image` and `label` choose the members, by their names after the first dot: "jpg",
        "input.png", "jpg;png" for the first that a sample has. By default all images are taken, and the label is found
        in `.cls`, in `.json`, or in `.txt` if the texts look like names of classes.

        A dropped connection is bridged. After a crash the same call continues where it stopped: folders and lists of
        paths always, other iterables if `upload_id` is given.

        The report names files that cannot be read or are no images; the others are sent. docs/uploads.md says which
        files of a folder are taken.

        Raises UploadChanged when the images differ from those that were sent before under this id, UploadRejected when
        images were refused and `on_rejected` is "raise", or when all were refused and so there is no data set, OSError
        when no path can be read, and ValueError or TypeError when something is not an image.
        """
        one_of("on_rejected", on_rejected, ("report", "raise"))
        name = _names.dataset_name(dataset)
        text("upload_id", upload_id)
        limits = self._info.limits
        members = MemberChoice(image, label)
        with reporting(progress, f"upload to {_names.short(name)}", "listing files") as shown:
            source = sources.open_source(images, max_image_bytes=limits.max_image_bytes, labels=labels, members=members)
            report = upload_source(self._rpcs, source, name, upload_id, limits, shown)
        if report.num_rejected and on_rejected == "raise":
            raise UploadRejected(report)
        try:
            return replace(self.dataset(name), upload=report)
        except NotFound:
            if not report.num_rejected:
                raise
            raise UploadRejected(report) from None

    def create_dataset(self, name: str) -> Dataset:
        """Create an empty data set, for example one that a job will follow. `upload` creates its own.

        Raises AlreadyExists DATASET_EXISTS."""
        dataset_id = _names.dataset_name(name).removeprefix("datasets/")
        request = dataset_service_pb2.CreateDatasetRequest(dataset_id=dataset_id)
        return _convert.dataset(self._rpcs.create_dataset(request).dataset)

    def dataset(self, name: str) -> Dataset:
        """Return a data set by name or id."""
        request = dataset_service_pb2.GetDatasetRequest(name=_names.dataset_name(name))
        return _convert.dataset(self._rpcs.get_dataset(request).dataset)

    def datasets(self) -> list[Dataset]:
        """Return all data sets."""

        def fetch(token: str) -> dataset_service_pb2.ListDatasetsResponse:
            request = dataset_service_pb2.ListDatasetsRequest(page_size=_PAGE_SIZE, page_token=token)
            return self._rpcs.list_datasets(request)

        return [_convert.dataset(dataset) for page in pages(fetch) for dataset in page.datasets]

    def delete_dataset(self, dataset: Dataset | str) -> None:
        """Remove a data set and its images. Jobs that have ended keep their checkpoints and history; to clone or
        continue one, name another data set. Raises FailedPrecondition DATASET_IN_USE while a job reads it."""
        self._rpcs.delete_dataset(dataset_service_pb2.DeleteDatasetRequest(name=_names.dataset_name(dataset)))

    def images(
        self, dataset: Dataset | str, statuses: Iterable[ImageStatus] | ImageStatus | None = None
    ) -> Iterator[StoredImage]:
        """Return an iterator over the images of a data set, in the order of their commit. It fetches page by page.
        `statuses` defaults to STORED and UNREADABLE."""
        chosen = [statuses] if isinstance(statuses, str) else some("statuses", statuses) or []
        words = [one_of("statuses", status.upper(), get_args(ImageStatus)) for status in chosen]
        return self._list_images(_names.dataset_name(dataset), [f"STATUS_{word}" for word in words])

    def _list_images(self, name: str, statuses: list[str]) -> Iterator[StoredImage]:
        def fetch(token: str) -> dataset_service_pb2.ListImagesResponse:
            request = dataset_service_pb2.ListImagesRequest(dataset=name, page_token=token, statuses=statuses)
            return self._rpcs.list_images(request)

        return (_convert.stored_image(image) for page in pages(fetch) for image in page.images)

    def read_image(self, dataset: Dataset | str, image: StoredImage | str) -> bytes:
        """Return the file of one stored image, as it was sent. `image` is a listed image or a key.

        Raises NotFound IMAGE_NOT_FOUND, FailedPrecondition KEY_AMBIGUOUS when several images have this key, and
        DataLoss when the disk lost or changed the file."""
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
        time_budget: float | str | None = None,
        progress: bool | None = None,
    ) -> Job:
        """Queue a train job over the images that the data set holds now, and return it.

        `method` is "simclr" unless another is named (see `methods`). `config` needs only the parameters that differ
        from the method's defaults. If backbone, image_size or epochs are left open, the server chooses them, so that
        the job takes about `time_budget` on its device: seconds, or a text such as "10m" or "2h", by default an hour.
        This is a plan and not a limit: if other work takes the cores later, an alert says how long the job takes now.
        `job.info.choice` says what was chosen and why, and `job.info.estimate` how long the job takes. Measuring a step
        takes a few seconds, in which a terminal or a notebook has a line, unless `progress` is False.

        With `clone_from`, a job, training starts again from step 0 with that job's data set and configuration, except
        for what other arguments change. With `continue_from`, a job or a checkpoint, training continues there, and so
        do the step numbers: raise `epochs`.

        With `follow=1000`, the job trains while images are still uploaded: it starts once the data set holds 1,000
        images, and adopts later ones, each time with a "snapshot" event. Then `config["max_steps"]` says when it ends.

        Raises InvalidArgument that names every violation, and AlreadyExists when `job_id` is taken.
        """
        request = train_request(
            dataset, method, backbone, epochs, config, clone_from, continue_from, follow, time_budget
        )
        request.train_job_id = text("job_id", job_id) or ""
        with reporting(progress, "train", "creating the job"):
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
        time_budget: float | str | None = None,
    ) -> dict[str, Any]:
        """Return the complete configuration that `train` would run with, `plan(…).config`."""
        return dict(
            self.plan(
                dataset,
                method,
                backbone=backbone,
                epochs=epochs,
                config=config,
                clone_from=clone_from,
                continue_from=continue_from,
                follow=follow,
                time_budget=time_budget,
            ).config
        )

    def plan(
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
        time_budget: float | str | None = None,
        progress: bool | None = None,
    ) -> TrainJobInfo:
        """Return the job that `train` would create, with its complete configuration and an estimate of its duration.

        The request is checked as by `train`, but no job is created. The first estimate of a configuration is measured,
        which takes a few seconds.
        """
        request = train_request(
            dataset, method, backbone, epochs, config, clone_from, continue_from, follow, time_budget
        )
        request.validate_only = True
        with reporting(progress, "train", "planning the job"):
            return _convert.train_job(self._rpcs.create_train_job(request).train_job)

    def job(self, name: str) -> Job:
        """Return a job by name or id."""
        request = train_job_service_pb2.GetTrainJobRequest(name=_names.job_name(name))
        return Job(self._rpcs, _convert.train_job(self._rpcs.get_train_job(request).train_job))

    def jobs(self, states: Iterable[JobState] | JobState | None = None) -> list[Job]:
        """Return all jobs, or those in one of these states, newest first."""
        chosen = [states] if isinstance(states, str) else some("states", states) or []
        words = [one_of("states", state.upper(), get_args(JobState)) for state in chosen]

        def fetch(token: str) -> train_job_service_pb2.ListTrainJobsResponse:
            request = train_job_service_pb2.ListTrainJobsRequest(page_size=_PAGE_SIZE, page_token=token)
            return self._rpcs.list_train_jobs(request)

        found = (_convert.train_job(job) for page in pages(fetch) for job in page.train_jobs)
        return [Job(self._rpcs, info) for info in found if not words or info.state in words]

    def methods(self) -> Methods:
        """Return the methods and backbones that this server can train, with the default and the bounds of every
        parameter."""
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
        progress: ProgressOption = None,
    ) -> Preview:
        """Return the views of up to 16 images as training makes them, with the parameters of each view.

        `images` is anything that `upload` takes, or, with `dataset`, keys of images of that data set. Images that
        `images` lists need no `dataset` if they are from the job's own data set. With `job`, the views are exactly
        those that this job makes of them in `epoch`, which counts from 0. Without it, they are those of `method`
        ("simclr" by default) with `config` and `seed` as in `train`.

        Raises InvalidArgument that names every violation, and FailedPrecondition when a plugin fails.
        """
        request = preview_request.request(job=job, method=method, config=config, seed=seed, epoch=epoch)
        are_stored, images = _names.are_stored(images)
        with reporting(progress, "preview", "making views, for which the first call starts a worker"):
            if dataset is not None or are_stored:
                request.dataset = "" if dataset is None else _names.dataset_name(dataset)
                return preview_request.preview_stored(self._rpcs, request, images)
            return preview_request.preview_files(self._rpcs, request, images, self._info.limits)

    # --- embeddings

    def embed(
        self,
        images: Any,
        model: Job | Model | str,
        *,
        output: Output = "backbone",
        l2_normalize: bool = False,
        dtype: DataType = "float32",
        batch_size: int = 64,
        progress: ProgressOption = None,
    ) -> Embeddings:
        """Embed images, which are anything that `upload` takes.

        `model` is a job (its newest checkpoint is used), a checkpoint or "backbones/NAME". The rows are in the order of
        the images. If an image cannot be read or decoded, its row is NaN and `.errors` says why. `.skipped` counts the
        files of a folder that were passed over.

        `output` is "backbone", the pooled features, or "projection". Of a vision transformer it may also be
        "class_token", "patch_mean", "class_and_patch_mean", or "patch_tokens": (N, T, D), for which a small
        `batch_size` keeps messages within the server's limit.
        """
        options = embed_options(output, l2_normalize, dtype)
        chunks: list[Embeddings] = []
        with reporting(progress, "embed", "listing files") as report:
            source = sources.open_source(images, max_image_bytes=self._info.limits.max_image_bytes)
            report.say("waiting for the model, for which the first call starts a worker")
            for chunk in self._embed(source, model, options, batch_size):
                if not chunks:
                    report.begin("embedding", source.total)
                chunks.append(chunk)
                report.advance(len(chunk))
        return replace(embeddings.joined(chunks), skipped=source.skipped.summary())

    def embed_iter(
        self,
        images: Any,
        model: Job | Model | str,
        *,
        output: Output = "backbone",
        l2_normalize: bool = False,
        dtype: DataType = "float32",
        batch_size: int = 64,
    ) -> Iterator[Embeddings]:
        """Embed images like `embed`, but yield a chunk for each batch. Memory is bounded, so the images may be
        endless."""
        options = embed_options(output, l2_normalize, dtype)
        source = sources.open_source(images, max_image_bytes=self._info.limits.max_image_bytes)
        return self._embed(source, model, options, batch_size)

    def _embed(
        self, source: sources.ImageSource, model: Job | Model | str, options: Any, batch_size: int
    ) -> Iterator[Embeddings]:
        batches = embeddings.batches(iter(source), batch_size, self._info.limits)
        return EmbedRun(self._rpcs, _names.model_name(model), options).run(batches)

    def embed_dataset(
        self,
        dataset: Dataset | str,
        model: Job | Model | str,
        *,
        output: Output = "backbone",
        l2_normalize: bool = False,
        dtype: DataType = "float32",
        version: int | None = None,
        pca: int | float | None = None,
        whiten: bool = False,
        progress: ProgressOption = None,
    ) -> Embeddings:
        """Return the embeddings of all images of a data set, or of its first `version` images, in the order of upload.

        The images do not travel. The server keeps the embeddings, so the next call for the same model returns at once.
        If an image is unreadable, its row is NaN and `.errors` says why. `pca` reduces the embeddings by principal
        components that are fitted on the data set: an int is the number of dimensions, a float the share of the
        variance to keep (`.variance_kept` is the exact share). `whiten` scales each dimension to variance 1.
        """
        request = dataset_embeddings.request(dataset, model, output, l2_normalize, dtype, version, pca, whiten)
        with reporting(progress, f"embed {_names.short(request.dataset)}", "finding the model") as report:
            return embeddings.joined(list(dataset_embeddings.chunks(self._rpcs, request, report)))

    def embed_dataset_iter(
        self,
        dataset: Dataset | str,
        model: Job | Model | str,
        *,
        output: Output = "backbone",
        l2_normalize: bool = False,
        dtype: DataType = "float32",
        version: int | None = None,
        pca: int | float | None = None,
        whiten: bool = False,
    ) -> Iterator[Embeddings]:
        """Embed a data set like `embed_dataset`, but yield chunks as they arrive, with bounded memory. A chunk's
        `.start` is the number of its first row."""
        request = dataset_embeddings.request(dataset, model, output, l2_normalize, dtype, version, pca, whiten)
        return dataset_embeddings.chunks(self._rpcs, request, SILENT)

    # --- selection

    def select(
        self,
        dataset: Dataset | str,
        count: int | None = None,
        *,
        model: Job | Model | str | None = None,
        strategy: Strategy = "coreset",
        seed: int | None = None,
        distance: float | None = None,
        num_neighbors: int | None = None,
        like: Any = None,
        like_keys: Iterable[Any] | None = None,
        chosen: Iterable[Any] = (),
        balance: Balance | Mapping[str, int] | None = None,
        output: Output | None = None,
        metric: Metric | None = None,
        version: int | None = None,
        progress: ProgressOption = None,
        timeout_s: float | None = None,
    ) -> Selection:
        """Choose `count` images of a data set by their embeddings. The same request always gives the same images.

        `strategy`:
        - "coreset": diverse images; each is the farthest from all that were chosen before it. Takes `seed`.
        - "minimum_distance": the same, until no image is farther than `distance` from the chosen ones. Takes `seed`.
        - "typicality": images that lie among many similar ones, by their `num_neighbors` nearest (20 by default).
        - "similarity": the images nearest to `like` (anything that `embed` takes, or images that `images` lists), or
          to those that `like_keys` names. `.errors` names those that cannot be used.
        - "random": takes `seed` and needs no model.

        `chosen` are images that were chosen before, as keys or as this method returns them: the new ones complement
        them. `balance` is a number of images for each label, as in {"dress": 10}, or "equal" or "proportional" shares
        of `count`. The `metric` "cosine" (from 0 to 2) compares rows scaled to length 1, "euclidean" unscaled rows.

        Raises InvalidArgument that names every wrong field, and DeadlineExceeded after `timeout_s`.
        """
        positive_s("timeout_s", timeout_s)
        request = selection.request(dataset, count, model, chosen, balance, output, metric, version)
        parameters = {
            "seed": seed,
            "distance": distance,
            "num_neighbors": num_neighbors,
            "like": like,
            "like_keys": like_keys,
        }
        with reporting(progress, f"select from {_names.short(request.dataset)}", "reading images") as report:
            found = selection.set_strategy(request, strategy, parameters, self._info.limits)
            report.say("finding the model")
            return selection.select(self._rpcs, request, found, report, timeout_s)

    def neighbors(
        self,
        dataset: Dataset | str,
        images: Any = None,
        *,
        keys: Iterable[Any] | None = None,
        model: Job | Model | str,
        num_neighbors: int | None = None,
        output: Output = "backbone",
        metric: Metric = "cosine",
        version: int | None = None,
        progress: ProgressOption = None,
        timeout_s: float | None = None,
    ) -> list[QueryNeighbors]:
        """Find the images of a data set that are nearest to each query, and return one entry for each, in their order.

        The queries are `images` (anything that `embed` takes), or images of the data set itself: as `images` or
        `select` return them, or by their `keys`. An image of the data set is not its own neighbor. A query that cannot
        be decoded has an `.error` and no neighbors.
        """
        positive_s("timeout_s", timeout_s)
        request = neighbors.neighbors_request(dataset, model, output, metric, version, num_neighbors)
        limits = self._info.limits
        with reporting(progress, f"neighbors in {_names.short(request.dataset)}", "reading images") as report:
            queries = neighbors.queries(images, keys, limits)
            report.say("finding the model")
            return neighbors.find_neighbors(self._rpcs, request, queries, limits, report, timeout_s)

    def duplicates(
        self,
        dataset: Dataset | str,
        *,
        model: Job | Model | str,
        max_distance: float,
        output: Output = "backbone",
        metric: Metric = "cosine",
        version: int | None = None,
        progress: ProgressOption = None,
        timeout_s: float | None = None,
    ) -> list[DuplicateGroup]:
        """Find groups of near-duplicates, in the order of their first images. Two images are in one group if pairs at
        most `max_distance` apart connect them; 0 finds images with equal embeddings."""
        positive_s("timeout_s", timeout_s)
        request = neighbors.duplicates_request(dataset, model, output, metric, version, max_distance)
        with reporting(progress, f"duplicates in {_names.short(request.dataset)}", "finding the model") as report:
            return neighbors.find_duplicates(self._rpcs, request, report, timeout_s)

    def sheet(
        self,
        found: Selection | QueryNeighbors | DuplicateGroup | Sequence[QueryNeighbors] | Sequence[DuplicateGroup],
        queries: Any = None,
    ) -> Image.Image:
        """Return a picture of what `select`, `neighbors` or `duplicates` found. Notebooks show it; `.save` writes it.

        `queries` are the images that were given to `neighbors`. They are not needed if they are keys of the data set.

        Raises ValueError if nothing was found or Pillow is not installed.
        """
        require_pillow()
        rows = sheets.of_found(found, queries, self.read_image, self._info.limits)
        return draw(rows, width=sheets.SIDE, height=sheets.SIDE)

    # --- models

    def models(self, job: Job | str | None = None) -> list[Model]:
        """Return the models that can embed: the checkpoints of one job, or those of all jobs and then the plain
        backbones."""
        return list(list_models(self._rpcs, "" if job is None else _names.job_name(job)))

    def model(self, model: Job | str) -> Model:
        """Return a model by name. A job stands for its newest checkpoint."""
        request = model_service_pb2.GetModelRequest(name=_names.model_name(model))
        return _convert.model(self._rpcs.get_model(request).model)

    def export(self, model: Job | Model | str, path: str | PathLike[str], *, progress: ProgressOption = None) -> Path:
        """Write a model's backbone to `path` as a safetensors file. The file appears once it is complete and its
        SHA-256 is right. docs/methods.md says how to load it. A function for `progress` gets numbers of bytes."""
        name = _names.model_name(model)
        with reporting(progress, f"export {name}", "waiting for the file") as report:
            return download.export(self._rpcs, name, Path(path), report)

    # --- the server

    def server_info(self) -> ServerInfo:
        """Return the server's version, limits and devices."""
        reply = self._rpcs.get_server_info(model_service_pb2.GetServerInfoRequest())
        return _convert.server_info(reply)

    def health(self) -> HealthStatus:
        """Return "SERVING", or "NOT_SERVING" while the server starts or drains. Raises Unavailable when the server
        cannot be reached."""
        return self._channel.health()

    @cached_property
    def _info(self) -> ServerInfo:
        return self.server_info()


def _deadlines(timeout_s: float | None, deadlines: Deadlines | None) -> Deadlines:
    if timeout_s is None:
        return deadlines or Deadlines()
    if deadlines is not None:
        raise ValueError("set timeout_s or deadlines, not both: timeout_s is the same as Deadlines(unary_s=…)")
    return Deadlines(unary_s=timeout_s)
