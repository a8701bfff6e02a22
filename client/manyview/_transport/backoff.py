"""The waits between attempts: random, longer after each failure, until there were too many or they took too long."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from manyview._errors import ManyviewError

_FIRST_S = 0.1
_MOST_S = 5.0
# This many doublings are far above `_MOST_S`. Without a bound, 2^1024 would overflow after an hour of failures.
_MAX_DOUBLINGS = 16
# If an attempt seems to take longer, this process was suspended during it.
LONGEST_ATTEMPT_S = 60.0
_LOG = logging.getLogger("manyview")


class Backoff:
    """Counts failures in a row. `wait` sleeps before the next attempt, or raises the failure when it is time to give
    up.

    Delays are drawn evenly from [0, 0.1 s * 2^failures], at most 5 s. A server's `retry_after_s` is added. The logger
    "manyview" logs each delay at level INFO. `longest_attempt_s` is the longest time that an attempt can take. Time
    beyond it does not count towards `give_up_after_s`, because this process was suspended then.
    """

    def __init__(
        self,
        *,
        max_attempts: int | None = None,
        give_up_after_s: float | None = None,
        longest_attempt_s: float = LONGEST_ATTEMPT_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_attempts = max_attempts
        self._give_up_after_s = give_up_after_s
        self._longest_attempt_s = longest_attempt_s
        self._sleep = sleep
        self._clock = clock
        self._failures = 0
        self._failed_s = 0.0
        self._attempt_began = 0.0

    def succeeded(self) -> None:
        """Reset the count of failures, because the connection works again."""
        self._failures = 0

    def wait(self, error: ManyviewError, *, at_most_s: float | None = None) -> None:
        """Sleep before the next attempt. Raises `error` if attempts or time are used up, or if the sleep would take
        `at_most_s` or longer."""
        if self._failures == 0:
            self._failed_s = 0.0
        else:
            self._failed_s += min(self._clock() - self._attempt_began, self._longest_attempt_s)
        self._failures += 1
        delay_s = random.uniform(0, min(_MOST_S, _FIRST_S * 2 ** min(self._failures, _MAX_DOUBLINGS)))
        delay_s += error.retry_after_s or 0.0
        if self._max_attempts is not None and self._failures >= self._max_attempts:
            raise error
        if self._give_up_after_s is not None and self._failed_s + delay_s > self._give_up_after_s:
            raise error
        if at_most_s is not None and delay_s >= at_most_s:
            raise error
        _LOG.info("failure %d in a row, next attempt in %.1f s: %s", self._failures, delay_s, error)
        self._sleep(delay_s)
        self._failed_s += delay_s
        self._attempt_began = self._clock()
