"""An event is one line of text, with units."""

from __future__ import annotations

from typing import Any

import pytest

import manyview
from manyview._cli.watching.lines import line


@pytest.mark.parametrize(
    ("kind", "payload", "text"),
    [
        (
            "snapshot",
            manyview.SnapshotAdopted(num_images=70, num_added=30),
            "now trains on 70 images, 30 of them new",
        ),
        ("rollback", manyview.Rollback(to_step=4, superseded_after_sequence=9), "continues from step 4"),
        ("alert", manyview.Alert(reason="IMAGE_QUARANTINED", message="it kills"), "IMAGE_QUARANTINED  it kills"),
    ],
)
def test_an_event_is_a_line_that_says_what_it_means(kind: Any, payload: Any, text: str) -> None:
    event = manyview.Event(sequence=12, kind=kind, time=None, attempt=2, step=7, epoch=1, payload=payload)
    assert line(event) == f"#12 step 7 epoch 1 {kind}: {text}"


def test_scalars_begin_with_the_loss_and_have_units() -> None:
    values = {
        "accuracy_fraction": 0.25,
        "memory_bytes": 9.29624e8,
        "loss": 3.454,
        "images_per_second": 38.44,
        "knn_top1": 0.397,
        "step_ms": 3333.3,
        "representation_std_ratio": 0.831,
        "learning_rate": 0.000123456,
    }
    payload = manyview.Scalars(values=values)
    event = manyview.Event(sequence=3, kind="scalars", time=None, attempt=1, step=10, epoch=0, payload=payload)
    assert line(event) == (
        "#3 step 10 epoch 0 scalars: loss 3.454  kNN top-1 39.7 %  standard deviation 0.83 of even  "
        "accuracy fraction 25.0 %  learning rate 0.0001235  memory 930 MB  speed 38.4 img/s  step 3,333 ms"
    )


def test_a_checkpoint_has_its_size_in_megabytes() -> None:
    payload = manyview.CheckpointSaved(name="trainJobs/j/checkpoints/86", num_bytes=2_760_726)
    event = manyview.Event(sequence=4, kind="checkpoint", time=None, attempt=1, step=86, epoch=1, payload=payload)
    assert line(event).endswith("checkpoint: trainJobs/j/checkpoints/86, 2.8 MB")
