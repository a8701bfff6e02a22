"""The pace of a job: do its steps take longer than the measurement by which the job was planned?

A budget of time is a plan and not a limit, because a schedule that is cut off gives a worse model. So when other work
comes, the job takes longer, and its owner must hear that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from manyview_server.rough_duration import about
from manyview_server.system.core_time import BUSY, CoreTime

MIN_WINDOW_S, MIN_STEPS = 30.0, 3
"""The steps that are compared together: at least so many seconds and so many steps."""
SLOWER, CAUGHT_UP = 1.5, 1.2
"""Steps are slower than planned from the first ratio on, and as planned again below the second one."""
MIN_EXTRA_S = 60.0
"""A job that will be late by less is not worth a message."""
STILL_SLOWER = 1.5
"""A further message follows once the steps take this many times as long as at the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceChange:
    """A change that the owner of a job must hear of: it is slower than planned, or no longer is."""

    is_slower: bool
    text: str


class StepPace:
    """Compares the steps of a job with the plan. It belongs to the thread that makes the steps."""

    def __init__(self, planned_step_s: float, core_time: Callable[[], CoreTime] | None = None) -> None:
        """`planned_step_s` 0: nothing is compared. `core_time` returns that of the calling thread."""
        self._planned_step_s = planned_step_s
        self._core_time = core_time or CoreTime.now
        self._since = self._core_time()
        self._num_steps = 0
        self._steps_s = 0.0
        self._reported = 1.0
        """The ratio of the last message."""

    def see(self, num_steps: int, steps_s: float, steps_left: int) -> PaceChange | None:
        """Add steps that took `steps_s` together, waits for images and evaluations excluded. Return a change."""
        self._num_steps += num_steps
        self._steps_s += steps_s
        if not self._planned_step_s or self._steps_s < MIN_WINDOW_S or self._num_steps < MIN_STEPS:
            return None
        step_s, waited = self._steps_s / self._num_steps, self._share_waited()
        self._num_steps, self._steps_s = 0, 0.0
        ratio = step_s / self._planned_step_s
        left_s, planned_s = steps_left * step_s, steps_left * self._planned_step_s
        if ratio >= max(SLOWER, STILL_SLOWER * self._reported) and left_s - planned_s >= MIN_EXTRA_S:
            self._reported = ratio
            return PaceChange(is_slower=True, text=_slower_text(ratio, left_s, planned_s, waited))
        if self._reported > 1.0 and ratio < CAUGHT_UP:
            self._reported = 1.0
            return PaceChange(is_slower=False, text=f"steps are as fast as planned again: {about(left_s)} is left")
        return None

    def _share_waited(self) -> float:
        """Return the share of its time for which the thread waited for a core since the last call."""
        before, self._since = self._since, self._core_time()
        return self._since.share_waited(before)


def _slower_text(ratio: float, left_s: float, planned_s: float, waited: float) -> str:
    times = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
    text = f"steps take {times} times as long as planned: the job needs {about(left_s)} more, not {about(planned_s)}."
    if waited >= BUSY:
        text += f" Other work uses the cores: the job waited for one for {waited:.0%} of the time."
    return f"{text} If that is too long, cancel the job: it keeps a checkpoint that can embed."
