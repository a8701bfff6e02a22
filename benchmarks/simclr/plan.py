"""The trainings, the sides, the settings of lightly that are tried, and the cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "bfloat16"]
Key = dict[str, Any]
Cell = dict[str, Any]
ROUNDS = 3
TEMPERATURE = 0.5
"""lightly's default, for both sides."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training, with the lengths of a turn and of a trial of a setting.

    A turn of a job has one epoch that is not counted, because a job decodes its images in it, and then `epochs` that
    are. A turn of lightly has as many counted steps after `warm_up` others.
    """

    network: str
    image_size: int
    batch_size: int
    steps_per_epoch: int
    epochs: int
    warm_up: int
    trial_steps: int

    @property
    def num_images(self) -> int:
        """The number of images of the data set."""
        return self.batch_size * self.steps_per_epoch

    @property
    def steps(self) -> int:
        """The counted steps of a turn."""
        return self.steps_per_epoch * self.epochs


TRAININGS = {
    "resnet18": Training(
        network="resnet18", image_size=64, batch_size=64, steps_per_epoch=10, epochs=3, warm_up=4, trial_steps=8
    ),
    "resnet50": Training(
        network="resnet50", image_size=224, batch_size=16, steps_per_epoch=3, epochs=2, warm_up=2, trial_steps=3
    ),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to run the loop of lightly."""

    precision: Precision
    workers: int
    """Processes of the loader; with 0, the loop makes the views itself."""
    threads: int
    """Threads of torch in the process of the loop; 0 leaves them as they are, one for each core."""
    channels_last: bool = True
    one_pass: bool = False
    """Do both views of the batch go through the network in one pass?"""
    asleep: bool = True
    """Do waiting threads sleep (OMP_WAIT_POLICY=passive), as in our worker, or spin at first?"""
    kept_heap: bool = True
    """Does the process keep freed memory, as our worker does?"""

    @property
    def label(self) -> str:
        """A short name."""
        parts = [self.precision, _count(self.workers, "worker")]
        parts += [_count(self.threads, "thread")] if self.threads else []
        named = {
            "channels_last": self.channels_last,
            "one pass": self.one_pass,
            "threads asleep": self.asleep,
            "kept heap": self.kept_heap,
        }
        return ", ".join(parts + [name for name, on in named.items() if on])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the sides that take turns."""

    name: str
    is_job: bool
    """Is it a job of a server, or lightly's loop?"""
    precision: Precision
    shipped: bool = False
    """Is it lightly as its example is, in contiguous float32? On a busy machine it may have threads that sleep."""


def sides(fast_bfloat16: bool) -> list[Side]:
    """Return the sides for a CPU that computes in bfloat16 itself, or for one that does not. A job with the precision
    `auto` chooses the first."""
    formats: list[Precision] = ["bfloat16", "float32"] if fast_bfloat16 else ["float32"]
    shipped = Side(name="lightly as shipped", is_job=False, precision="float32", shipped=True)
    found = [Side(name="job", is_job=True, precision=precision) for precision in formats]
    return [*found, shipped, *(Side(name="lightly tuned", is_job=False, precision=one) for one in formats)]


def trials(side: Side) -> list[Setting]:
    """Return the settings that are tried for a side of lightly."""
    if side.shipped:
        plain = Setting(precision="float32", workers=2, threads=0, channels_last=False, kept_heap=False)
        return [replace(plain, workers=workers, asleep=asleep) for asleep in (False, True) for workers in (2, 1, 0)]
    first = Setting(precision=side.precision, workers=2, threads=2)
    shares = [(2, 2), (1, 2), (0, 2), (1, 1)]
    changed = [replace(first, workers=workers, threads=threads) for workers, threads in shares]
    changed += [replace(one, one_pass=True) for one in changed[:3]]
    return changed + [replace(one, kept_heap=False) for one in (changed[0], changed[5])]


def trial_keys(training: Training, fast_bfloat16: bool) -> Iterator[Key]:
    """Yield the keys of all trials of a training. The tuned side is tried in the format that suits the CPU best."""
    first = {side.name: side for side in reversed(sides(fast_bfloat16))}
    for side in reversed(first.values()):
        for setting in [] if side.is_job else trials(side):
            yield trial_key(training, side, setting)


def trial_key(training: Training, side: Side, setting: Setting) -> Key:
    """Return the key of a trial."""
    return {"part": "trial", "network": training.network, "side": side.name, "setting": asdict(setting)}


def round_key(training: Training, number: int) -> Key:
    """Return the key of a round, in which each side has a turn."""
    return {"part": "round", "network": training.network, "size": training.image_size, "round": number}


def best_setting(cells: list[Cell], training: Training, side: Side) -> Setting | None:
    """Return the fastest setting of a side, or None while one of its settings was not tried. A side that was tried in
    bfloat16 alone has the same setting in float32."""
    formats: tuple[Precision, ...] = (side.precision, "bfloat16")
    for precision in formats:
        tried = trials(replace(side, precision=precision))
        keys = [trial_key(training, side, setting) for setting in tried]
        rates = {keys.index(cell["key"]): cell["values"]["images_per_second"] for cell in cells if cell["key"] in keys}
        if len(rates) == len(tried):
            return replace(tried[max(rates, key=lambda at: rates[at])], precision=side.precision)
    return None


def photographs(folder: Path, count: int) -> list[Path]:
    """Return `count` JPEG files from everywhere in a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if len(paths) < count:
        raise SystemExit(f"{folder} has {len(paths)} JPEG files; {count} are needed")
    return paths[:: len(paths) // count][:count]
