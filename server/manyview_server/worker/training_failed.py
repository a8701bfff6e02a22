"""The error that ends a training run."""

from __future__ import annotations


class TrainingFailed(Exception):
    """Training cannot continue. `reason` is UPPER_SNAKE, `str()` a sentence, `hint` the advice for the job's owner."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint
