"""The replies of `manyview.testing.FakeServer` that no test scripted: the behavior of a small server, in memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from manyview._progress.words import number_of
from manyview._testing.embeddings import FEATURE_DIM, FakeEmbeddings
from manyview._testing.errors import Refused
from manyview._types.words import TERMINAL_STATES
from manyview._uploads.pixels import png as png_files
from manyview.v1 import dataset_service_pb2 as datasets
from manyview.v1 import metrics_service_pb2 as metrics
from manyview.v1 import model_service_pb2 as models
from manyview.v1 import train_job_service_pb2 as jobs
from manyview.v1 import types_pb2

WEIGHTS = b"weights" * 1000
PREPROCESSING = models.Preprocessing(
    image_size=224,
    resize_size=256,
    crop=models.Preprocessing.CROP_CENTER,
    interpolation=models.Preprocessing.INTERPOLATION_BICUBIC,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    source="the fake server",
)


def snake(rpc: str) -> str:
    """Return "get_train_job" for "GetTrainJob"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", rpc).lower()


class FakeState(FakeEmbeddings):
    """The state of a fake server. Tests may change the attributes that do not start with an underscore.

    `max_unacked_batches` and `max_unacked_bytes` are the upload window. `rejects` maps the bytes of an image to the
    reason why it is refused. A quiet subscription or followed log gets a message every `heartbeat_s`.
    """

    def __init__(self) -> None:
        self.is_serving = True
        self.max_unacked_batches = 4
        self.max_unacked_bytes = 16 * 1024 * 1024
        self.max_message_bytes = 36 * 1024 * 1024
        self.max_image_bytes = 32 * 1024 * 1024
        self.rejects: dict[bytes, str] = {}
        self.heartbeat_s = 0.2
        self.datasets: dict[str, datasets.Dataset] = {}
        self.images: dict[str, list[datasets.StoredImage]] = {}
        self.files: dict[tuple[str, str], bytes] = {}  # by data set and image id
        self.uploads: dict[tuple[str, str], datasets.Upload] = {}
        self.jobs: dict[str, jobs.TrainJob] = {}
        self.events: dict[str, list[metrics.MetricsEvent]] = {}
        self.logs: dict[str, list[str]] = {}
        self._created: set[str] = set()  # data sets that an upload created
        self._acks: dict[tuple[str, str], dict[int, datasets.BatchAck]] = {}
        self._changed = threading.Condition()
        self._closed = False

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # --- data sets

    def create_dataset(self, request: Any, _: Any) -> datasets.CreateDatasetResponse:
        name = f"datasets/{request.dataset_id}"
        if name in self.datasets:
            raise Refused("ALREADY_EXISTS", "DATASET_EXISTS", f"{name} exists")
        self.datasets[name] = datasets.Dataset(name=name, uid=hashlib.sha256(name.encode()).hexdigest()[:12])
        self.images[name] = []
        return datasets.CreateDatasetResponse(dataset=self.datasets[name])

    def get_dataset(self, request: Any, _: Any) -> datasets.GetDatasetResponse:
        return datasets.GetDatasetResponse(dataset=self._dataset(request.name))

    def list_datasets(self, _request: Any, _: Any) -> datasets.ListDatasetsResponse:
        return datasets.ListDatasetsResponse(datasets=self.datasets.values())

    def delete_dataset(self, request: Any, _: Any) -> datasets.DeleteDatasetResponse:
        self._dataset(request.name)
        del self.datasets[request.name], self.images[request.name]
        return datasets.DeleteDatasetResponse()

    def list_images(self, request: Any, _: Any) -> datasets.ListImagesResponse:
        """Pages have two images, so that small tests have several pages."""
        self._dataset(request.dataset)
        wanted = request.statuses or (datasets.StoredImage.STATUS_STORED, datasets.StoredImage.STATUS_UNREADABLE)
        found = [image for image in self.images[request.dataset] if image.status in wanted]
        start = int(request.page_token or 0)
        next_page_token = str(start + 2) if start + 2 < len(found) else ""
        return datasets.ListImagesResponse(images=found[start : start + 2], next_page_token=next_page_token)

    def get_image(self, request: Any, _: Any) -> datasets.GetImageResponse:
        found = self.find_image(request.dataset, request.image)
        data = self.files[request.dataset, found.image_id]
        return datasets.GetImageResponse(image=found, data=data)

    def find_image(self, dataset: str, ref: datasets.ImageRef) -> datasets.StoredImage:
        """Return the stored image of this id or key. Raises Refused."""
        self._dataset(dataset)
        for image in self.images[dataset]:
            if image.image_id and ref in (datasets.ImageRef(image_id=image.image_id), datasets.ImageRef(key=image.key)):
                return image
        raise Refused("NOT_FOUND", "IMAGE_NOT_FOUND", f"no image {ref.image_id or ref.key}")

    def get_upload(self, request: Any, _: Any) -> datasets.GetUploadResponse:
        upload = self.uploads.get((request.dataset, request.upload_id))
        if upload is None:
            raise Refused("NOT_FOUND", "UPLOAD_NOT_FOUND", f"no upload {request.upload_id}")
        return datasets.GetUploadResponse(upload=upload)

    def upload_images(self, requests: Iterator[Any], _: Any) -> Iterator[datasets.UploadImagesResponse]:
        header = next(requests).header
        if header.create_dataset and header.dataset not in self.datasets:
            self.create_dataset(
                datasets.CreateDatasetRequest(dataset_id=header.dataset.removeprefix("datasets/")), None
            )
            self._created.add(header.dataset)
        self._dataset(header.dataset)
        name = (header.dataset, header.upload_id)
        upload = self.uploads.setdefault(name, datasets.Upload(dataset=header.dataset, upload_id=header.upload_id))
        if header.resume_digest != upload.digest:
            raise Refused("FAILED_PRECONDITION", "UPLOAD_CHANGED", "the images differ from those acknowledged")
        opened = datasets.UploadOpened(
            upload=upload, max_unacked_batches=self.max_unacked_batches, max_unacked_bytes=self.max_unacked_bytes
        )
        yield datasets.UploadImagesResponse(opened=opened)
        for request in requests:
            if request.WhichOneof("payload") == "finish":
                if request.finish.num_images != upload.num_images:
                    raise Refused(
                        "FAILED_PRECONDITION", "FINISH_MISMATCH", f"{number_of(upload.num_images, 'image')} came"
                    )
                upload.finished = True
                yield datasets.UploadImagesResponse(finished=self._finished(upload))
                return
            yield datasets.UploadImagesResponse(ack=self._commit(upload, request.batch))

    def _finished(self, upload: datasets.Upload) -> datasets.UploadFinished:
        """Return the end of an upload. A data set that it created and that is still empty is deleted."""
        dataset = self.datasets[upload.dataset]
        if dataset.num_images or upload.dataset not in self._created:
            return datasets.UploadFinished(upload=upload, dataset=dataset)
        del self.datasets[upload.dataset], self.images[upload.dataset], self.uploads[upload.dataset, upload.upload_id]
        self._created.remove(upload.dataset)
        self._acks.pop((upload.dataset, upload.upload_id), None)
        return datasets.UploadFinished(upload=upload)

    def _commit(self, upload: datasets.Upload, batch: types_pb2.ImageBatch) -> datasets.BatchAck:
        acks = self._acks.setdefault((upload.dataset, upload.upload_id), {})
        if batch.number in acks:
            return acks[batch.number]
        if batch.number != upload.committed_number + 1:
            raise Refused("ABORTED", "SEQUENCE_GAP", f"expected batch {upload.committed_number + 1}")
        ack = datasets.BatchAck(number=batch.number, results=[self._store(upload, image) for image in batch.images])
        for image in batch.images:
            upload.digest = hashlib.sha256(upload.digest + image.sha256).digest()
        upload.num_images += len(batch.images)
        upload.committed_number = batch.number
        acks[batch.number] = ack
        return ack

    def _store(self, upload: datasets.Upload, image: types_pb2.Image) -> datasets.ImageResult:
        dataset, stored = self.datasets[upload.dataset], self.images[upload.dataset]
        reason = self.rejects.get(image.data)
        if hashlib.sha256(image.data).digest() != image.sha256:
            reason = "CHECKSUM_MISMATCH"
        if reason is not None:
            error = types_pb2.ImageError(reason=reason, message="scripted")
            refused = datasets.StoredImage.STATUS_REJECTED
            stored.append(datasets.StoredImage(key=image.key, status=refused, error=error))
            upload.num_rejected += 1
            dataset.num_rejected += 1
            return datasets.ImageResult(outcome=datasets.ImageResult.OUTCOME_REJECTED, error=error)
        image_id = image.sha256.hex()[:16]
        first = next((other for other in stored if other.image_id == image_id), None)
        if first is not None:
            upload.num_duplicates += 1
            return datasets.ImageResult(
                outcome=datasets.ImageResult.OUTCOME_DUPLICATE,
                image_id=image_id,
                first_key=first.key,
                first_label=first.label if first.label != image.label else "",
                label_differs=first.label != image.label,
            )
        kept = datasets.StoredImage.STATUS_STORED
        self.files[upload.dataset, image_id] = image.data
        stored.append(datasets.StoredImage(image_id=image_id, key=image.key, label=image.label, status=kept))
        upload.num_stored += 1
        dataset.num_images += 1
        dataset.num_bytes += len(image.data)
        return datasets.ImageResult(outcome=datasets.ImageResult.OUTCOME_STORED, image_id=image_id)

    def _dataset(self, name: str) -> datasets.Dataset:
        if name not in self.datasets:
            raise Refused("NOT_FOUND", "DATASET_NOT_FOUND", f"no data set {name}")
        return self.datasets[name]

    # --- jobs

    def create_train_job(self, request: Any, _: Any) -> jobs.CreateTrainJobResponse:
        origin = self._origin(request.clone_from or request.continue_from)
        dataset = self._dataset(request.dataset or origin.dataset)
        name = f"trainJobs/{request.train_job_id or f'job-{len(self.jobs) + 1}'}"
        if name in self.jobs:
            raise Refused("ALREADY_EXISTS", "TRAIN_JOB_EXISTS", f"{name} exists")
        job = jobs.TrainJob(name=name, dataset=dataset.name, num_images=dataset.num_images, config=origin.config)
        job.config.MergeFrom(request.config)
        if request.method:
            job.config.update({"method": request.method})
        job.state = types_pb2.TRAIN_JOB_STATE_QUEUED
        job.continued_from = request.continue_from
        if request.HasField("follow"):
            job.follow.CopyFrom(request.follow)
            job.num_images = 0  # until it starts
        if not request.validate_only:
            self.jobs[name], self.events[name], self.logs[name] = job, [], []
        answer = jobs.CreateTrainJobResponse(train_job=job)
        answer.train_job.estimate.text = "less than a minute on this CPU"
        if request.time_budget_s:
            answer.train_job.choice = f"chosen: epochs=1 for {request.time_budget_s:g} s on this CPU"
        return answer

    def _origin(self, name: str) -> jobs.TrainJob:
        return self._job("/".join(name.split("/")[:2])) if name else jobs.TrainJob()

    def get_train_job(self, request: Any, _: Any) -> jobs.GetTrainJobResponse:
        return jobs.GetTrainJobResponse(train_job=self._job(request.name))

    def list_train_jobs(self, _request: Any, _: Any) -> jobs.ListTrainJobsResponse:
        return jobs.ListTrainJobsResponse(train_jobs=reversed(self.jobs.values()))

    def delete_train_job(self, request: Any, _: Any) -> jobs.DeleteTrainJobResponse:
        if not _is_terminal(self._job(request.name)):
            raise Refused("FAILED_PRECONDITION", "STATE_CONFLICT", f"{request.name} is not terminal")
        del self.jobs[request.name]
        return jobs.DeleteTrainJobResponse()

    def pause_train_job(self, request: Any, _: Any) -> jobs.PauseTrainJobResponse:
        self._refuse_terminal(request.name)
        self._job(request.name).state = types_pb2.TRAIN_JOB_STATE_PAUSED
        return jobs.PauseTrainJobResponse(train_job=self._job(request.name))

    def resume_train_job(self, request: Any, _: Any) -> jobs.ResumeTrainJobResponse:
        self._refuse_terminal(request.name)
        if self._job(request.name).state == types_pb2.TRAIN_JOB_STATE_PAUSED:
            self._job(request.name).state = types_pb2.TRAIN_JOB_STATE_QUEUED
        return jobs.ResumeTrainJobResponse(train_job=self._job(request.name))

    def _refuse_terminal(self, name: str) -> None:
        if _is_terminal(self._job(name)):
            raise Refused("FAILED_PRECONDITION", "STATE_CONFLICT", f"{name} is terminal")

    def cancel_train_job(self, request: Any, _: Any) -> jobs.CancelTrainJobResponse:
        if self._job(request.name).state != types_pb2.TRAIN_JOB_STATE_CANCELLED:
            self._refuse_terminal(request.name)
            self.finish_job(request.name, "CANCELLED", None)
        return jobs.CancelTrainJobResponse(train_job=self._job(request.name))

    def list_methods(self, _request: Any, _: Any) -> jobs.ListMethodsResponse:
        schema = {"type": "object", "properties": {"epochs": {"type": "integer", "default": 100, "minimum": 1}}}
        method = jobs.Method(name="simclr", title="SimCLR", config_schema_json=json.dumps(schema))
        return jobs.ListMethodsResponse(methods=[method], backbones=[jobs.Backbone(name="resnet18", feature_dim=512)])

    def preview_views(self, request: Any, _: Any) -> jobs.PreviewViewsResponse:
        """Each image and its two views are squares of one color, which is a function of the image's bytes."""
        dataset = request.dataset or (self._job(request.train_job).dataset if request.train_job else "")
        reply = jobs.PreviewViewsResponse(decode_size=8)
        for image in request.images:
            data = image.image.data
            if image.WhichOneof("source") == "stored":
                data = self.files[dataset, self.find_image(dataset, image.stored).image_id]
            digest = hashlib.sha256(data).digest()
            png = png_files.encode(np.frombuffer(digest[:3] * 64, np.uint8).reshape(8, 8, 3))
            parameters = json.dumps({"crop": {"top": 0, "left": 0, "height": 8, "width": 8}})
            view = jobs.PreviewedView(size=8, png=png, parameters_json=parameters)
            made = jobs.PreviewedImage(image_id=digest.hex()[:16], width=8, height=8, original=png, views=[view] * 2)
            reply.images.append(made if data else jobs.PreviewedImage(error=types_pb2.ImageError(reason="IMAGE_EMPTY")))
        return reply

    def tail_logs(self, request: Any, context: Any) -> Iterator[jobs.TailLogsResponse]:
        job, log = self._job(request.train_job), self.logs[request.train_job]
        sent = max(0, len(log) - (request.num_lines or 100))
        while True:
            terminal = _is_terminal(job)
            fresh = list(enumerate(log[sent:], start=sent + 1))
            if fresh:
                lines = [
                    jobs.LogLine(sequence=n, log=types_pb2.Log(level="LEVEL_INFO", text=text)) for n, text in fresh
                ]
                yield jobs.TailLogsResponse(lines=lines)
                sent += len(fresh)
            elif terminal or not request.follow or self._closed or not context.is_active():
                yield jobs.TailLogsResponse(end=True)
                return
            else:
                with self._changed:
                    self._changed.wait(self.heartbeat_s)
                yield jobs.TailLogsResponse()

    def add_event(self, job: str, event: metrics.MetricsEvent) -> None:
        with self._changed:
            log = self.events[job]
            event.sequence = len(log) + 1
            event.attempt = event.attempt or 1
            log.append(event)
            self.jobs[job].last_sequence = event.sequence
            self._changed.notify_all()

    def finish_job(self, job: str, state: str, failure: dict[str, str] | None) -> None:
        name = f"TRAIN_JOB_STATE_{state}"
        with self._changed:
            ended = jobs.TrainJob(state=name, failure=None if failure is None else jobs.Failure(**failure))
            self.jobs[job].MergeFrom(ended)
        self.add_event(job, metrics.MetricsEvent(kind="KIND_STATE", state_change=metrics.StateChange(to=name)))

    def subscribe_metrics(self, request: Any, context: Any) -> Iterator[metrics.SubscribeMetricsResponse]:
        job, cursor = self._job(request.train_job), request.after_sequence
        if cursor > job.last_sequence:
            held = {"oldest": "1", "newest": str(job.last_sequence)}
            raise Refused("OUT_OF_RANGE", "SEQUENCE_AHEAD", f"the newest event is {job.last_sequence}", held)
        while context.is_active() and not self._closed:
            with self._changed:
                fresh = self.events[job.name][cursor:]
                terminal = _is_terminal(job)
            for event in fresh:
                cursor = event.sequence
                wanted = not request.kinds or event.kind in request.kinds
                yield metrics.SubscribeMetricsResponse(events=[event] if wanted else [], cursor=cursor)
            if not fresh and (terminal or not request.follow):
                reason = "REASON_JOB_TERMINAL" if terminal else "REASON_CAUGHT_UP"
                end = metrics.EndOfStream(reason=reason, state=job.state)
                yield metrics.SubscribeMetricsResponse(cursor=cursor, end=end)
                return
            with self._changed:
                if len(self.events[job.name]) == cursor:
                    self._changed.wait(self.heartbeat_s)
            yield metrics.SubscribeMetricsResponse(cursor=cursor)

    def query_metrics(self, request: Any, _: Any) -> metrics.QueryMetricsResponse:
        self._job(request.train_job)
        rows = []
        for event in self.events[request.train_job]:
            values = {k: v for k, v in event.scalars.values.items() if k in (request.metric_names or [k])}
            if values:
                rows.append(metrics.MetricsRow(sequence=event.sequence, step=event.step, attempt=1, values=values))
        return metrics.QueryMetricsResponse(rows=rows)

    def _job(self, name: str) -> jobs.TrainJob:
        if name not in self.jobs:
            raise Refused("NOT_FOUND", "TRAIN_JOB_NOT_FOUND", f"no train job {name}")
        return self.jobs[name]

    # --- models and embeddings

    def list_models(self, request: Any, _: Any) -> models.ListModelsResponse:
        checkpoints = [self.find_model(name) for name in self.jobs if request.train_job in ("", name)]
        plain = [] if request.train_job else [self.find_model("backbones/resnet18")]
        return models.ListModelsResponse(models=checkpoints + plain)

    def get_model(self, request: Any, _: Any) -> models.GetModelResponse:
        return models.GetModelResponse(model=self.find_model(request.name))

    def export_model(self, request: Any, _: Any) -> Iterator[models.ExportModelResponse]:
        digest = hashlib.sha256(WEIGHTS).digest()
        header = models.ExportHeader(model=self.find_model(request.name), num_bytes=len(WEIGHTS), sha256=digest)
        yield models.ExportModelResponse(header=header)
        for start in range(0, len(WEIGHTS), 3000):
            yield models.ExportModelResponse(chunk=WEIGHTS[start : start + 3000])

    def get_server_info(self, _request: Any, _: Any) -> models.GetServerInfoResponse:
        limits = models.Limits(
            max_message_bytes=self.max_message_bytes,
            max_image_bytes=self.max_image_bytes,
            max_image_pixels=64_000_000,
            max_image_side=16_384,
            max_batch_images=256,
        )
        device = models.Device(name="cpu", description="fake")
        return models.GetServerInfoResponse(version="0.0.0-fake", limits=limits, devices=[device])

    def find_model(self, name: str) -> models.Model:
        """Return the model of this name. Raises Refused."""
        if name.startswith("backbones/"):
            backbone = name.removeprefix("backbones/")
            return models.Model(
                name=name,
                backbone=backbone,
                feature_dim=FEATURE_DIM,
                image_size=PREPROCESSING.image_size,
                weights="random",
                preprocessing=PREPROCESSING,
            )
        job = "/".join(name.split("/")[:2])
        self._job(job)
        step = int(name.split("/")[3]) if name.count("/") == 3 else len(self.events[job])
        return models.Model(
            name=f"{job}/checkpoints/{step}", train_job=job, step=step, backbone="resnet18", feature_dim=FEATURE_DIM
        )


def _is_terminal(job: jobs.TrainJob) -> bool:
    return types_pb2.TrainJobState.Name(job.state).removeprefix("TRAIN_JOB_STATE_") in TERMINAL_STATES
