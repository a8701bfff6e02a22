from __future__ import annotations

from support.learning import forked

PROGRAM = """
import sys
import warnings
import torch
from manyview_server.worker import __main__ as entry
warnings.simplefilter("error")
backends = torch.backends
switches = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
before = [switch.fp32_precision for switch in switches]
entry.RUN["selector"] = lambda channel: print(before, [switch.fp32_precision for switch in switches])
entry.WorkerChannel = lambda link, notes: type("Silent", (), {"send": lambda self, message: None})()
entry.socket.socket = lambda **_: None
entry.Link = lambda socket: None
sys.argv = ["worker", "selector", "--link-fd", "0"]
entry.main()
"""


def test_every_worker_switches_tf32_off_before_it_computes_anything() -> None:
    done = forked.run(PROGRAM)
    assert done.returncode == 0, done.stderr
    before, now = done.stdout.strip().split("] ")
    assert "tf32" in before, "torch has another default now: see what the switches are for"
    assert now == "['ieee', 'ieee', 'ieee']"
