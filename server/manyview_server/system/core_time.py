"""The time for which a thread runs, and for which it waits for a core that other work has.

The load of a machine also counts work that disturbs nobody, and in a container it counts that of the host. The kernel
counts the waits of each thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BUSY = 0.25
"""Other work uses the cores if a thread waits for one for this share of the time in which it could run."""

SCHEDULER_FILE = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTime:
    """The nanoseconds for which a thread has run, and for which it has waited for a core."""

    ran: int = 0
    waited: int = 0

    @classmethod
    def now(cls) -> CoreTime:
        """Return the core time of the calling thread so far, or zeros where the kernel does not count it."""
        try:
            ran, waited, _ = SCHEDULER_FILE.read_text().split()
        except (OSError, ValueError):
            return cls()
        return cls(ran=int(ran), waited=int(waited))

    def share_waited(self, since: CoreTime) -> float:
        """Return the share of the time since then in which the thread waited for a core, of that in which it could
        run."""
        ran, waited = self.ran - since.ran, self.waited - since.waited
        return waited / (ran + waited) if waited > 0 else 0.0
