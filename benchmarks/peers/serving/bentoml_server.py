"""Serve the network with BentoML: a form with one file in, JSON out, and its adaptive batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import numpy.typing as npt
from benchmarks.peers.serving.served_model import ServedModel
from benchmarks.peers.serving.settings import Settings

SETTINGS = Settings.read()


@bentoml.service(workers=SETTINGS.workers, traffic={"timeout": 60, "max_concurrency": 512})
class Embed:
    """The service, of which each worker process has a copy."""

    def __init__(self) -> None:
        self._model = ServedModel(SETTINGS)

    @bentoml.api(batchable=True, max_batch_size=SETTINGS.max_batch, max_latency_ms=60_000)
    def embed(self, images: list[Path]) -> npt.NDArray[Any]:
        """Embed a batch."""
        rows: npt.NDArray[np.float32] = self._model.embed([image.read_bytes() for image in images])
        return rows
