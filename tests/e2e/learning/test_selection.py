"""A data set that is embedded where it is, and chosen from: real processes, over their and the connections' deaths."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import manyview
from manyview._cli.main import app
from manyview_server.learn import selection
from support.faults.proxy import Proxy
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos

pytestmark = pytest.mark.timeout(240)

NUM_PHOTOS = 780
"""More than one segment of a table, and more than two pages."""
COPIED = 5
PLAIN = "backbones/resnet18"
"""It resizes to 224 pixels: embedding all photos takes a minute."""
SLOW = SMALL_JOB | {"backbone_width": 0.25, "image_size": 160, "max_steps": 1, "evaluation": {"knn_every_epochs": 0}}
"""A job whose model takes seconds for all photos."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of four classes; one of them again with other bytes, and one that is cut off."""
    path = tmp_path_factory.mktemp("photos")
    photos = write_photos(path, NUM_PHOTOS, seed=11)
    with Image.open(photos[COPIED]) as image:
        image.save(path / "copy.jpg", quality=80)
    whole = photos[0].read_bytes()
    # Within its only scan: a file that is cut before that is refused at the upload.
    (path / "torn.jpg").write_bytes(whole[: whole.index(b"\xff\xda") + 40])
    return path


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, folder: Path) -> manyview.Dataset:
    return client.upload(folder, dataset="photos", progress=False)


@pytest.fixture(scope="module")
def job(client: manyview.Client, dataset: manyview.Dataset) -> manyview.Job:
    trained = client.train(dataset, "simclr", epochs=1, config=SMALL_JOB, job_id="small")
    trained.wait(timeout_s=120)
    return trained


@pytest.fixture(scope="module")
def embeddings(client: manyview.Client, dataset: manyview.Dataset, job: manyview.Job) -> manyview.Embeddings:
    return client.embed_dataset(dataset, job)


def tables(server: ServerProcess) -> list[Path]:
    return sorted((server.data_dir / "embeddings").glob("*/*"))


def segments(server: ServerProcess) -> list[Path]:
    """The files of all tables."""
    return [path for table in tables(server) for path in table.glob("segment-*")]


def readable(embeddings: manyview.Embeddings) -> tuple[torch.Tensor, list[str]]:
    """Rows of length 1 and their keys, without the torn image."""
    whole = np.invert(np.isnan(embeddings.array).any(axis=1))
    keys = [key for key, is_whole in zip(embeddings.keys, whole.tolist(), strict=True) if is_whole]
    return selection.unit_rows(torch.from_numpy(embeddings.array[whole].copy())), keys


def test_rows_are_those_of_the_files_themselves(
    client: manyview.Client, folder: Path, job: manyview.Job, embeddings: manyview.Embeddings
) -> None:
    assert embeddings.checkpoint == job.refresh().latest_checkpoint
    assert embeddings.keys == tuple(image.key for image in client.images("photos"))
    torn = embeddings.keys.index("torn.jpg")
    assert {row: error.reason for row, error in embeddings.errors.items()} == {torn: "DECODE_FAILED"}
    some = [0, 3, 511, 512, 700, torn]
    files = client.embed([folder / embeddings.keys[row] for row in some], model=embeddings.checkpoint)
    np.testing.assert_allclose(embeddings.array[some], files.array, rtol=1e-4, atol=1e-5)
    assert client.dataset("photos").num_unreadable == 1


def test_the_second_time_nothing_is_embedded(
    client: manyview.Client, server: ServerProcess, embeddings: manyview.Embeddings
) -> None:
    for pid in server.workers("embedder"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.workers("embedder"), "the embedder is gone")
    again = client.embed_dataset("photos", "small")
    np.testing.assert_array_equal(again.array, embeddings.array)
    assert not server.workers("embedder")


