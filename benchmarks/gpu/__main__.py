"""`python -m benchmarks.gpu`: run all sections on this machine's GPU, or try every line on the CPU with --quick."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import tomllib
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "client"), str(ROOT / "server")]  # a bare machine has not installed manyview
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":")

from benchmarks.gpu.document import Document, failures, figures_table, sections_table  # noqa: E402
from benchmarks.gpu.plan import RUN_S, SECTIONS  # noqa: E402
from benchmarks.gpu.sections import Runner, end_process_at  # noqa: E402
from benchmarks.results import FOLDER  # noqa: E402

from benchmarks.gpu import wheels  # noqa: E402  (it needs the paths above, as all below)


def main() -> int:
    """Parse the arguments, run, and print the tables. The exit status is 0 if every check passed."""
    arguments = parse_arguments()
    if arguments.wheels:
        holds = wheels.listed(arguments.installed.read_text()) if arguments.installed else wheels.installed_version
        print(*wheels.missing(version_of=holds), sep="\n")
        return 0
    began = time.monotonic()
    ends_at = began + arguments.seconds
    end_process_at(ends_at)

    import torch
    from benchmarks.gpu.bench import Bench, card_name, describe

    name = arguments.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    quick = arguments.quick or device.type == "cpu"
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here. Try the script with --device cpu --quick.", file=sys.stderr)
        return 2
    if device.type == "cuda":
        torch.cuda.set_device(device)
    card = card_name(device)
    where = (
        FOLDER / f"gpu-{card}.json" if device.type == "cuda" and not quick else ROOT / "demo-output" / "gpu-quick.json"
    )
    head = describe(device, quick=quick)
    print(*(f"{key}: {value}" for key, value in head.items()), sep="\n")
    if lacking := wheels.missing():
        print(f"Not installed (sections that need them are skipped): {' '.join(lacking)}")
    document = Document(arguments.out or where, head, resume=arguments.resume)
    with tempfile.TemporaryDirectory(prefix="manyview-gpu-") as scratch:
        state_version(Path(scratch) / "metadata")
        bench_for = partial(Bench, device=device, quick=quick, scratch=Path(scratch))
        chosen = [section for section in SECTIONS if not arguments.only or section.name in arguments.only]
        status = Runner(document, ends_at).run(chosen, bench_for)
    print("", sections_table(document.content), "", figures_table(document.content), "", sep="\n")
    print(*failures(document.content), sep="\n")
    print(f"{time.monotonic() - began:.0f} s. Written to {document.path}")
    return status


def state_version(folder: Path) -> None:
    """Let the server find its own version on a machine that has not installed it: a server asks for it as it starts."""
    if wheels.installed_version("manyview") is not None:
        return
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    info = folder / f"manyview-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: manyview\nVersion: {version}\n")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", metavar="NAME", help="cuda, cuda:N or cpu; the default is the GPU, if there is one")
    parser.add_argument(
        "--quick", action="store_true", help="use tiny sizes, only to run every line; the figures mean nothing"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/results/gpu-CARD.json")
    parser.add_argument(
        "--seconds", type=float, default=RUN_S, help="time limit of the whole run; default: %(default)s"
    )
    parser.add_argument("--resume", action="store_true", help="keep the sections of --out that passed")
    names = [section.name for section in SECTIONS]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="SECTION", help=f"run only these sections: {', '.join(names)}"
    )
    parser.add_argument("--wheels", action="store_true", help="print the pinned packages that are missing, and exit")
    parser.add_argument(
        "--installed",
        type=Path,
        metavar="FILE",
        help="with --wheels: a file with the names of the packages that another machine has, one a line",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
