"""The longest callback is found in the logs of servers, and is reported once."""

from __future__ import annotations

import json
from pathlib import Path

from support.service.loop_times import LoopTimes


def line(ms: int, name: str) -> str:
    message = f"longest callback of the event loop: {ms} ms (3 ms of processor time) in {name}"
    return json.dumps({"time": "x", "level": "info", "message": message}) + "\n"


def test_the_longest_of_what_is_new_in_all_logs_is_found(tmp_path: Path) -> None:
    times, logs = LoopTimes(), [tmp_path / "a.log", tmp_path / "b.log", tmp_path / "missing.log"]
    logs[0].write_text(line(60, "A.run") + line(90, "B.run"))
    logs[1].write_text('{"message": "serving"}\n' + line(70, "C.run"))
    assert times.longest(logs) == (90, "B.run")
    assert times.longest(logs) == (0, "")
    with logs[0].open("a") as file:
        file.write(line(90, "B.run"))  # said again at the end
    assert times.longest(logs) == (0, "")
    with logs[1].open("a") as file:
        file.write(line(400, "D.run"))
    assert times.longest(logs) == (400, "D.run")