def test_components_keep_the_variance_that_they_say(
    client: manyview.Client, job: manyview.Job, embeddings: manyview.Embeddings
) -> None:
    whole = embeddings.array[~np.isnan(embeddings.array).any(axis=1)].astype(np.float64)
    few = client.embed_dataset("photos", job, pca=4)
    rows = few.array[~np.isnan(few.array).any(axis=1)].astype(np.float64)
    assert (few.array.shape, len(few.errors)) == ((len(embeddings), 4), 1)
    shares = np.linalg.svd(whole - whole.mean(0), compute_uv=False) ** 2
    assert few.variance_kept == pytest.approx(shares[:4].sum() / shares.sum(), rel=1e-4)
    assert rows.var(0).sum() / whole.var(0).sum() == pytest.approx(few.variance_kept, rel=1e-3)
    most = client.embed_dataset("photos", job, pca=0.9, whiten=True)
    assert most.variance_kept is not None
    assert most.variance_kept >= 0.9
    assert np.nanstd(most.array, axis=0, ddof=1) == pytest.approx(np.ones(most.array.shape[1]), rel=1e-3)


def test_each_strategy_chooses_as_the_library_does(
    client: manyview.Client, job: manyview.Job, embeddings: manyview.Embeddings
) -> None:
    rows, keys = readable(embeddings)
    chosen = torch.tensor([4, 9])
    expected = {
        "coreset": selection.coreset(rows, 12, seed=3, chosen=chosen),
        "minimum_distance": selection.minimum_distance(rows, 0.05, seed=3, count=12, chosen=chosen),
        "typicality": selection.typicality(rows, 12, num_neighbors=7, chosen=chosen),
        "similarity": selection.similarity(rows, rows[[20]], 12, chosen=torch.tensor([4, 9, 20])),
    }
    parameters: dict[str, dict[str, Any]] = {
        "coreset": {"seed": 3},
        "minimum_distance": {"seed": 3, "distance": 0.05},
        "typicality": {"num_neighbors": 7},
        "similarity": {"like_keys": [keys[20]]},
    }
    for strategy, found in expected.items():
        select: dict[str, Any] = {
            "model": job,
            "strategy": strategy,
            "chosen": [keys[4], keys[9]],
            **parameters[strategy],
        }
        samples = client.select("photos", 12, **select)
        assert list(samples.keys) == [keys[row] for row in found.rows.tolist()], strategy
        assert [sample.score for sample in samples] == pytest.approx(found.scores.tolist(), abs=1e-5)
        assert client.select("photos", 12, **select) == samples, "the same again"


def test_classes_are_balanced_and_random_needs_no_model(client: manyview.Client, job: manyview.Job) -> None:
    equal = client.select("photos", 8, model=job, balance="equal")
    assert [sample.image.label for sample in equal[:4]] == ["class0", "class1", "class2", "class3"]
    given = client.select("photos", model=job, strategy="typicality", balance={"class1": 3, "class2": 1})
    assert sorted(sample.image.label for sample in given) == ["class1", "class1", "class1", "class2"]
    drawn = client.select("photos", 50, strategy="random", seed=2)
    assert len({sample.image_id for sample in drawn}) == 50
    assert "torn.jpg" not in drawn.keys
    assert client.select("photos", 20, strategy="random", seed=2).keys == drawn.keys[:20]


