"""Rules that raise an alarm when a training does not learn, from the numbers that are logged.

There are two alarms. Each is raised once for as long as its cause lasts.

COLLAPSE: the standard deviation of the features or of the projections (`collapse.representation_std`) is below a
quarter of that of an even spread, 1 / sqrt(D), and below half of the highest reading of the run so far; or it is below
a hundredth of an even spread, whatever the earlier readings. A quarter means that two images have a cosine of about
0.94 on average, because the ratio is near sqrt(1 - mean cosine). The condition on the highest reading exempts untrained
networks without batch norms: they map all images close together, but have not collapsed.

LOSS_AT_CHANCE: the loss is not more than 0.1 below `chance_loss`, the loss of a network that cannot distinguish images
(ln(n + 1) for n negatives). The right key then gets at most 1.1 times the share of any other key.

The condition must last: over `COLLAPSE_STEPS` or `CHANCE_STEPS` and at least `MIN_READINGS` logged steps without a gap,
none of them in the run's first `WARMUP_STEPS` steps nor in the warm-up of the learning rate. A run that recovers
earlier raises no alarm: MoCo with too fast a teacher had 0.04 of an even spread after 50 steps and 0.4 after 250.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

WARMUP_STEPS = 100
COLLAPSE_STEPS = 100
CHANCE_STEPS = 300
MIN_READINGS = 3

LOW_RATIO = 0.25
"""Largest ratio of the spread to that of evenly spread rows that counts as low."""
LOW_SHARE_OF_HIGHEST = 0.5
VANISHED_RATIO = 0.01
CHANCE_MARGIN = 0.1
"""The loss must be lower than chance by more than this, in nats."""

WATCHED = {"projection_std_ratio": "projections", "representation_std_ratio": "features"}
COLLAPSE_HINT = (
    "Lower optimizer.learning_rate, lengthen optimizer.warmup_epochs or raise batch_size. If the method has a teacher, "
    "raise ema_momentum"
)
CHANCE_HINT = (
    "Change optimizer.learning_rate. If the method has a memory bank, make memory_bank_size much smaller than the data "
    "set. If it has a teacher, raise ema_momentum"
)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A report that a training does not learn. `reason` is COLLAPSE or LOSS_AT_CHANCE; `hint` says what to do."""

    reason: str
    message: str
    hint: str


@dataclass(kw_only=True)
class Streak:
    """The time for which a condition has held, over logged steps without a gap."""

    since: int = -1
    readings: int = 0
    reported: bool = False

    def update(self, step: int, holds: bool, num_steps: int) -> bool:
        """Take in a reading. Return True once the condition has held for `num_steps`, but only once for each streak."""
        if not holds:
            self.since, self.readings, self.reported = -1, 0, False
            return False
        self.since = step if self.since < 0 else self.since
        self.readings += 1
        lasting = step - self.since >= num_steps and self.readings >= MIN_READINGS
        is_new = lasting and not self.reported
        self.reported = self.reported or lasting
        return is_new

    def to_json(self) -> dict[str, Any]:
        """Return the state. Checkpoints hold it, so its names must not change."""
        return {"since": self.since, "readings": self.readings, "told": self.reported}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Streak:
        return cls(since=state["since"], readings=state["readings"], reported=state["told"])


@dataclass(kw_only=True)
class Alarms:
    """Turns the scalars of the logged steps into alarms. Call `see` for each logged step, in order.

    The state is JSON. A run that is resumed with it raises the same alarms at the same steps.
    """

    first_step: int = 0
    """Step at which the run started: above 0 if it continues from the checkpoint of another job."""
    warmup_steps: int = 0
    """Steps of the warm-up of the learning rate."""
    highest: dict[str, float] = field(default_factory=dict)
    streaks: dict[str, Streak] = field(default_factory=dict)

    def see(self, step: int, scalars: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms to raise after `step` steps. Scalars that are missing or not finite are skipped."""
        compares = "projection_std_ratio" in scalars
        found = [self._spread(step, name, scalars.get(name, math.nan), compares) for name in WATCHED]
        found.append(self._chance(step, scalars.get("loss", math.nan), scalars.get("chance_loss", math.nan)))
        return [alarm for alarm in found if alarm is not None]

    def to_json(self) -> dict[str, Any]:
        """Return the state. `from_json` returns an equal instance."""
        return {**asdict(self), "streaks": {name: streak.to_json() for name, streak in self.streaks.items()}}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Alarms:
        streaks = {name: Streak.from_json(streak) for name, streak in state["streaks"].items()}
        return cls(**{**state, "streaks": streaks})

    def _spread(self, step: int, name: str, ratio: float, compares: bool) -> Alarm | None:
        if not math.isfinite(ratio):
            return None
        highest = self.highest[name] = max(ratio, self.highest.get(name, 0.0))
        low = (compares and ratio < LOW_RATIO and ratio < LOW_SHARE_OF_HIGHEST * highest) or ratio < VANISHED_RATIO
        if not self._lasts(name, step, low, COLLAPSE_STEPS):
            return None
        bound = LOW_RATIO if compares else VANISHED_RATIO
        message = (
            f"the {WATCHED[name]} have collapsed: since step {self.streaks[name].since} their standard deviation has "
            f"been at most {bound:g} of that of evenly spread ones. At step {step} it is {ratio:.2g}; the highest was "
            f"{highest:.2g}. The loss can fall nevertheless"
        )
        return Alarm(reason="COLLAPSE", message=message, hint=COLLAPSE_HINT)

    def _chance(self, step: int, loss: float, chance: float) -> Alarm | None:
        if not math.isfinite(loss) or not math.isfinite(chance):
            return None
        if not self._lasts("loss", step, loss >= chance - CHANCE_MARGIN, CHANCE_STEPS):
            return None
        message = (
            f"nothing is learned: since step {self.streaks['loss'].since} the loss has been that of guessing. At step "
            f"{step} it is {loss:.4g}; guessing gives {chance:.4g}"
        )
        return Alarm(reason="LOSS_AT_CHANCE", message=message, hint=CHANCE_HINT)

    def _lasts(self, name: str, step: int, holds: bool, num_steps: int) -> bool:
        if step <= max(self.first_step + WARMUP_STEPS, self.warmup_steps):
            return False
        return self.streaks.setdefault(name, Streak()).update(step, holds, num_steps)
