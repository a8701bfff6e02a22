"""When to say that a training does not learn: rules on the numbers that are logged, with their reasons.

Two alarms, each once for as long as its cause lasts:

COLLAPSE: the standard deviation of the features or of the projections (`collapse.representation_std`) is below a
quarter of that of an even spread, 1 / sqrt(D), and below half of the highest reading of the run so far; or it is below
a hundredth, whatever was before. A quarter means that two images have a cosine of about 0.94 on average, since the
ratio is near sqrt(1 - mean cosine). The second condition is for networks that begin so: untrained ones without batch
norms map all images close together, and have not collapsed.

LOSS_AT_CHANCE: the loss is not below `chance_loss` (that of a network that tells nothing apart, ln(n + 1) for n
negatives) by more than 0.1: the right key gets at most 1.1 times the share of any other.

What is so must last: over `COLLAPSE_STEPS` or `CHANCE_STEPS` and at least `MIN_READINGS` logged steps without a gap,
none of them in the run's first `WARMUP_STEPS` steps nor in the warm-up of the learning rate. A run that recovers before
that is not spoken of: MoCo with too fast a teacher had 0.04 of an even spread after 50 steps and 0.4 after 250.
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
"""Of the spread to that of evenly spread rows."""
LOW_SHARE_OF_HIGHEST = 0.5
VANISHED_RATIO = 0.01
CHANCE_MARGIN = 0.1
"""In nats."""

WATCHED = {"projection_std_ratio": "projections", "representation_std_ratio": "features"}
COLLAPSE_HINT = (
    "Lower optimizer.learning_rate, lengthen optimizer.warmup_epochs or raise batch_size; where there is a teacher, "
    "raise ema_momentum"
)
CHANCE_HINT = (
    "Change optimizer.learning_rate; where there is a memory bank, make memory_bank_size much smaller than the data "
    "set; where there is a teacher, raise ema_momentum"
)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A training that does not learn. `reason` is COLLAPSE or LOSS_AT_CHANCE, `hint` what to do about it."""

    reason: str
    message: str
    hint: str


@dataclass(kw_only=True)
class Streak:
    """For how long something has been so, over logged steps without a gap."""

    since: int = -1
    readings: int = 0
    told: bool = False

    def see(self, step: int, so: bool, num_steps: int) -> bool:
        """Whether it has now been so for `num_steps`; true once, until it was not so in between."""
        if not so:
            self.since, self.readings, self.told = -1, 0, False
            return False
        self.since = step if self.since < 0 else self.since
        self.readings += 1
        lasting = step - self.since >= num_steps and self.readings >= MIN_READINGS
        news = lasting and not self.told
        self.told = self.told or lasting
        return news


@dataclass(kw_only=True)
class Alarms:
    """Give it the scalars of each logged step, in order. Its state is JSON: a run that goes on from a checkpoint with
    it says the same at the same steps."""

    first_step: int = 0
    """With which the run began: above 0 where it goes on from another one's checkpoint."""
    warmup_steps: int = 0
    """Of the learning rate."""
    highest: dict[str, float] = field(default_factory=dict)
    streaks: dict[str, Streak] = field(default_factory=dict)

    def see(self, step: int, scalars: Mapping[str, float]) -> list[Alarm]:
        """What is to be said after `step` steps. What is missing in `scalars` or not finite is passed over."""
        compares = "projection_std_ratio" in scalars
        found = [self._spread(step, name, scalars.get(name, math.nan), compares) for name in WATCHED]
        found.append(self._chance(step, scalars.get("loss", math.nan), scalars.get("chance_loss", math.nan)))
        return [alarm for alarm in found if alarm is not None]

    def to_json(self) -> dict[str, Any]:
        """The state; `from_json` gives back an equal instance."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Alarms:
        streaks = {name: Streak(**streak) for name, streak in state["streaks"].items()}
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
            f"the {WATCHED[name]} have collapsed: since step {self.streaks[name].since} their standard deviation is "
            f"at most {bound:g} of that of evenly spread ones, at step {step} {ratio:.2g}; its highest was "
            f"{highest:.2g}. The loss may fall all the same"
        )
        return Alarm(reason="COLLAPSE", message=message, hint=COLLAPSE_HINT)

    def _chance(self, step: int, loss: float, chance: float) -> Alarm | None:
        if not math.isfinite(loss) or not math.isfinite(chance):
            return None
        if not self._lasts("loss", step, loss >= chance - CHANCE_MARGIN, CHANCE_STEPS):
            return None
        message = (
            f"nothing is learned: since step {self.streaks['loss'].since} the loss is that of guessing, at step {step} "
            f"{loss:.4g} where guessing gives {chance:.4g}"
        )
        return Alarm(reason="LOSS_AT_CHANCE", message=message, hint=CHANCE_HINT)

    def _lasts(self, name: str, step: int, so: bool, num_steps: int) -> bool:
        if step <= max(self.first_step + WARMUP_STEPS, self.warmup_steps):
            return False
        return self.streaks.setdefault(name, Streak()).see(step, so, num_steps)
