"""The commands of a walk, each on a terminal of its own, and what was measured of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.first_hour.terminal_recording import TerminalRecording

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 1800.0
STOPPED = "stop the server"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the walk."""

    name: str
    took_s: float
    silence_s: float


class Steps:
    """Run the programs of one folder in one environment, and keep what they took."""

    def __init__(self, programs: Path, environment: Mapping[str, str]) -> None:
        self._programs = programs
        self._environment = environment
        self._steps: list[Step] = []

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The steps so far, as JSON has them."""
        return [asdict(step) for step in self._steps]

    def start(self, program: str, *arguments: object, folder: Path | None = None) -> TerminalRecording:
        """Start a program in `folder`, which is the current one by default."""
        command = [str(self._programs / program), *map(str, arguments)]
        return TerminalRecording(command, self._environment, folder)

    def run(self, name: str, program: str, *arguments: object, folder: Path | None = None) -> TerminalRecording:
        """Run a program to its end, as the step `name`. Raises RuntimeError if it fails."""
        return self.end(name, self.start(program, *arguments, folder=folder))

    def end(self, name: str, running: TerminalRecording) -> TerminalRecording:
        """Wait for the end of a program that was started. Raises RuntimeError if it fails."""
        if running.wait(PATIENCE_S):
            raise RuntimeError(f"{name}: {running.text[-2000:]}")
        self.add(name, running)
        return running

    def add(self, name: str, running: TerminalRecording, from_s: float = 0.0, until_s: float | None = None) -> None:
        """Add a part of what was recorded: from the start to now, if nothing else is said."""
        until_s = running.now_s if until_s is None else until_s
        silence_s = running.longest_silence_s(from_s, until_s)
        self._steps.append(Step(name=name, took_s=round(until_s - from_s, 2), silence_s=round(silence_s, 2)))
        print(f"{name}: {until_s - from_s:.1f} s, longest silence {silence_s:.1f} s", flush=True)

    @contextmanager
    def server(self, name: str, *arguments: object) -> Iterator[None]:
        """Serve within the block. The start is the step `name`, and Ctrl-C at the end is a step, too."""
        running = self.start("manyview-server", "serve", "--exit-with-parent", *arguments)
        try:
            self.add(name, running, until_s=running.wait_for(lambda text: '"serving"' in text, PATIENCE_S))
            yield
        finally:
            began_s = running.now_s
            running.interrupt()
            running.wait(PATIENCE_S)
            self.add(STOPPED, running, from_s=began_s)
