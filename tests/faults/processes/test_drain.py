"""SIGTERM while images come in, a job trains, somebody watches it and somebody embeds with it (F62, F63).

Promises: health says NOT_SERVING at once, every stream ends with a word that says why, the job writes a checkpoint of
the step that it is at, the exit status is 0. After the next start everybody goes on by themselves and nothing is
missing. A server that is killed in the middle of that has crashed, and no more is lost than in a crash.
"""

from __future__ import annotations

import json
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import manyview
from manyview.v1 import dataset_service_pb2, metrics_service_pb2, metrics_service_pb2_grpc
from manyview.v1.dataset_service_pb2_grpc import DatasetServiceStub
from support.clients.actors import Actor
from support.clients.wire import Wire, header
from support.faults.evidence import Evidence, database_damage, dataset_evidence, job_evidence
from support.faults.history import Record
from support.faults.validator import Verdict, validate
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(180)

NUM_IMAGES = 160
PAUSE_S = "0.1"
"""The pause of an uploader after each batch of 8, so that the upload lasts for some seconds."""
ENDLESS = SMALL_JOB | {"epochs": 100_000, "checkpoint_every_epochs": 100_000, "evaluation": {"knn_every_epochs": 0}}
"""It writes no checkpoint but those that it is asked for."""
WORKERS = None if soaking() else {"trainer": {"steps": 1_000_000, "step_s": 0.02, "checkpoint_every": 1_000_000}}
"""Outside of soak, workers without torch: what they compute plays no part here."""
PATIENCE_S = 60.0

Report = Callable[[str, object], None]


class Load:
    """Two uploaders, a subscriber and a caller of embeddings beside a training job."""

    def __init__(self, server: ServerProcess, folder: Path, seed: int) -> None:
        self.server = server
        server.start()
        self.client = server.client()
        write_photos(folder / "training", 96, seed=seed)
        self.client.upload(folder / "training", dataset="training")
        self.job = self.client.train("training", "moco", config=ENDLESS, job_id="endless")
        place = (server.address, folder)
        self.subscriber = Actor("subscriber", "subscriber", *place, self.job.id)
        self.caller = Actor("caller", "caller", *place, "backbones/resnet9", str(folder / "training"))
        self.uploaders = []
        for number in range(2):
            name = f"photos-{number}"
            write_photos(folder / name, NUM_IMAGES, seed=100 * seed + number + 1)
            self.uploaders.append(Actor("uploader", name, *place, name, str(folder / name), PAUSE_S))
        self.actors = [self.subscriber, self.caller, *self.uploaders]

    def start(self, random_: random.Random) -> None:
        """Until everybody is at it, and a random while longer."""
        for actor in self.actors[:2]:
            actor.start()
        wait_until(lambda: len(self.events("scalars")) > 3, "the job trains", PATIENCE_S)
        wait_until(lambda: bool(self.caller.history("embedded")), "the caller gets embeddings", PATIENCE_S)
        for uploader in self.uploaders:
            uploader.start()
        threshold = random_.randrange(1, NUM_IMAGES)
        wait_until(lambda: self.num_acknowledged() >= threshold, f"{threshold} images acknowledged", PATIENCE_S)
        time.sleep(random_.uniform(0, 0.1))

    def num_acknowledged(self) -> int:
        return sum(len(uploader.history("acked")) for uploader in self.uploaders)

    def events(self, kind: str) -> list[Record]:
        """The events of one kind that the subscriber has seen."""
        return [event for event in self.subscriber.history("event") if event["kind"] == kind]

    def go_on(self) -> Verdict:
        """After the next start, which is the job's second: all do what is left to do, and everything is judged."""
        answers = len(self.caller.history("embedded"))
        for uploader in self.uploaders:
            uploader.finish(PATIENCE_S)
        again = f"the job trains again and the caller is answered\n{self.caller.printed}"
        wait_until(lambda: any(event["attempt"] == 2 for event in self.events("scalars")), again, PATIENCE_S)
        wait_until(lambda: len(self.caller.history("embedded")) > answers, again, PATIENCE_S)
        self.caller.finish(PATIENCE_S)
        self.job.cancel()
        self.subscriber.finish(PATIENCE_S)
        names = [uploader.name for uploader in self.uploaders]
        datasets = {name: dataset_evidence(self.client, self.server.data_dir, name) for name in names}
        jobs = {self.job.id: job_evidence(self.client, self.job.id)}
        assert self.server.stop() == 0
        wait_until(lambda: not self.server.processes(), "every process of the server is gone", 10)
        damage = database_damage(self.server.data_dir)
        histories = {actor.name: actor.history() for actor in self.actors}
        verdict = validate(histories, Evidence(datasets=datasets, jobs=jobs, damage=damage))
        verdict.assert_clean()
        assert {dataset.num_images for dataset in datasets.values()} == {NUM_IMAGES}
        assert jobs[self.job.id].state == "CANCELLED"
        return verdict

    def close(self) -> None:
        for actor in self.actors:
            actor.close()
        self.client.close()


class Witness:
    """Open streams that do nothing, on a channel of their own: which error do they get, and when?"""

    def __init__(self, server: ServerProcess, job: manyview.Job) -> None:
        self._wire = Wire(server.address)
        self._seen: dict[str, queue.SimpleQueue[tuple[float, Any]]] = {}
        channel = self._wire.channel
        DatasetServiceStub(channel).CreateDataset(dataset_service_pb2.CreateDatasetRequest(dataset_id="idle"))
        self._header: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._header.put(header("idle", "idle"))
        subscribe = metrics_service_pb2.SubscribeMetricsRequest(train_job=job.name, follow=True)
        self._follow("health", health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
        self._follow("metrics", metrics_service_pb2_grpc.MetricsServiceStub(channel).SubscribeMetrics(subscribe))
        self._follow("upload", DatasetServiceStub(channel).UploadImages(iter(self._header.get, None)))
        for name in self._seen:
            self.next(name)

    def _follow(self, name: str, call: Any) -> None:
        seen = self._seen[name] = queue.SimpleQueue()

        def read() -> None:
            try:
                for message in call:
                    seen.put((time.monotonic(), message))
                    if name == "upload" and message.HasField("error"):
                        self._header.put(None)  # half-closes, as a client does that has understood
            except grpc.RpcError as error:
                seen.put((time.monotonic(), error))

        threading.Thread(target=read, daemon=True).start()

    def next(self, name: str) -> tuple[float, Any]:
        """When a stream said something, and what: a message, or its error."""
        return self._seen[name].get(timeout=PATIENCE_S)

    def last_words(self, name: str) -> Any:
        """The last message of a stream."""
        message: Any = None
        while not isinstance(answer := self.next(name)[1], grpc.RpcError):
            message = answer
            if name == "metrics" and message.HasField("end"):
                break
        return message

    def close(self) -> None:
        self._header.put(None)
        self._wire.channel.close()


@pytest.fixture
def load(new_server: Callable[..., ServerProcess], tmp_path: Path, seed: int) -> Iterator[Load]:
    made = Load(new_server("--max-batch-images", "8", workers=WORKERS), tmp_path, seed)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("seed", rounds(1))
def test_a_server_that_is_told_to_stop_under_load_says_so_to_everybody_and_loses_nothing(
    load: Load, record_property: Report, seed: int
) -> None:
    load.start(random.Random(seed))
    server, witness = load.server, Witness(load.server, load.job)
    server.terminate()
    told_at = time.monotonic()
    heard_at, health = witness.next("health")
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with manyview.Client(server.address, deadlines=manyview.Deadlines(unary_s=2.0)) as newcomer:
        with pytest.raises(manyview.ManyviewError) as refused:
            newcomer.datasets()
        assert isinstance(refused.value, manyview.Unavailable)
    assert witness.last_words("metrics").end.reason == metrics_service_pb2.EndOfStream.REASON_DRAINING
    assert witness.last_words("upload").error.reason == "DRAINING"
    assert server.ended() == 0
    drained_s = time.monotonic() - told_at
    witness.close()
    assert not server.processes(), "the workers end before their server"
    assert "not everything ended in time" not in server.log.read_text()
    assert not database_damage(server.data_dir)
    assert all(actor.alive for actor in (load.subscriber, load.caller)), "a drain is no end"

    server.start()
    verdict = load.go_on()
    (rollback,) = load.events("rollback")
    steps = [event["step"] for event in load.events("scalars") if event["attempt"] == 1]
    assert json.loads(rollback["payload"])["to_step"] == max(steps), "the checkpoint is of the last step"
    assert heard_at - told_at < 1.0
    record_property("max_not_serving_ms", round(1000 * (heard_at - told_at)))
    record_property("max_drain_ms", round(1000 * drained_s))
    for name, value in verdict.figures().items():
        record_property(name, value)


@pytest.mark.parametrize("seed", rounds(2))  # a kill, and a second signal
def test_a_server_that_is_killed_while_it_drains_has_crashed_and_loses_no_more(
    load: Load, record_property: Report, seed: int
) -> None:
    random_ = random.Random(seed)
    load.start(random_)
    load.server.terminate()
    time.sleep(random_.uniform(0, 0.4))
    # Every other round an impatient operator's second signal, which a server may just have outrun.
    if seed % 2:
        load.server.terminate()
        assert load.server.ended() in (-signal.SIGTERM, 0)
    else:
        load.server.kill()
    wait_until(lambda: not load.server.processes(), "the workers die with the server", 5)
    assert not database_damage(load.server.data_dir)
    load.server.start()
    for name, value in load.go_on().figures().items():
        record_property(name, value)


def test_a_step_that_takes_longer_than_the_drain_is_given_up_in_time(
    new_server: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failpoints").mkdir()
    (tmp_path / "failpoints" / "trainer.step@9").write_text("sleep 60")
    monkeypatch.setenv("MANYVIEW_FAILPOINTS", str(tmp_path / "failpoints"))
    write_photos(tmp_path / "photos", 96, seed=1)
    server = new_server("--drain-s", "2")
    server.start()
    with server.client() as client:
        job = client.train(client.upload(tmp_path / "photos", dataset="photos"), config=ENDLESS)
        wait_until(lambda: job.refresh().progress.step == 8, "the job is at its long step", 40)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 4
    assert not server.processes()
    assert "not everything ended in time" not in server.log.read_text()
    server.start()
    with server.client() as client:
        wait_until(lambda: client.job(job.id).info.attempt == 2, "the job goes on", 40)
