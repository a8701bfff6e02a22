"""The checkpoint that an attempt continues from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyview_server.learn.backbones import WeightsNotFinite
from manyview_server.learn.evaluation.alarms import Alarms
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.messages.training import Adoption
from manyview_server.store.jobs import checkpoints
from manyview_server.worker import checkpoint_state
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training_failed import TrainingFailed

INCOMPATIBLE_HINT = (
    "Continue it with the version and the settings of the job that wrote it, or start again with a clone of the job."
)
DAMAGED_HINT = "Continue from an earlier checkpoint in a new job, or start again with a clone of the job."
REQUIRED_KEYS = {"step", "settings", "numerics", "num_images", "num_threads", "num_steps", "torch"}
"""The keys that every release has written into `state.json`."""


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A verified checkpoint: the job's own, or a copy of another job's with which this job started."""

    directory: Path
    state: dict[str, Any]
    """The contents of `state.json`."""

    @classmethod
    def read(cls, directory: Path) -> ResumePoint:
        """Verify the files of a checkpoint, and read its `state.json`.

        Raises:
            CheckpointCorrupt: a file is damaged. The front verified it a moment ago: this ends the process, and the
                front looks again.
            TrainingFailed: another release wrote it.
        """
        checkpoints.verify(directory)
        state = checkpoints.read_state(directory)
        if missing := sorted(REQUIRED_KEYS - set(state)):
            message = f"{directory.name} was written by another release: it lacks {', '.join(missing)}"
            raise TrainingFailed("CHECKPOINT_INCOMPATIBLE", message, INCOMPATIBLE_HINT)
        return cls(directory=directory, state=state)

    @property
    def is_own(self) -> bool:
        """Did this job write it? A copy of another job's checkpoint has attempt 0."""
        name = checkpoints.parse_name(self.directory)
        return name is not None and name[1] > 0

    @property
    def step(self) -> int:
        """The steps that were made when it was written."""
        return int(self.state["step"])

    @property
    def num_steps(self) -> int:
        """The steps of the whole job that wrote it."""
        return int(self.state["num_steps"])

    @property
    def numerics(self) -> Numerics:
        """The number format and memory layout that it was computed in."""
        return Numerics(**self.state["numerics"])

    @property
    def initial_weights(self) -> dict[str, str] | None:
        """The file that the backbone started with, and its SHA-256."""
        weights: dict[str, str] | None = self.state.get("initial_weights")
        return weights

    @property
    def alarms(self) -> Alarms | None:
        """The state of the alarms. None in a checkpoint of a release that had no alarms."""
        return Alarms.from_json(self.state["alarms"]) if "alarms" in self.state else None

    @property
    def owes_baselines(self) -> bool:
        """Were its baselines not measured yet? Earlier releases measured them before the first step."""
        return bool(self.state.get("owes_baselines", False))

    @property
    def owes_evaluation(self) -> bool:
        """Did a stop end the evaluation that was due at its step? Earlier releases left such an evaluation out."""
        return bool(self.state.get("owes_evaluation", False))

    @property
    def adoptions(self) -> tuple[Adoption, Adoption]:
        """The images that the job started with, and those that it trained on when it wrote this."""
        first, current = (Adoption(**adoption) for adoption in self.state["adoptions"])
        return first, current

    def restore(self, method: Method, optimizer: Optimizer, probe: LinearProbe | None) -> None:
        """Load the tensors. Raises TrainingFailed if they do not fit or are not finite."""
        try:
            checkpoint_state.restore(self.directory, method, optimizer)
            if probe is not None:
                checkpoint_state.restore_probe(self.directory, probe)
        except WeightsNotFinite as error:
            raise TrainingFailed("CHECKPOINT_CORRUPT", f"{self.directory.name}: {error}", DAMAGED_HINT) from error
        except ValueError as error:
            raise TrainingFailed("CHECKPOINT_INCOMPATIBLE", str(error), INCOMPATIBLE_HINT) from error
