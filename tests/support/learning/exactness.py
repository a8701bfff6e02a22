"""The results that two runs of one job must have in common, bit for bit."""

from __future__ import annotations

from safetensors.numpy import load_file

import manyview
from support.service.harness import ServerProcess

EXACT = (
    "loss",
    "gradient_norm",
    "representation_std",
    "projection_std",
    "effective_rank",
    "alignment",
    "uniformity",
    "learning_rate",
    "bank_fill",
    "chance_loss",
    "knn_top1",
    "linear_top1",
    "skipped_steps",
)


def exact(job: manyview.Job) -> list[dict[str, float]]:
    """Return the values that the job computed at each step, without measurements of the machine."""
    return [{name: row[name] for name in ("step", *EXACT) if name in row} for row in job.history().rows]


def last_checkpoint(server: ServerProcess, job: manyview.Job) -> dict[str, dict[str, bytes]]:
    """Return every tensor of the newest checkpoint, by file and name."""
    step = int(job.refresh().latest_checkpoint.rpartition("/")[2])
    (directory,) = (server.data_dir / "jobs" / job.info.uid / "checkpoints").glob(f"{step:09d}-*")
    return {
        path.name: {name: tensor.tobytes() for name, tensor in load_file(path).items()}
        for path in directory.glob("*.safetensors")
    }
