"""Train jobs over a real port and the real store; nobody trains."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from manyview.v1 import metrics_service_pb2, types_pb2
from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.front.convert import job_messages
from manyview_server.store.event_payloads import Alert, Log, Scalars, SnapshotAdopted
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.job_verbs import CANCEL, PAUSE
from manyview_server.store.records import Activity, NewEvent, Progress


@pytest.fixture
async def dataset(front: Any, store_images: Any) -> str:
    made: str = await store_images(front, [1, 2, 3])
    return made


def config(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


async def create(front: Any, job_id: str = "j", **fields: Any) -> pb.TrainJob:
    request = pb.CreateTrainJobRequest(
        **{"train_job_id": job_id, "dataset": "datasets/shirts", "method": "simclr", **fields}
    )
    return (await front.jobs.CreateTrainJob(request)).train_job


async def test_a_job_holds_its_whole_configuration_and_wakes_the_supervisor(front: Any, dataset: str) -> None:
    job = await create(front, config=config(epochs=3))
    assert job.name == "trainJobs/j"
    defaults = {"temperature": 0.5, "backbone": "resnet18", "max_steps": None, "batch_size": None}
    evaluation = {"knn_every_epochs": 1, "knn_holdout_fraction": 0.1}
    assert json_format.MessageToDict(job.config) == {
        "method": "simclr",
        "epochs": 3,
        "evaluation": evaluation,
        "views": {"pipelines": [{"count": 2}]},
        **defaults,
    }
    assert (await front.store.jobs.get("j")).settings["epochs"] == 3
    assert isinstance((await front.store.jobs.get("j")).settings["epochs"], int)
    assert job.state == types_pb2.TRAIN_JOB_STATE_QUEUED
    assert job.server_version == "1.2.3"
    assert (job.latest_checkpoint, job.HasField("failure"), job.HasField("start_time")) == ("", False, False)
    assert front.trainers.wakes == 1
    assert (await front.jobs.GetTrainJob(pb.GetTrainJobRequest(name=job.name))).train_job == job


async def test_a_job_without_an_id_is_named_by_the_server(front: Any, dataset: str) -> None:
    first, second = await create(front, ""), await create(front, "")
    assert first.name.startswith("trainJobs/")
    assert first.name != second.name
    listed = (await front.jobs.ListTrainJobs(pb.ListTrainJobsRequest())).train_jobs
    assert {job.name for job in listed} == {first.name, second.name}
    assert [job.queue_position for job in listed] == [1, 0]


async def test_all_violations_of_a_configuration_are_named(front: Any, dataset: str, refused: Any) -> None:
    error = await refused(create(front, config=config(epochs=0, temperature=-1, epoch=4)))
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.fields == ("config.epoch", "config.epochs", "config.temperature")
    assert (await refused(create(front, config=config(temperature=float("nan"))))).fields == ("config.temperature",)
    assert (await refused(create(front, method="mocko"))).fields == ("method",)
    assert (await refused(create(front, dataset="shirts"))).fields == ("dataset",)
    assert (await refused(create(front, dataset="datasets/none"))).reason == "DATASET_NOT_FOUND"
    assert front.trainers.wakes == 0


async def test_validation_alone_creates_nothing(front: Any, dataset: str, refused: Any) -> None:
    job = await create(front, validate_only=True, config=config(epochs=9))
    assert dict(job.config)["epochs"] == 9
    assert not (await front.jobs.ListTrainJobs(pb.ListTrainJobsRequest())).train_jobs
    error = await refused(create(front, validate_only=True, dataset="datasets/none"))
    assert error.reason == "DATASET_NOT_FOUND"


async def test_creation_with_a_request_id_happens_once(front: Any, dataset: str, refused: Any) -> None:
    request_id = str(uuid.uuid4())
    first = await create(front, "", request_id=request_id)
    assert await create(front, "", request_id=request_id) == first
    assert (await refused(create(front, "other", request_id=request_id))).reason == "REQUEST_ID_REUSED"
    await create(front, "j")
    assert (await refused(create(front, "j"))).code == grpc.StatusCode.ALREADY_EXISTS


async def test_cancel_and_delete_follow_the_state(front: Any, dataset: str, refused: Any) -> None:
    job = await create(front)
    error = await refused(front.jobs.DeleteTrainJob(pb.DeleteTrainJobRequest(name=job.name)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
    cancel = pb.CancelTrainJobRequest(name=job.name)
    cancelled = (await front.jobs.CancelTrainJob(cancel)).train_job
    assert cancelled.state == types_pb2.TRAIN_JOB_STATE_CANCELLED
    assert (await front.jobs.CancelTrainJob(cancel)).train_job.state == cancelled.state
    assert front.trainers.wakes == 3
    await front.jobs.DeleteTrainJob(pb.DeleteTrainJobRequest(name=job.name))
    assert (await refused(front.jobs.GetTrainJob(pb.GetTrainJobRequest(name=job.name)))).reason == "TRAIN_JOB_NOT_FOUND"


async def test_pause_and_resume_follow_the_state(front: Any, dataset: str, refused: Any) -> None:
    job = await create(front)
    pause, resume = pb.PauseTrainJobRequest(name=job.name), pb.ResumeTrainJobRequest(name=job.name)
    for _ in range(2):
        assert (await front.jobs.PauseTrainJob(pause)).train_job.state == types_pb2.TRAIN_JOB_STATE_PAUSED
    for _ in range(2):
        assert (await front.jobs.ResumeTrainJob(resume)).train_job.state == types_pb2.TRAIN_JOB_STATE_QUEUED
    assert front.trainers.wakes == 5
    request_id = str(uuid.uuid4())
    once = pb.PauseTrainJobRequest(name=job.name, request_id=request_id)
    first = await front.jobs.PauseTrainJob(once)
    await front.jobs.ResumeTrainJob(resume)
    assert await front.jobs.PauseTrainJob(once) == first, "the same request is one wish, and was granted"
    assert (await front.jobs.GetTrainJob(pb.GetTrainJobRequest(name=job.name))).train_job.state == 1
    await front.jobs.CancelTrainJob(pb.CancelTrainJobRequest(name=job.name))
    for call in (front.jobs.PauseTrainJob(pause), front.jobs.ResumeTrainJob(resume)):
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
        assert error.metadata == {"state": "CANCELLED"}
        assert error.text == "train job 'j' is already CANCELLED"
    missing = pb.PauseTrainJobRequest(name="trainJobs/none")
    assert (await refused(front.jobs.PauseTrainJob(missing))).reason == "TRAIN_JOB_NOT_FOUND"


async def add_checkpoint(front: Any, step: int) -> None:
    uid = (await front.store.jobs.get("j")).uid
    directory = front.store.checkpoints.directory(uid) / checkpoints.name(step, 1)
    checkpoints.write(directory, {checkpoints.STATE_JSON: b'{"step": %d}' % step})
    fields = {"epoch": 1, "attempt": 1, "directory": str(directory), "num_bytes": 2, "model": {}}
    await front.store.checkpoints.add("j", step=step, **fields)


async def test_a_clone_has_the_configuration_of_the_other_job_and_begins_anew(front: Any, dataset: str) -> None:
    await create(front, config=config(epochs=9, temperature=0.3))
    same = {"dataset": "", "method": "", "clone_from": "trainJobs/j"}
    clone = await create(front, "clone", config=config(epochs=2), **same)
    assert (clone.dataset, clone.continued_from, clone.latest_checkpoint) == ("datasets/shirts", "", "")
    assert (clone.config["method"], clone.config["epochs"], clone.config["temperature"]) == ("simclr", 2, 0.3)
    preview = await create(front, "", validate_only=True, config=None, **same)
    assert (preview.dataset, preview.config["epochs"]) == ("datasets/shirts", 9)


async def test_a_job_continues_from_the_newest_or_a_named_checkpoint(front: Any, dataset: str) -> None:
    await create(front, config=config(epochs=9))
    await add_checkpoint(front, 10)
    await add_checkpoint(front, 20)
    other = {"dataset": "", "method": ""}
    newest = await create(front, "newest", config=config(epochs=20), continue_from="trainJobs/j", **other)
    assert (newest.continued_from, newest.latest_checkpoint, newest.config["epochs"]) == (
        "trainJobs/j/checkpoints/20",
        "trainJobs/newest/checkpoints/20",
        20,
    )
    assert newest.progress.step == 20
    older = await create(front, "older", config=None, continue_from="trainJobs/j/checkpoints/10", **other)
    assert older.latest_checkpoint == "trainJobs/older/checkpoints/10"


async def test_what_cannot_be_cloned_or_continued_is_refused_by_name(
    front: Any, dataset: str, refused: Any, store_images: Any
) -> None:
    await create(front)
    await store_images(front, [1, 2], name="few")

    async def refusal(**fields: Any) -> tuple[str, tuple[str, ...], str]:
        error = await refused(create(front, "new", **{"dataset": "", "method": "", "config": None, **fields}))
        return error.reason, error.fields, error.text

    assert (await refusal(continue_from="trainJobs/none"))[0] == "TRAIN_JOB_NOT_FOUND"
    assert (await refusal(clone_from="trainJobs/none"))[0] == "TRAIN_JOB_NOT_FOUND"
    reason, _, text = await refusal(continue_from="trainJobs/j")
    assert (reason, text) == ("MODEL_NOT_FOUND", "train job 'j' has no checkpoint yet")
    assert (await refusal(continue_from="backbones/resnet18"))[:2] == ("FIELD_INVALID", ("continue_from",))
    assert (await refusal(clone_from="j"))[:2] == ("FIELD_INVALID", ("clone_from",))
    both = await refusal(clone_from="trainJobs/j", continue_from="trainJobs/j")
    assert both[:2] == ("FIELD_INVALID", ("continue_from",))
    assert (await refusal(dataset=""))[:2] == ("FIELD_INVALID", ("dataset",))
    await add_checkpoint(front, 10)
    assert (await refusal(continue_from="trainJobs/j/checkpoints/11"))[0] == "MODEL_NOT_FOUND"
    assert (await refusal(continue_from="trainJobs/j", method="moco"))[:2] == ("FIELD_INVALID", ("method",))
    changed = await refusal(continue_from="trainJobs/j", config=config(backbone="resnet34", epochs=7))
    assert changed[:2] == ("FIELD_INVALID", ("config.backbone",))
    assert "must stay 'resnet18' in a job that continues from a checkpoint (got 'resnet34')" in changed[2]
    assert (await create(front, "new", dataset="datasets/few", method="", clone_from="trainJobs/j")).num_images == 2


async def test_a_job_whose_data_set_was_deleted_is_cloned_onto_another_one(
    front: Any, dataset: str, refused: Any, store_images: Any
) -> None:
    await create(front)
    await front.store.jobs.request("j", CANCEL)
    await front.store.datasets.delete("shirts")
    clone: dict[str, Any] = {"dataset": "", "method": "", "clone_from": "trainJobs/j"}
    error = await refused(create(front, "clone", **clone))
    text = "the data set 'shirts' of train job 'j' was deleted; name another one"
    assert (error.reason, error.text) == ("DATASET_NOT_FOUND", text)
    await store_images(front, [1, 2], name="trousers")
    again = await create(front, "clone", **{**clone, "dataset": "datasets/trousers"})
    assert again.dataset == "datasets/trousers"


@pytest.mark.parametrize(("shades", "words"), [([], "no image"), ([1], "one image"), ([None, 4], "one image")])
async def test_a_data_set_without_two_readable_images_is_refused(
    front: Any, refused: Any, store_images: Any, shades: list[int | None], words: str
) -> None:
    await front.store.datasets.create("shirts")
    if shades:
        await store_images(front, shades)
    dataset = await front.store.datasets.get("shirts")
    for image in (await front.store.datasets.images("shirts", (), 10))[0]:
        if image.key.startswith("bad"):
            await front.store.datasets.mark_unreadable(dataset.uid, image.image_id, "DECODE_FAILED", "it ends early")
    for validate_only in (False, True):
        error = await refused(create(front, validate_only=validate_only))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_TOO_SMALL")
        text = f"the data set 'shirts' has {words} that can be read, and training needs at least 2: upload more, or "
        assert error.text == text + "create a job that follows the data set and starts once it has enough"
    assert (await create(front, follow=pb.Follow(min_images=10), config=config(max_steps=9))).num_images == 0


async def test_a_batch_larger_than_the_data_set_is_refused(front: Any, dataset: str, refused: Any) -> None:
    error = await refused(create(front, config=config(batch_size=4)))
    assert (error.reason, error.fields) == ("FIELD_INVALID", ("config.batch_size",))
    assert "must be at most 3, the images of the data set 'shirts' (got 4)" in error.text
    assert (await create(front, config=config(batch_size=3))).config["batch_size"] == 3


async def test_a_network_that_its_library_does_not_have_is_refused_when_the_job_is_created(
    front: Any, dataset: str, refused: Any
) -> None:
    error = await refused(create(front, config=config(backbone="timm/none")))
    assert (error.fields, error.text) == (("config.backbone",), "config.backbone: unknown backbone 'timm/none'")


@pytest.mark.parametrize(
    ("values", "field", "text"),
    [
        (
            {},
            "config.epochs",
            "must be above 1, the epochs that the checkpoint to continue from has already made (got 1)",
        ),
        ({"epochs": 5, "max_steps": 10}, "config.max_steps", "must be above 10, the step of the checkpoint"),
    ],
)
async def test_a_continued_job_that_has_nothing_to_do_is_refused(
    front: Any, dataset: str, refused: Any, store_images: Any, values: dict[str, Any], field: str, text: str
) -> None:
    await create(front, config=config(epochs=1))
    await add_checkpoint(front, 10)
    again: dict[str, Any] = {"dataset": "", "method": "", "continue_from": "trainJobs/j"}
    error = await refused(create(front, "again", config=config(**values), **again))
    assert (error.reason, error.fields) == ("FIELD_INVALID", (field,))
    assert text in error.text
    assert (await create(front, "further", config=config(epochs=2), **again)).progress.step == 10
    # Only the trainer knows how many steps an epoch has now.
    await store_images(front, [4, 5])
    assert (await create(front, "same-epochs", config=None, **again)).progress.step == 10


async def test_a_failed_job_says_why_and_what_to_do(front: Any, dataset: str) -> None:
    await create(front)
    await front.store.jobs.transition("j", {"QUEUED"}, "STARTING")
    front.store.jobs.report_progress("j", Progress(step=5, num_steps=10, epoch=1, num_epochs=2, eta_s=1.5))
    await front.store.jobs.transition("j", {"STARTING"}, "FAILED", reason="DATASET_TOO_SMALL", message="3", hint="add")
    job = (await front.jobs.GetTrainJob(pb.GetTrainJobRequest(name="trainJobs/j"))).train_job
    assert (job.failure.reason, job.failure.message, job.failure.hint) == ("DATASET_TOO_SMALL", "3", "add")
    assert (job.progress.step, job.progress.num_epochs, job.progress.eta_s) == (5, 2, 1.5)
    assert job.end_time.seconds >= job.create_time.seconds > 0


async def activity(front: Any, job: str = "j") -> tuple[str, int, int] | None:
    """Return the activity of a job: its kind, and how much is done of how much."""
    found = (await front.jobs.GetTrainJob(pb.GetTrainJobRequest(name=f"trainJobs/{job}"))).train_job.progress
    if not found.HasField("activity"):
        return None
    return pb.Activity.Kind.Name(found.activity.kind), found.activity.done, found.activity.total


async def test_a_job_says_what_it_is_doing_and_how_far_it_is(front: Any, dataset: str) -> None:
    jobs = front.store.jobs
    await create(front)
    assert await activity(front) == ("KIND_WAITING_FOR_DEVICE", 0, 0)
    await jobs.transition("j", {"QUEUED"}, "STARTING")
    assert await activity(front) == ("KIND_STARTING_WORKER", 0, 0)
    jobs.report_progress("j", Progress(activity=Activity(kind="DECODING", done=1200, total=3068)))
    assert await activity(front) == ("KIND_DECODING", 1200, 3068)
    await jobs.transition("j", {"STARTING"}, "RUNNING")
    jobs.report_progress("j", Progress(activity=Activity(kind="TRAINING")))
    assert await activity(front) == ("KIND_TRAINING", 0, 0)
    await jobs.request("j", PAUSE)
    assert await activity(front) == ("KIND_STOPPING", 0, 0)
    await jobs.transition("j", {"PAUSING"}, "PAUSED")
    assert await activity(front) is None
    await jobs.request("j", CANCEL)
    assert await activity(front) is None


async def test_a_job_that_follows_says_how_many_images_it_still_waits_for(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    follow = pb.Follow(min_images=40)
    await create(front, follow=follow, config=config(max_steps=10, batch_size=2))
    assert await activity(front) == ("KIND_WAITING_FOR_IMAGES", 3, 40)


async def test_methods_come_with_their_schema(front: Any) -> None:
    response = await front.jobs.ListMethods(pb.ListMethodsRequest())
    assert [method.name for method in response.methods] == ["simclr"]
    assert json.loads(response.methods[0].config_schema_json)["properties"]["epochs"]["default"] == 50
    assert (response.backbones[0].name, response.backbones[0].feature_dim) == ("resnet18", 512)


async def log_lines(front: Any, *texts: str) -> None:
    lines = [NewEvent(payload=Log(level="error", text=text)) for text in texts]
    await front.store.events.append("j", lines)


async def test_the_tail_begins_with_the_newest_lines_and_ends_with_the_job(front: Any, dataset: str) -> None:
    await create(front)
    await log_lines(front, *(f"line {i}" for i in range(450)))
    call = front.jobs.TailLogs(pb.TailLogsRequest(train_job="trainJobs/j", num_lines=400))
    responses = [response async for response in call]
    assert [line.log.text for r in responses for line in r.lines] == [f"line {i}" for i in range(50, 450)]
    assert [r.end for r in responses] == [False, False, True]
    following = front.jobs.TailLogs(pb.TailLogsRequest(train_job="trainJobs/j", num_lines=1, follow=True))
    assert [line.log.text for line in (await following.read()).lines] == ["line 449"]
    await log_lines(front, "new")
    assert [(line.log.text, line.log.level) for line in (await following.read()).lines] == [
        ("new", types_pb2.Log.LEVEL_ERROR)
    ]
    await front.store.jobs.request("j", CANCEL)
    async with asyncio.timeout(5):
        assert (await following.read()).end


async def test_a_followed_log_without_lines_has_heartbeats_though_scalars_are_logged(front: Any, dataset: str) -> None:
    """The heartbeat counts from the last message, and not from the last event."""
    await create(front)
    await log_lines(front, "one")

    async def trains() -> None:
        for step in range(10_000):
            await front.store.events.append("j", [NewEvent(payload=Scalars(values={"loss": 1.0}), step=step)])
            await asyncio.sleep(0.02)

    following = front.jobs.TailLogs(pb.TailLogsRequest(train_job="trainJobs/j", follow=True))
    training = asyncio.create_task(trains())
    async with asyncio.timeout(30):
        assert [line.log.text for line in (await following.read()).lines] == ["one"]
        assert [await following.read() for _ in range(3)] == [pb.TailLogsResponse()] * 3
        await log_lines(front, "two")
        while not (message := await following.read()).lines:
            pass
    training.cancel()
    following.cancel()
    assert [line.log.text for line in message.lines] == ["two"]


async def test_an_alert_is_a_warning_in_the_log(front: Any, dataset: str) -> None:
    await create(front)
    alert = NewEvent(payload=Alert(reason="COLLAPSE", message="std 0.01"))
    await front.store.events.append("j", [alert])
    following = front.jobs.TailLogs(pb.TailLogsRequest(train_job="trainJobs/j", follow=True))
    await following.read()
    await front.store.events.append("j", [alert])
    (line,) = (await following.read()).lines
    following.cancel()
    assert (line.log.text, line.log.level) == ("COLLAPSE: std 0.01", types_pb2.Log.LEVEL_WARNING)


async def test_a_drain_ends_a_followed_log_without_the_end_mark(front: Any, dataset: str, refused: Any) -> None:
    await create(front)
    await log_lines(front, "one")
    following = front.jobs.TailLogs(pb.TailLogsRequest(train_job="trainJobs/j", follow=True))
    await following.read()
    await front.server.begin_drain()
    assert (await refused(following.read())).reason == "DRAINING"
    bad = front.jobs.GetTrainJob(pb.GetTrainJobRequest(name="trainJobs/j"))
    error = await refused(bad)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert error.retry_after_s > 0


async def test_a_job_that_follows_its_data_set_says_so_and_begins_with_none_of_its_images(
    front: Any, dataset: str
) -> None:
    follow = pb.Follow(min_images=40)
    job = await create(front, follow=follow, config=config(max_steps=9))
    assert (job.follow, job.num_images) == (follow, 0)
    preview = await create(front, "other", follow=follow, config=config(max_steps=9), validate_only=True)
    assert preview.follow == follow
    assert not (await create(front, "static")).HasField("follow")
    clone = await create(front, "clone", dataset="", method="", clone_from="trainJobs/j")
    assert not clone.HasField("follow"), "a job follows only if its own request says so"
    event = NewEvent(payload=SnapshotAdopted(num_images=50, num_added=10), step=7)
    await front.store.events.append("j", [event])
    (stored,) = [event for event in await front.store.events.read("j", 0, 10) if event.kind == "snapshot"]
    sent = job_messages.event("j", stored)
    assert (sent.snapshot.num_images, sent.snapshot.num_added, sent.step) == (50, 10, 7)
    assert sent.kind == metrics_service_pb2.MetricsEvent.KIND_SNAPSHOT


@pytest.mark.parametrize(
    ("min_images", "values", "field", "text"),
    [
        (0, {"max_steps": 9}, "follow.min_images", "at least 3"),
        (1, {"max_steps": 9, "evaluation": {"knn_every_epochs": 0}}, "follow.min_images", "at least 2"),
        (-5, {"max_steps": 9}, "follow.min_images", "got -5"),
        (63, {"max_steps": 9, "batch_size": 64}, "follow.min_images", "at least 89, for a batch besides"),
        (40, {}, "config.max_steps", "is required"),
        (40, {"max_steps": 9, "epochs": 3}, "config.epochs", "no effect"),
    ],
)
async def test_how_a_job_may_not_follow(
    front: Any, dataset: str, refused: Any, min_images: int, values: dict[str, Any], field: str, text: str
) -> None:
    error = await refused(create(front, follow=pb.Follow(min_images=min_images), config=config(**values)))
    assert (error.reason, error.fields) == ("FIELD_INVALID", (field,))
    assert text in error.text
