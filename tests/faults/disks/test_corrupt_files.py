"""Files that changed: shards of images and checkpoints of jobs (F12, F13, F30), and the database itself (F51)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import manyview
from manyview_server import failpoints
from manyview_server.store.images.shards import ScannedImage, scan, shard_path
from manyview_server.store.jobs.checkpoints import BACKBONE, CORRUPT_PREFIX, MANIFEST, STATE, STATE_JSON
from manyview_server.store.records import Checkpoint
from manyview_server.store.store import Store
from support.learning.exactness import exact, last_checkpoint
from support.service.harness import NO_FORK_SERVER, SMALL_JOB, ServerProcess, jpeg, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 90.0
NUM_IMAGES = 48
CONFIG = SMALL_JOB | {"batch_size": 8, "checkpoint_every_steps": 1, "evaluation": {"knn_every_epochs": 0}}
WHOLE_EPOCH = CONFIG | {"batch_size": NUM_IMAGES // 2, "max_steps": 2}
"""A job that reads every image, in batches in which some can be read although most are lost."""


def cut(path: Path, random_: random.Random) -> None:
    """The last part is gone."""
    os.truncate(path, random_.randrange(path.stat().st_size // 4, path.stat().st_size * 3 // 4))


def zero_tail(path: Path, random_: random.Random) -> None:
    """The last part is zeros; the size is as it was."""
    size = path.stat().st_size
    cut(path, random_)
    os.truncate(path, size)


def flip_bit(path: Path, random_: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def failpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path, failpoint_dir: Path) -> Iterator[ServerProcess]:
    """A server with images, which each test kills and starts again."""
    folder = tmp_path_factory.mktemp("corrupt")
    made = ServerProcess(folder / "data", catalogue=catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, str(failpoint_dir))
        made.start()
        with made.client() as client:
            write_photos(folder / "photos", NUM_IMAGES, seed=8)
            client.upload(folder / "photos", dataset="photos")
        yield made
        made.stop()
    wait_until(lambda: not made.processes(), "every process of the server is gone", 10)


def kill(server: ServerProcess) -> None:
    server.kill()
    wait_until(lambda: not server.processes(), "the workers die with the server", 10)


def checkpoints_of(data_dir: Path, job_id: str) -> list[Checkpoint]:
    """The checkpoints that the database lists, newest first. No server may run."""

    async def read() -> list[Checkpoint]:
        store = Store.open(data_dir)
        listed = await store.checkpoints.list(job_id)
        await store.close()
        return listed

    return asyncio.run(read())


def stop_at(job: manyview.Job, step: int, failpoint_dir: Path) -> None:
    """Wait until the trainer stands still before this step, with two checkpoints at least."""
    file = failpoint_dir / f"trainer.step@{step}"
    wait_until(lambda: not file.exists(), f"{job.id} is at step {step}", PATIENCE_S)
    wait_until(lambda: len(job.checkpoints()) >= 2, "there are two checkpoints", PATIENCE_S)


def bits_flipped(newest: Path, _: Path, random_: random.Random) -> None:
    flip_bit(newest / random_.choice([BACKBONE, STATE, STATE_JSON]), random_)


def file_cut(newest: Path, _: Path, random_: random.Random) -> None:
    cut(newest / random_.choice([BACKBONE, STATE]), random_)


def tail_of_zeros(newest: Path, _: Path, random_: random.Random) -> None:
    zero_tail(newest / random_.choice([BACKBONE, STATE]), random_)


def file_missing(newest: Path, _: Path, random_: random.Random) -> None:
    (newest / random_.choice([BACKBONE, STATE, STATE_JSON, MANIFEST])).unlink()


def file_of_another(newest: Path, older: Path, random_: random.Random) -> None:
    name = random_.choice([BACKBONE, STATE])
    shutil.copyfile(older / name, newest / name)


def empty_manifest(newest: Path, _: Path, random_: random.Random) -> None:
    (newest / MANIFEST).write_text(random_.choice(["", "{}", '{"files": {}}', "null"]))


def all_of_another(newest: Path, older: Path, random_: random.Random) -> None:
    """Whole in itself, and not what it is called."""
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


DAMAGES = [bits_flipped, file_cut, tail_of_zeros, file_missing, file_of_another, empty_manifest, all_of_another]


def test_a_server_does_not_start_on_a_database_that_does_not_match_and_the_right_one_brings_all_back(
    catalogue: Path, tmp_path: Path
) -> None:
    """The database is an older copy, has lost its log, or is gone, each beside the newest images and checkpoint."""
    server = ServerProcess(tmp_path / "data", *NO_FORK_SERVER, catalogue=catalogue)
    server.start()
    database = server.data_dir / "manyview.sqlite"
    log = database.with_name("manyview.sqlite-wal")
    with server.client() as client:
        client.upload(write_photos(tmp_path / "first", 16, seed=1), dataset="photos")
    server.stop()
    older = database.read_bytes()
    server.start()
    with server.client() as client:
        client.upload(write_photos(tmp_path / "second", 16, seed=2), dataset="photos")
        client.train("photos", "simclr", config=CONFIG | {"max_steps": 2}, job_id="job").wait(PATIENCE_S)
        images = {image.image_id for image in client.images("photos")}
        steps = [model.step for model in client.job("job").checkpoints()]
    kill(server)
    right = {path: path.read_bytes() for path in (database, log)}
    kept = {path: path.read_bytes() for path in server.data_dir.glob("[dj]*/**/*") if path.is_file()}
    assert len(kept) > 3
    for damaged in ({database: older}, {database: right[database]}, {}):
        for path in (database, log):
            path.unlink(missing_ok=True)
        for path, data in damaged.items():
            path.write_bytes(data)
        with pytest.raises(AssertionError, match=r"did not start[^$]*does not match the data"):
            server.start()
        assert server.ended() == 1
        assert {path: path.read_bytes() for path in kept} == kept
    for path, data in right.items():
        path.write_bytes(data)
    server.start()
    with server.client() as client:
        assert {image.image_id for image in client.images("photos")} == images
        assert [model.step for model in client.job("job").checkpoints()] == steps
    assert not (server.data_dir / "set-aside").exists()
    server.stop()


def test_a_job_without_any_good_checkpoint_fails_and_never_begins_again(
    server: ServerProcess, failpoint_dir: Path
) -> None:
    (failpoint_dir / "trainer.step@5").write_text("stop")
    with server.client() as client:
        job = client.train("photos", "moco", config=CONFIG | {"max_steps": 9}, job_id="hopeless")
        stop_at(job, 5, failpoint_dir)
        kill(server)
        listed = checkpoints_of(server.data_dir, job.id)
        for checkpoint, damage in zip(listed, [bits_flipped, file_missing, file_cut], strict=False):
            damage(Path(checkpoint.directory), Path(checkpoint.directory), random.Random(5))
        server.start()
        with pytest.raises(manyview.TrainJobFailed) as caught:
            job.wait(PATIENCE_S)
        assert caught.value.reason == "CHECKPOINT_CORRUPT"
        assert caught.value.hint
        assert all(Path(checkpoint.directory).is_dir() for checkpoint in listed), "nothing is removed"
        steps = [event.step for event in job.metrics(kinds=["scalars"]) if "loss" in event]
        assert steps == sorted(set(steps))


@pytest.mark.parametrize("seed", rounds(1))
def test_a_corrupt_checkpoint_is_set_aside_and_the_job_ends_as_if_nothing_had_been(
    server: ServerProcess, failpoint_dir: Path, record_property: Callable[[str, object], None], seed: int
) -> None:
    """One job: after each kill its newest checkpoint is damaged in another way, and it goes on from the one before."""
    random_ = random.Random(seed)
    damages = random_.sample(DAMAGES, len(DAMAGES) if soaking() else 1)
    print(f"seed {seed}:", *(damage.__name__ for damage in damages))
    num_steps = 2 * len(damages) + 3
    with server.client() as client:
        wanted = client.train("photos", "moco", config=CONFIG | {"max_steps": num_steps}, job_id=f"alone-{seed}")
        wanted.wait(PATIENCE_S)
        steps = [4 + 2 * number for number in range(len(damages))]
        for step in steps:
            (failpoint_dir / f"trainer.step@{step}").write_text("stop")
        job = client.train("photos", "moco", config=CONFIG | {"max_steps": num_steps}, job_id=f"damaged-{seed}")
        fallbacks = []
        for step, damage in zip(steps, damages, strict=True):
            stop_at(job, step, failpoint_dir)
            kill(server)
            newest, older, *_ = checkpoints_of(server.data_dir, job.id)
            damage(Path(newest.directory), Path(older.directory), random_)
            fallbacks.append((newest.step, older.step))
            server.start()
            aside = Path(newest.directory).with_name(CORRUPT_PREFIX + Path(newest.directory).name)
            wait_until(aside.is_dir, f"{damage.__name__} is noticed", PATIENCE_S)
        assert job.wait(PATIENCE_S).state == "SUCCEEDED"
        assert exact(job) == exact(wanted)
        assert last_checkpoint(server, job) == last_checkpoint(server, wanted)
        alerts = [event for event in job.metrics(kinds=["alert"]) if event["reason"] == "CHECKPOINT_CORRUPT"]
        assert [alert.step for alert in alerts] == [newest for newest, _ in fallbacks]
        rollbacks = [event["to_step"] for event in job.metrics(kinds=["rollback"])]
        assert rollbacks == [older for _, older in fallbacks]
        sequences = [event.sequence for event in job.metrics()]
        assert sequences == list(range(1, job.refresh().last_sequence + 1))
    record_property("checkpoints_damaged", len(damages))


def images_of(server: ServerProcess, client: manyview.Client, dataset: str) -> tuple[Path, list[ScannedImage]]:
    """A data set's only shard, and what is in it."""
    path = shard_path(server.data_dir / "datasets" / client.dataset(dataset).uid, 0)
    return path, [*scan(path)]


