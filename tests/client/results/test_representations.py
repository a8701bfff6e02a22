"""Values introduce themselves in one short line, and notebooks show them as tables and pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import manyview
from manyview.testing import FakeServer

CHECKPOINT = "trainJobs/fourth/checkpoints/688"


def image(number: int, label: str = "<b>dress</b>") -> manyview.StoredImage:
    return manyview.StoredImage(
        image_id=f"{number:016x}", key=f"{number}.jpg", label=label, status="STORED", error=None, num_bytes=1, width=2,
        height=3,
    )  # fmt: skip


def neighbor(number: int) -> manyview.Neighbor:
    return manyview.Neighbor(image=image(number), distance=number / 10)


SELECTION = manyview.Selection(
    samples=tuple(manyview.Sample(image=image(number), score=number / 4) for number in range(24)),
    dataset="datasets/clothing",
    strategy="coreset",
    checkpoint=CHECKPOINT,
    version=24,
)
NEAR = manyview.QueryNeighbors(query="a.jpg", neighbors=(neighbor(1), neighbor(2)), error=None, checkpoint=CHECKPOINT)
FAILED = manyview.ImageError(reason="DECODE_FAILED", message="it ends early")
EMBEDDINGS = manyview.Embeddings(
    array=np.zeros((3, 512), dtype=np.float32), checkpoint=CHECKPOINT, keys=("a", "b", "c"), labels=("", "", "")
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (SELECTION, f"<manyview.Selection 24 images of datasets/clothing by coreset, {CHECKPOINT}>"),
        (
            replace(SELECTION, strategy="random", checkpoint=""),
            "<manyview.Selection 24 images of datasets/clothing by random>",
        ),
        (NEAR, "<manyview.QueryNeighbors of 'a.jpg': 2 images, 0.1000 to 0.2000 away>"),
        (replace(NEAR, neighbors=()), "<manyview.QueryNeighbors of 'a.jpg': 0 images>"),
        (replace(NEAR, neighbors=(), error=FAILED), "<manyview.QueryNeighbors of 'a.jpg': DECODE_FAILED>"),
        (
            manyview.DuplicateGroup(members=(neighbor(0), neighbor(1)), checkpoint=CHECKPOINT),
            "<manyview.DuplicateGroup of '0.jpg': 2 images>",
        ),
        (EMBEDDINGS, f"<manyview.Embeddings (3, 512) float32, {CHECKPOINT}>"),
        (replace(EMBEDDINGS, errors={1: FAILED}), f"<manyview.Embeddings (3, 512) float32, {CHECKPOINT}, 1 error>"),
    ],
)
def test_a_value_has_one_line_with_its_shape_or_count(value: Any, text: str) -> None:
    assert repr(value) == text


def test_a_job_is_one_line_without_its_configuration(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a", b"b"], "pets")
    job = client.train("pets", "moco", job_id="j", config={"backbone": "resnet9"})
    text = "<manyview.TrainJobInfo trainJobs/j {}: moco resnet9 on datasets/pets (2 images), step 0, epoch 0>"
    assert repr(job.info) == text.format("QUEUED")
    server.finish_job("trainJobs/j", "FAILED", failure={"reason": "CRASH_LOOP", "message": "died", "hint": ""})
    assert repr(job.refresh()).startswith("<manyview.TrainJobInfo trainJobs/j FAILED CRASH_LOOP: moco")


def test_a_data_set_leaves_its_upload_to_the_report(client: manyview.Client) -> None:
    found = client.upload([b"a"], "pets")
    assert repr(found) == "<manyview.Dataset datasets/pets: 1 image, 0.0 MB>"
    refused = replace(found, num_images=3068, num_bytes=87_000_000, num_labels=10, num_rejected=2)
    assert repr(refused) == "<manyview.Dataset datasets/pets: 3,068 images, 87.0 MB, 10 labels, 2 refused>"
    assert repr(found.upload) == "<manyview.UploadReport 1 found: 1 stored>"


def test_an_estimate_is_printed_as_its_text() -> None:
    assert str(manyview.Estimate(total_s=90.0, step_s=0.5, text="2 minutes on this CPU")) == "2 minutes on this CPU"


def test_a_notebook_shows_the_first_rows_as_a_table() -> None:
    shown = SELECTION._repr_html_()
    assert shown.count("<tr>") == 1 + 20 + 1
    assert "<td>1</td><td>0.0000</td><td>&lt;b&gt;dress&lt;/b&gt;</td><td>0.jpg</td>" in shown
    assert "and 4 more" in shown
    assert "<td>0.2000</td>" in NEAR._repr_html_()


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (
            manyview.Scalars(values={"knn_top1": 0.5, "representation_std": 0.0446, "accepted": 1.0, "loss": 3.45409}),
            "loss 3.454, representation_std 0.0446, knn_top1 0.5",
        ),
        (manyview.Scalars(values={"accepted": 1.0}), "1 scalar"),
        (manyview.StateChange(from_state="QUEUED", to_state="RUNNING", reason="", message=""), "RUNNING"),
        (
            manyview.StateChange(from_state="RUNNING", to_state="FAILED", reason="X", message="it died"),
            "FAILED: it died",
        ),
        (manyview.CheckpointSaved(name=CHECKPOINT, num_bytes=2_760_726), f"saved {CHECKPOINT}, 2.8 MB"),
        (manyview.Rollback(to_step=4, superseded_after_sequence=9), "continues from step 4"),
        (manyview.Alert(reason="COLLAPSE", message="std 0.01"), "COLLAPSE: std 0.01"),
        (manyview.Log(level="INFO", text="it starts"), "it starts"),
        (manyview.SnapshotAdopted(num_images=70, num_added=30), "now trains on 70 images, 30 of them new"),
        (None, "snapshot"),
    ],
)
def test_an_event_is_printed_as_one_line(payload: Any, text: str) -> None:
    event = manyview.Event(sequence=1, kind="snapshot", time=None, attempt=1, step=120, epoch=3, payload=payload)
    assert str(event) == f"step   120, epoch   3  {text}"