def test_a_copy_with_other_bytes_is_the_nearest_and_a_near_duplicate(
    client: manyview.Client, folder: Path, job: manyview.Job, embeddings: manyview.Embeddings
) -> None:
    copied = sorted(path for path in folder.rglob("*.jpg") if path.parent != folder)[COPIED]
    key = copied.relative_to(folder).as_posix()
    (stored,) = client.neighbors("photos", keys=[key], model=job, num_neighbors=3)
    assert stored[0].key == "copy.jpg"
    brought, bad = client.neighbors("photos", [copied, folder / "torn.jpg"], model=job, num_neighbors=3)
    assert [near.key for near in brought[:2]] == [key, "copy.jpg"]
    assert bad.error is not None
    assert (brought[0].distance, bad.error.reason) == (pytest.approx(0, abs=1e-3), "DECODE_FAILED")
    alike = client.select("photos", 2, model=job, strategy="similarity", like=[folder / "torn.jpg", copied])
    assert set(alike.keys) == {key, "copy.jpg"}
    assert {key: error.reason for key, error in alike.errors.items()} == {
        (folder / "torn.jpg").as_posix(): "DECODE_FAILED"
    }
    alike = client.select("photos", 1, model=job, strategy="similarity", like_keys=["torn.jpg", key])
    assert alike.keys == ("copy.jpg",)
    assert [(key, error.reason) for key, error in alike.errors.items()] == [("torn.jpg", "DECODE_FAILED")]
    rows, keys = readable(embeddings)
    groups = client.duplicates("photos", model=job, max_distance=0.01)
    first = selection.near_duplicates(rows, 0.01).tolist()
    expected = {keys[row]: [keys[r] for r in range(len(keys)) if first[r] == row] for row in set(first)}
    found = {group[0].key: [member.key for member in group] for group in groups}
    assert found == {head: members for head, members in expected.items() if len(members) > 1}


def test_a_stream_that_is_cut_goes_on_behind_what_it_brought(
    server: ServerProcess, embeddings: manyview.Embeddings
) -> None:
    with Proxy(server.address) as proxy, manyview.Client(proxy.address) as client:
        chunks = client.embed_dataset_iter("photos", "small")
        first = next(chunks)
        proxy.reset()
        rest = list(chunks)
    assert first.start == 0
    assert len(rest) >= 1
    whole = np.concatenate([chunk.array for chunk in (first, *rest)])
    np.testing.assert_array_equal(whole, embeddings.array)


def test_a_damaged_table_is_mended_and_nobody_notices(
    client: manyview.Client, server: ServerProcess, embeddings: manyview.Embeddings
) -> None:
    before = client.select("photos", 5, model="small")
    for number, path in enumerate(segments(server)):
        whole = bytearray(path.read_bytes())
        if number % 2:
            path.write_bytes(whole[: len(whole) // 2])
        else:
            whole[-100] ^= 1
            path.write_bytes(whole)
    assert client.select("photos", 5, model="small") == before
    np.testing.assert_allclose(client.embed_dataset("photos", "small").array, embeddings.array, rtol=1e-4, atol=1e-5)


def test_a_selector_that_is_killed_is_replaced(
    client: manyview.Client, server: ServerProcess, embeddings: manyview.Embeddings
) -> None:
    before = client.select("photos", 5, model="small")
    for pid in server.workers("selector"):
        os.kill(pid, signal.SIGKILL)
    assert client.select("photos", 5, model="small") == before


def test_a_caller_that_gives_up_stops_the_work(
    client: manyview.Client, server: ServerProcess, dataset: manyview.Dataset
) -> None:
    reported: list[int] = []
    with pytest.raises(manyview.DeadlineExceeded):
        client.select(dataset, 3, model=PLAIN, timeout_s=2.0, progress=lambda done, total: reported.append(done))
    assert max(reported, default=0) < NUM_PHOTOS

    def is_quiet() -> bool:
        busy = [_cpu_ticks(pid) for pid in server.workers("embedder")]
        time.sleep(0.5)
        return [_cpu_ticks(pid) for pid in server.workers("embedder")] == busy

    wait_until(is_quiet, "the embedder rests", 20)


def test_callers_do_not_wait_for_a_data_set_to_be_embedded(
    client: manyview.Client, dataset: manyview.Dataset, folder: Path
) -> None:
    slow = client.train(dataset, "simclr", config=SLOW | {"backbone_width": 0.5})
    slow.wait(timeout_s=120)
    photo = sorted(folder.rglob("*.jpg"))[0]
    client.embed([photo], slow)
    begun, ended = threading.Event(), threading.Event()

    def part() -> int:
        found = client.embed_dataset(dataset, slow, version=NUM_PHOTOS, progress=lambda done, total: begun.set())
        ended.set()
        return len(found)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(part)
        assert begun.wait(60)
        for _ in range(2):
            client.embed([photo], slow)
        assert not ended.is_set()
        assert future.result(timeout=120) == NUM_PHOTOS


def test_the_command_line_draws_what_it_chose(
    server: ServerProcess, folder: Path, job: manyview.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYVIEW_TARGET", server.address)
    photo = sorted(folder.rglob("*.jpg"))[0]
    lines = {
        "sheet": ["select", "photos", "-n", "12", "-m", "small"],
        "near": ["neighbors", "photos", str(photo), "-m", "small", "-k", "4"],
        "same": ["duplicates", "photos", "-d", "0.5", "-m", "small"],
    }
    for name, line in lines.items():
        result = CliRunner().invoke(app, [*line, "-o", f"{tmp_path}/{name}.png"])
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / f"{name}.png") as picture:
            colors = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colors, axis=0)) > 500, "photographs"
    result = CliRunner().invoke(
        app, ["embed", "-d", "photos", "-m", "small", "--pca", "3", "-o", f"{tmp_path}/v.npy", "--json"]
    )
    assert result.exit_code == 1, "a torn image"
    assert json.loads(result.stdout)["shape"] == [782, 3]


