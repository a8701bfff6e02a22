"""No command is silent while a server is late: its line moves, and says what the command waits for.

Each call is answered only once the terminal has shown, twice since the call arrived, a text that the table allows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import manyview
from manyview._cli.main import app
from manyview._progress import status_line
from manyview.testing import CallFailure, FakeServer
from support.clients.terminal import Terminal

MODEL = "backbones/resnet18"
WAITING = "manyview: waiting for 127.0.0.1:"
COMMANDS: dict[str, tuple[str, set[str]]] = {
    "create": ("new", {"manyview: creating the data set new"}),
    "upload": ("IN -d new", {"upload to new: ", "manyview: uploading to new"}),
    "images": ("pets", {"manyview: listing images"}),
    "datasets": ("", {"manyview: listing data sets"}),
    "train": ("pets", {"train: creating the job"}),
    "jobs": ("", {"manyview: listing jobs"}),
    "watch": ("ended", {"ended: looking for the job", "trainJobs/ended", "ended: looking at the end of the job"}),
    "logs": ("ended", {"ended: looking for the job", "ended: reading the log"}),
    "pause": ("mine", {"manyview: pausing mine"}),
    "resume": ("mine", {"manyview: resuming mine"}),
    "cancel": ("mine", {"manyview: cancelling mine"}),
    "embed": (f"IN -m {MODEL} -o OUT/rows.npy", {"embed: waiting for the model"}),
    "select": (f"pets -n 1 -m {MODEL}", {"select from pets: finding the model"}),
    "neighbors": (
        f"pets IN -m {MODEL} -k 1",
        {"manyview: reading images", "neighbors in pets: finding the model"},
    ),
    "duplicates": (f"pets -d 0.1 -m {MODEL}", {"duplicates in pets: finding the model"}),
    "export": (
        f"{MODEL} OUT/weights.safetensors",
        {f"manyview: exporting {MODEL}", f"export {MODEL}: waiting for the file"},
    ),
    "checkpoints": ("mine", {"manyview: listing checkpoints"}),
    "preview": ("cat/a.jpg -d pets", {"preview: making views"}),
    "models": ("", {"manyview: listing models"}),
    "methods": ("", {"manyview: listing methods"}),
    "delete": ("pets --yes", {"delete: looking for pets", "delete: deleting pets"}),
    "info": ("", {"manyview: asking for limits and devices"}),
    "health": ("", set()),
}
"""The arguments of each command, and the texts that must explain its calls, beside waiting for the server."""


class LateServer(FakeServer):
    """Answers each call once one of `texts` was shown on the terminal since the call arrived. `seen` are those."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self.texts: set[str] = set()
        self.seen: set[str] = set()

    def _admit(self, rpc: str, context: object) -> CallFailure | None:
        if self.texts:
            self.seen.add(self._terminal.wait_for_one(self.texts, times=2))
        return super()._admit(rpc, context)  # type: ignore[arg-type]


@pytest.fixture
def late(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LateServer]:
    """A server with a data set "pets", and with the jobs "mine" and "ended"."""
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    monkeypatch.setattr(status_line, "REDRAW_S", 0.02)
    server = LateServer(terminal)
    with server:
        with manyview.Client(server.target) as client:
            client.upload(tmp_path / "in", "pets", progress=False)
            for job_id in ("mine", "ended"):
                client.train("pets", job_id=job_id)
        server.finish_job("trainJobs/ended")
        monkeypatch.setenv("MANYVIEW_TARGET", server.target)
        yield server


def known_commands() -> list[str]:
    program = typer.main.get_command(app)
    return list(program.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", known_commands())
def test_a_command_says_what_it_waits_for_in_each_of_its_calls(
    late: LateServer, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert command in COMMANDS, f"say in COMMANDS what `manyview {command}` shows while the server is late"
    line, texts = COMMANDS[command]
    arguments = line.replace("IN", str(tmp_path / "in")).replace("OUT", str(tmp_path)).split()
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    late.texts = texts | {WAITING}
    assert int(app([command, *arguments], standalone_mode=False) or 0) == 0
    assert late.seen == late.texts
