"""A scripted step timer."""

from __future__ import annotations

import os

from manyview_server.link.blocking import Link
from manyview_server.messages.timing import StepTimed, TimeStep, TimingFailed
from support.workers.behaviour import hello, rest_of_the_day


def time_steps(link: Link, behaviour: str) -> None:
    """Answer with the process id as the batch size, or do what the behaviour says."""
    if behaviour == "die at once":
        os._exit(1)
    hello(link)
    while True:
        request = link.receive()
        assert isinstance(request, TimeStep)
        if behaviour == "hang":
            rest_of_the_day()
        if behaviour == "die":
            os._exit(1)
        if behaviour == "refuse":
            link.send(TimingFailed(code="FAILED_PRECONDITION", reason="CONFIG_INVALID", message="no such network"))
        else:
            link.send(StepTimed(batch_size=os.getpid(), step_s=0.5, embed_s=0.001, decode_s=0.02))
