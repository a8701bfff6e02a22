"""The sides, the cells, and the batching of each peer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

MANYVIEW, STUBS = "manyview", "manyview, stubs"
"""manyview through its own client, and through the generated gRPC stubs alone."""
PEERS = ("mosec", "litserve", "bentoml", "ray")
SIZES = (64, 224)
NUMBER_FORMATS = ("float32", "bfloat16")
CALLERS = (1, 8, 32, 128)
ROUNDS = 3

Key = dict[str, Any]
Cell = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Batching:
    """A setting of a peer: how it shares its work among processes, and images among batches."""

    max_batch: int
    wait_ms: int
    workers: int
    threads: int
    fast_queue: bool = False

    @property
    def label(self) -> str:
        """Return a short name: the batch and the wait, then workers and their threads."""
        queue = ", fast queue" if self.fast_queue else ""
        return f"{self.max_batch} in {self.wait_ms} ms, {self.workers} x {self.threads}{queue}"


def _one(max_batch: int, wait_ms: int, *, fast_queue: bool = False) -> Batching:
    return Batching(max_batch=max_batch, wait_ms=wait_ms, workers=1, threads=2, fast_queue=fast_queue)


def _two(max_batch: int, wait_ms: int, *, fast_queue: bool = False) -> Batching:
    return Batching(max_batch=max_batch, wait_ms=wait_ms, workers=2, threads=1, fast_queue=fast_queue)


CANDIDATES: dict[str, tuple[Batching, ...]] = {
    "mosec": (_one(16, 5), _two(8, 2), _two(16, 5), _two(4, 1)),
    "litserve": (_one(16, 5), _two(8, 2), _two(16, 5), _one(16, 5, fast_queue=True)),
    # BentoML learns how long to wait.
    "bentoml": (_one(16, 0), _two(8, 0), _two(16, 0)),
    "ray": (_one(16, 5), _two(8, 2), _two(16, 5)),
}
SWEPT_CALLERS = CALLERS[:3]


def sweep_keys() -> Iterator[Key]:
    """Yield the keys of all trials of batching, so that the peers take turns."""
    for at in range(max(map(len, CANDIDATES.values()))):
        for peer, tried in CANDIDATES.items():
            for image_size in SIZES:
                if at < len(tried):
                    yield {"part": "sweep", "side": peer, "image_size": image_size, "batching": asdict(tried[at])}


def round_keys(
    sides: tuple[str, ...] = (MANYVIEW, *PEERS),
    number_formats: tuple[str, ...] = NUMBER_FORMATS,
    rounds: int = ROUNDS,
) -> Iterator[Key]:
    """Yield the keys of all cells, round by round. In each, the sides take turns at each number format and size."""
    for number in range(rounds):
        for number_format in number_formats:
            for image_size in SIZES:
                for side in sides:
                    yield round_key(side, image_size, number_format, number)


def round_key(side: str, image_size: int, number_format: str, number: int) -> Key:
    """Return the key of a cell."""
    return {
        "part": "round",
        "side": side,
        "image_size": image_size,
        "number_format": number_format,
        "round": number,
    }


def best_batching(cells: list[Cell], peer: str, image_size: int) -> Batching | None:
    """Return the batching whose rates have the largest geometric mean over the numbers of callers, or None if none was
    tried. One server must serve few callers and many."""
    tried = [
        (rate(cell), cell["key"]["batching"])
        for cell in cells
        if cell["key"]["part"] == "sweep" and (cell["key"]["side"], cell["key"]["image_size"]) == (peer, image_size)
    ]
    return Batching(**max(tried, key=lambda one: one[0])[1]) if tried else None


def rate(cell: Cell) -> float:
    """Return the geometric mean of the images per second of a cell's levels."""
    rates = [level["images_per_second"] for level in cell["values"]["levels"]]
    return math.exp(sum(math.log(max(one, 1e-9)) for one in rates) / len(rates))
