"""The image and docker-compose.yml from outside: what is in the container, and what the SDK sees when it is restarted,
killed, stopped, and short of memory (F28, F68).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import manyview
from support.clients.actors import Actor
from support.faults.evidence import Evidence, database_damage, dataset_evidence, job_evidence
from support.faults.validator import validate
from support.service.certificate import make_certificate
from support.service.compose import Compose, config, require_compose
from support.service.harness import SMALL_JOB, jpeg, wait_until, write_photos

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]

NUM_IMAGES = 320
PAUSE_S = "3"
"""The pause of an uploader after each batch of 8, so that the upload lasts as long as the faults."""
ENDLESS = SMALL_JOB | {"epochs": 100_000, "log_every_steps": 8, "checkpoint_every_epochs": 40}
SMALL_BATCHES = {"MANYVIEW_SERVER_MAX_BATCH_IMAGES": "8"}
PATIENCE_S = 240.0
KILLED = 137

PHOTO = jpeg()

Report = Callable[[str, object], None]


def test_the_server_is_an_unprivileged_user_on_a_read_only_root(compose: Compose) -> None:
    assert compose.execute("id", "-u") == "10001"
    status = dict(
        line.split(":\t", 1) for line in compose.execute("cat", "/proc/self/status").splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    writable = "import pathlib, sys\nfor place in sys.argv[1:]:\n"
    writable += (
        "    try:\n        path = pathlib.Path(place, 'probe'); path.write_text('x'); path.unlink(); print(place)\n"
    )
    writable += "    except OSError:\n        pass\n"
    places = ["/", "/opt/manyview", "/usr/local", "/etc", "/tmp", "/data"]
    assert compose.execute("python", "-", *places, stdin=writable).split() == ["/tmp", "/data"]
    assert compose.execute("stat", "--format", "%a %u", "/data") == "700 10001"
    assert "init" in compose.execute("cat", "/proc/1/comm")


def test_health_is_answered_inside_by_the_command_and_outside_by_the_sdk(compose: Compose) -> None:
    assert compose.health() == "healthy"
    assert compose.execute("manyview", "health") == "SERVING"
    with compose.client() as client:
        assert client.health() == "SERVING"
        info = client.server_info()
    assert info.version == compose.execute("manyview-server", "--version")
    assert [device.name for device in info.devices] == ["cpu"]
    assert len(json.loads(compose.docker("inspect", "--format", "{{json .HostConfig.PortBindings}}"))) == 1


def test_what_is_compiled_at_run_time_compiles_and_is_kept(compose: Compose) -> None:
    """torch.compile needs a C++ compiler and Python.h, and a place whose libraries may be executed."""
    program = (
        "import torch\n"
        "fast = torch.compile(lambda x: torch.sin(x) + x * 2)\n"
        "x = torch.arange(64.0)\n"
        "assert torch.allclose(fast(x), torch.sin(x) + x * 2)\n"
        "print('compiled')\n"
    )
    assert compose.execute("python", "-", stdin=program, timeout_s=300).endswith("compiled")
    assert int(compose.execute("sh", "-c", "find /data/compiled -name '*.so' | wc -l")) >= 1
    extension = (
        "#include <Python.h>\n"
        'static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tiny", 0, -1, 0};\n'
        "PyMODINIT_FUNC PyInit_tiny(void) { return PyModule_Create(&module); }\n"
    )
    build = (
        "mkdir -p /data/tiny && cd /data/tiny && cat > tiny.c && gcc -shared -fPIC tiny.c -o tiny.so"
        " -I $(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')"
        " && python -c 'import tiny; print(tiny.__name__)' && rm -r /data/tiny"
    )
    assert compose.execute("sh", "-c", build, stdin=extension) == "tiny"


class Walk:
    """Two data sets, an endless job, a subscriber, and an upload that goes on for minutes."""

    def __init__(self, compose: Compose, folder: Path) -> None:
        self.compose = compose
        self.client = compose.client()
        write_photos(folder / "training", 96, seed=1)
        write_photos(folder / "slow", NUM_IMAGES, seed=2)
        self.client.upload(folder / "training", dataset="training")
        self.job = self.client.train("training", "moco", config=ENDLESS, job_id="endless")
        place = (compose.address, folder)
        self.subscriber = Actor("subscriber", "subscriber", *place, self.job.id).start()
        self.uploader = Actor("uploader", "uploader", *place, "slow", str(folder / "slow"), PAUSE_S).start()
        self.photos = sorted((folder / "training").rglob("*.jpg"))[:16]
        self.wait_for_checkpoint(0)

    def wait_for_checkpoint(self, attempt: int) -> None:
        """Until the subscriber sees a checkpoint of a later attempt, by itself."""
        wait_until(
            lambda: any(
                event["kind"] == "checkpoint" and event["attempt"] > attempt
                for event in self.subscriber.history("event")
            ),
            f"a checkpoint of a later attempt than {attempt}",
            PATIENCE_S,
            every_s=0.2,
        )

    def num_acknowledged(self) -> int:
        return len(self.uploader.history("acked"))

    def goes_on(self, attempt: int) -> float:
        """The job trains again and its newest checkpoint embeds; how many seconds that took."""
        began = time.monotonic()
        self.wait_for_checkpoint(attempt)
        assert self.job.refresh().attempt == attempt + 1
        assert self.job.state == "RUNNING"
        found = self.client.embed(self.photos, model=self.job)
        assert len(found) == len(self.photos)
        assert not found.errors
        return time.monotonic() - began

    def judge(self) -> dict[str, int]:
        """Everything that was acknowledged is there, and the log is whole over all restarts."""
        self.uploader.finish(PATIENCE_S)
        self.job.cancel()
        self.subscriber.finish(PATIENCE_S)
        data = self.compose.copy_of_data()
        datasets = {name: dataset_evidence(self.client, data, name) for name in ("training", "slow")}
        jobs = {self.job.id: job_evidence(self.client, self.job.id)}
        self.compose.compose("stop")
        damage = database_damage(self.compose.copy_of_data())
        histories = {actor.name: actor.history() for actor in (self.uploader, self.subscriber)}
        verdict = validate(histories, Evidence(datasets=datasets, jobs=jobs, damage=damage))
        verdict.assert_clean()
        assert datasets["slow"].num_images == NUM_IMAGES
        assert jobs[self.job.id].state == "CANCELLED"
        return verdict.figures()

    def close(self) -> None:
        self.uploader.close()
        self.subscriber.close()
        self.client.close()


def test_a_job_and_an_upload_go_on_over_restarts_crashes_and_kills_of_the_container(
    compose: Compose, tmp_path: Path, record_property: Report
) -> None:
    compose.up(settings=SMALL_BATCHES)
    walk = Walk(compose, tmp_path)
    try:
        acknowledged = walk.num_acknowledged()
        compose.compose("restart")
        record_property("restart_s", round(walk.goes_on(1), 1))

        compose.crash()
        wait_until(lambda: compose.num_restarts() == 1, "the engine starts it again by itself", PATIENCE_S, every_s=0.5)
        record_property("crash_s", round(walk.goes_on(2), 1))

        compose.docker("kill")
        assert compose.state()["ExitCode"] == KILLED
        time.sleep(2)
        assert compose.state()["Status"] == "exited", "what an operator has killed stays down"
        compose.up(settings=SMALL_BATCHES)
        record_property("kill_s", round(walk.goes_on(3), 1))

        compose.compose("down", "--timeout", "5")
        compose.up(settings=SMALL_BATCHES)
        record_property("down_s", round(walk.goes_on(4), 1))
        assert walk.num_acknowledged() > acknowledged, "the upload went on meanwhile"
        for name, value in walk.judge().items():
            record_property(name, value)
    finally:
        walk.close()


def test_a_backup_is_restored_into_an_empty_volume(compose: Compose, tmp_path: Path) -> None:
    compose.up()
    write_photos(tmp_path / "photos", 64, seed=5)
    with compose.client() as client:
        job = client.train(
            client.upload(tmp_path / "photos", dataset="kept"), epochs=1, config=SMALL_JOB, job_id="kept"
        )
        job.wait(timeout_s=PATIENCE_S)
        images, events = list(client.images("kept")), list(job.metrics())
        row = client.embed(PHOTO, job).array
    compose.compose("stop")
    tar = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "tar", "server", "-C", "/data")
    backup = compose.compose_bytes(*tar, "-c", ".")
    compose.remove()
    compose.compose_bytes(*tar, "-x", stdin=backup)
    compose.up()
    with compose.client() as client:
        job = client.job("kept")
        assert (list(client.images("kept")), list(job.metrics())) == (images, events)
        assert (client.embed(PHOTO, job).array == row).all()


def test_a_stop_ends_a_training_server_with_status_0_and_no_step_is_lost(
    compose: Compose, tmp_path: Path, record_property: Report
) -> None:
    compose.up()
    write_photos(tmp_path / "photos", 96, seed=3)
    with compose.client() as client:
        photos = client.upload(tmp_path / "photos", dataset="stopped")
        config_ = ENDLESS | {"checkpoint_every_epochs": 100_000, "log_every_steps": 1}
        job = client.train(photos, config=config_, job_id="stopped")
        wait_until(lambda: job.refresh().progress.step > 20, "the job trains", PATIENCE_S)
        began = time.monotonic()
        compose.compose("stop", "--timeout", "40")
        record_property("stop_s", round(time.monotonic() - began, 1))
        state = compose.state()
        assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
        compose.up()
        wait_until(lambda: job.refresh().attempt == 2 and job.state == "RUNNING", "the job goes on", PATIENCE_S)
        (rollback,) = job.metrics(kinds=["rollback"], follow=False)
        seen = [event.step for event in job.metrics(kinds=["scalars"], follow=False) if event.attempt == 1]
        assert rollback["to_step"] == max(seen)
        job.cancel()


def test_a_trainer_that_the_kernel_kills_for_memory_is_named_and_the_server_stays(
    compose: Compose, tmp_path: Path, record_property: Report
) -> None:
    compose.up(MANYVIEW_MEMORY="1536m")
    front = compose.docker("inspect", "--format", "{{.State.StartedAt}}")
    write_photos(tmp_path / "photos", 512, seed=4, side=64)
    huge = {"backbone": "resnet50", "image_size": 224, "batch_size": 256, "precision": "float32"}
    began = time.monotonic()
    with compose.client() as client:
        job = client.train(client.upload(tmp_path / "photos", dataset="huge"), config=huge, job_id="huge")
        with pytest.raises(manyview.TrainJobFailed) as failed:
            job.wait(timeout_s=900)
        record_property("oom_s", round(time.monotonic() - began, 1))
        assert failed.value.reason == "HOST_OUT_OF_MEMORY"
        assert "batch_size" in str(failed.value)
        assert client.health() == "SERVING"
        small = client.train("huge", epochs=1, config=SMALL_JOB, job_id="small")
        assert small.wait(timeout_s=PATIENCE_S).state == "SUCCEEDED"
    assert compose.docker("inspect", "--format", "{{.State.StartedAt}}") == front, "the server was not killed"
    assert compose.num_restarts() == 0


def test_a_token_and_tls_come_from_files(compose: Compose, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "DNS:localhost")
    (tmp_path / "token").write_text("correct-horse\n")
    for path in (cert, key, tmp_path / "token"):
        path.chmod(0o444)
    compose.up("compose.secure.yml", MANYVIEW_SECRETS=str(tmp_path))
    tls = manyview.TLSOptions(ca=cert, server_name="localhost")
    with compose.client(tls=tls, token="correct-horse") as client:
        assert client.server_info().devices
    with compose.client(tls=tls, token="wrong") as stranger, pytest.raises(manyview.Unauthenticated):
        stranger.server_info()
    assert "correct-horse" not in compose.log()


def test_the_compose_files_say_what_they_mean() -> None:
    require_compose()
    plain = config("docker-compose.yml")["services"]["server"]
    assert (plain["image"], plain["build"]["args"]) == ("manyview:cpu", {"DEVICE": "cpu", "TORCH_INDEX": ""})
    assert plain["read_only"] is True
    assert plain["cap_drop"] == ["ALL"]
    assert [port["host_ip"] for port in plain["ports"]] == ["127.0.0.1"]
    assert plain["stop_grace_period"] == "40s"
    secure = config("docker-compose.yml", "compose.secure.yml")["services"]["server"]
    assert {secret["source"] for secret in secure["secrets"]} == {"token", "cert.pem", "key.pem"}
    gpu = config("docker-compose.yml", "compose.gpu.yml")["services"]["server"]
    assert (gpu["image"], gpu["build"]["args"]["DEVICE"]) == ("manyview:gpu", "gpu")
    assert gpu["environment"] == {"MANYVIEW_SERVER_DEVICE": "cuda"}
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