def lost_in(path: Path, images: list[ScannedImage]) -> set[str]:
    """The ids of the images that are not in the shard any more."""
    data = path.read_bytes() if path.exists() else b""
    whole = {
        image.image_id: hashlib.sha256(data[image.offset :][: image.length]).hexdigest() == image.meta["sha256"]
        for image in images
    }
    return {f"{image_id:016x}" for image_id, is_whole in whole.items() if not is_whole}


def test_an_image_whose_bits_rot_is_named_to_whoever_reads_it_and_left_out_of_training(
    server: ServerProcess, tmp_path: Path
) -> None:
    """While the server runs: nothing is noticed before somebody reads the image."""
    write_photos(tmp_path, NUM_IMAGES, seed=12)
    with server.client() as client:
        client.upload(tmp_path, dataset="rotten")
        path, images = images_of(server, client, "rotten")
        victim = images[7]
        name = f"{victim.image_id:016x}"
        data = bytearray(path.read_bytes())
        data[victim.offset + victim.length // 2] ^= 4
        path.write_bytes(data)
        with pytest.raises(manyview.DataLoss, match=name) as caught:
            client.read_image("rotten", victim.meta["key"])
        assert caught.value.reason == "CHECKSUM_MISMATCH"
        healthy = client.read_image("rotten", images[8].meta["key"])
        assert hashlib.sha256(healthy).hexdigest() == images[8].meta["sha256"]
        job = client.train("rotten", "simclr", config=WHOLE_EPOCH, job_id="rotten")
        assert job.wait(PATIENCE_S).state == "SUCCEEDED"
        assert unreadable(client, "rotten") == {name}
        assert client.dataset("rotten").num_unreadable == 1
        assert any("1 image cannot be read" in event["text"] for event in job.metrics(kinds=["log"]))


@pytest.mark.parametrize("seed", rounds(1))
def test_images_that_the_disk_lost_are_listed_and_the_rest_goes_on(
    server: ServerProcess, tmp_path: Path, record_property: Callable[[str, object], None], seed: int
) -> None:
    random_ = random.Random(seed)
    names = {kind: f"{kind}-{seed}" for kind in ("cut", "mixed", "gone")}
    lost = {}
    with server.client() as client:
        for number, name in enumerate(names.values()):
            write_photos(tmp_path / name, NUM_IMAGES, seed=10 * seed + number + 20)
            client.upload(tmp_path / name, dataset=name)
        shards = {kind: images_of(server, client, name) for kind, name in names.items()}
        kill(server)
        cut(shards["cut"][0], random_)
        zero_tail(shards["mixed"][0], random_)
        for _ in range(20):
            flip_bit(shards["mixed"][0], random_)
        shards["gone"][0].unlink()
        for kind, (path, images) in shards.items():
            lost[kind] = lost_in(path, images)
        assert server.start() < 20
        assert client.health() == "SERVING"
        # Missing bytes are known at once; changed bytes, when they are read.
        for kind in ("cut", "gone"):
            assert unreadable(client, names[kind]) == lost[kind]
        for kind in ("cut", "mixed"):
            known = client.dataset(names[kind])
            two_steps = CONFIG | {"batch_size": (known.num_images - known.num_unreadable) // 2, "max_steps": 2}
            job = client.train(names[kind], "simclr", config=two_steps, job_id=f"{kind}-{seed}")
            assert job.wait(PATIENCE_S).state == "SUCCEEDED"
            assert unreadable(client, names[kind]) == lost[kind]
            assert any("cannot be read" in event["text"] for event in job.metrics(kinds=["log"]))
        with pytest.raises(manyview.FailedPrecondition, match=f"'gone-{seed}' has no image that can be read"):
            client.train(names["gone"], "simclr", config=CONFIG, job_id=f"gone-{seed}")
        for kind, name in names.items():
            client.upload([jpeg(seed=seed)], dataset=name, upload_id="later")
            assert client.dataset(name).num_images == NUM_IMAGES + 1
            assert client.dataset(name).num_unreadable == len(lost[kind])
        kill(server)
        server.start()
        for kind, name in names.items():
            assert unreadable(client, name) == lost[kind]
    record_property("images_lost_and_listed", sum(map(len, lost.values())))


def unreadable(client: manyview.Client, dataset: str) -> set[str]:
    return {image.image_id for image in client.images(dataset, statuses=["UNREADABLE"])}