def test_embeddings_go_with_their_job_and_their_data_set(
    client: manyview.Client, server: ServerProcess, tmp_path: Path
) -> None:
    write_photos(tmp_path, 40, seed=5)
    client.upload(tmp_path, dataset="gone", progress=False)
    trained = client.train("gone", epochs=1, config=SMALL_JOB, job_id="gone")
    trained.wait(timeout_s=120)
    before = tables(server)
    client.embed_dataset("gone", trained)
    client.embed_dataset("gone", "backbones/resnet9")
    (of_job,) = (path for path in set(tables(server)) - set(before) if not path.name.startswith("backbone"))
    trained.delete()
    assert not of_job.exists()
    assert len(tables(server)) == len(before) + 1
    client.delete_dataset("gone")
    assert tables(server) == before
    with pytest.raises(manyview.NotFound):
        client.select("gone", 1, model=PLAIN)


def test_neither_a_dead_embedder_nor_a_dead_server_costs_a_row(
    server: ServerProcess, dataset: manyview.Dataset
) -> None:
    first: list[int] = []
    deadlines = manyview.Deadlines(reconnect_s=120)

    def watch(done: int, total: int | None) -> None:
        first.append(done)

    with manyview.Client(server.address, deadlines=deadlines) as client, ThreadPoolExecutor(1) as pool:
        slow = client.train(dataset, "simclr", config=SLOW)
        slow.wait(timeout_s=120)
        before = segments(server)
        future = pool.submit(client.embed_dataset, dataset, slow, progress=watch)
        wait_until(lambda: bool(first) and bool(server.workers("embedder")), "it has begun", 60)
        for pid in server.workers("embedder"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(segments(server)) > len(before), "a segment is there", 120)
        server.kill()
        server.start()
        found = future.result(timeout=120)
        assert found.array.shape == (782, client.model(slow).feature_dim)
        assert len(found.errors) == 1
        again = client.embed_dataset(dataset, slow)
        np.testing.assert_array_equal(found.array, again.array)


def test_a_server_that_drains_says_so_and_leaves_no_process(server: ServerProcess, dataset: manyview.Dataset) -> None:
    begun = threading.Event()

    def whole() -> None:
        with manyview.Client(server.address, deadlines=manyview.Deadlines(reconnect_s=1)) as client:
            client.embed_dataset(dataset, PLAIN, progress=lambda done, total: begun.set())

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(whole)
        assert begun.wait(50)
        assert server.stop() == 0
        with pytest.raises(manyview.Unavailable):
            future.result(timeout=30)
    wait_until(server.is_gone, "every process is gone", 10)
    server.start()


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
