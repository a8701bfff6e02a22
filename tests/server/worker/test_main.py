"""The entry of every worker."""

from __future__ import annotations

from pathlib import Path

from support.learning import forked

PROGRAM = """
from pathlib import Path
from manyview_server.worker import __main__ as entry
entry._prefer_as_oom_victim()
print(Path("/proc/self/oom_score_adj").read_text())
"""


def test_the_kernel_takes_a_worker_before_the_server_when_memory_runs_out() -> None:
    done = forked.run(PROGRAM)
    assert int(done.stdout) > int(Path("/proc/self/oom_score_adj").read_text())


def test_no_worker_imports_a_library_of_networks_before_one_is_wanted() -> None:
    code = (
        "import sys; from manyview_server.worker import __main__, describe; describe.describe(); "
        "print({'torchvision', 'timm', 'huggingface_hub'} & set(sys.modules))"
    )
    done = forked.run(code)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr
