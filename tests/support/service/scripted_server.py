"""The server as it is, but its workers are scripted: they start in a tenth of the time, because they need no torch.

`command(SCRIPT)` starts it; the arguments of `manyview-server` follow. Only the description of the torch side is the
real one, because clients read from it what they may ask for.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from support.workers import program, scripted_worker


def command(script: dict[str, Any]) -> list[str]:
    """Return the command of a server whose workers follow this script."""
    return [*program.command("support.service.scripted_server", json.dumps(script))]


def main() -> None:
    from manyview_server.supervise import process

    # The modules that start workers take the command from here when they are imported, which is later.
    process.WORKER_COMMAND = scripted_worker.command(json.loads(sys.argv[1]))
    from manyview_server.__main__ import main as serve

    sys.exit(serve([*sys.argv[2:], "--fork-workers", "off"]))
