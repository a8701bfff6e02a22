"""A worker looks at the weights of a job, and one that fails refuses nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from manyview_server.supervise.catalogue.weights_check import WeightsCheck


def command(program: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", program)


async def test_the_worker_gets_the_settings_and_its_answer_is_the_problem(tmp_path: Path) -> None:
    program = (
        "import json, sys; words = sys.argv; settings = json.loads(words[words.index('--weights-of') + 1]); "
        "print(json.dumps({'problem': settings['backbone'] + ' ' + words[words.index('--weights-dir') + 1]}))"
    )
    found = await WeightsCheck(command=command(program)).problem(tmp_path, {"backbone": "resnet9"})
    assert found == f"resnet9 {tmp_path}"


@pytest.mark.parametrize(
    "program", ["import sys; sys.exit('no torch')", "print('what?')", "import time; time.sleep(60)", "print('[]')"]
)
async def test_a_worker_that_fails_refuses_nothing(
    program: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check = WeightsCheck(command=command(program), deadline_s=0.5)
    assert await check.problem(tmp_path, {}) == ""
    assert "cannot check the weights of a job" in caplog.text
