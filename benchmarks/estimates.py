"""Compare the estimate of a job's duration with the time that the job takes, on a machine that does nothing else.

Each job is planned on a server that has measured nothing yet, created, and watched to its end.

    python -m benchmarks.estimates measure --images DIR
    python -m benchmarks.estimates report

DIR holds a folder of photographs for each class.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import Results, table
from benchmarks.starts import Server, timed

import manyview

RESULTS = Results("estimates")
JOBS: dict[str, dict[str, Any]] = {
    "SimCLR, ResNet-18, 64 px": {"method": "simclr", "backbone": "resnet18", "image_size": 64, "epochs": 4},
    "SimCLR, ResNet-18, 128 px": {"method": "simclr", "backbone": "resnet18", "image_size": 128, "epochs": 1},
    "MoCo, ResNet-9 x 0.5, 64 px": {"method": "moco", "backbone": "resnet9", "backbone_width": 0.5, "image_size": 64}
    | {"epochs": 6},
    "BYOL, ResNet-9 x 0.25, 32 px": {"method": "byol", "backbone": "resnet9", "backbone_width": 0.25, "image_size": 32}
    | {"epochs": 20},
    "MAE, ViT-tiny, 64 px": {"method": "mae", "backbone": "vit_tiny", "image_size": 64, "epochs": 10},
}


def main() -> None:
    """Measure one cell, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report"))
    parser.add_argument("--images", type=Path, help="folder of photographs, one folder for each class")
    parser.add_argument("--count", type=int, default=600, help="images that are used")
    arguments = parser.parse_args()
    if arguments.part == "measure":
        if arguments.images is None:
            parser.error("measure needs --images")
        RESULTS.add({"count": arguments.count}, measure(arguments.images, arguments.count))
    print(report())


def measure(images: Path, count: int) -> dict[str, Any]:
    """Return for each job the estimate and the real seconds, and how long the first estimate took to make."""
    files = sorted(file for file in images.rglob("*") if file.is_file())
    chosen = files[:: max(1, len(files) // count)][:count]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data", "on", Path(folder) / "catalogue.json")
        try:
            with manyview.Client(server.address) as client:
                client.upload(chosen, "photographs")
                for name, job in JOBS.items():
                    found[name] = one_job(client, dict(job))
                    print(name, found[name], file=sys.stderr)
        finally:
            server.stop()
    return {"jobs": found, "load_average": os.getloadavg()[0]}


def one_job(client: manyview.Client, config: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of one job: as estimated, as it took, and to make the estimate."""
    method = config.pop("method")
    planned: list[manyview.TrainJobInfo] = []
    answer_s = timed(lambda: planned.append(client.plan("photographs", method, config=config)))
    estimate = planned[0].estimate
    assert estimate is not None
    ended = client.train("photographs", method, config=config).wait()
    assert ended.start_time is not None
    assert ended.end_time is not None
    return {
        "estimated_s": estimate.total_s,
        "took_s": (ended.end_time - ended.start_time).total_seconds(),
        "answer_s": answer_s,
    }


def report() -> str:
    """Return all cells as a table, with the estimate as a multiple of the truth."""
    rows = [["job", "images", "estimated s", "took s", "ratio", "estimate made in s", "load"]]
    for cell in RESULTS.cells():
        values = cell["values"]
        for name, times in values["jobs"].items():
            ratio = times["estimated_s"] / times["took_s"]
            numbers = [
                f"{times['estimated_s']:.0f}",
                f"{times['took_s']:.0f}",
                f"{ratio:.2f}",
                f"{times['answer_s']:.1f}",
            ]
            rows.append([name, str(cell["key"]["count"]), *numbers, f"{values['load_average']:.1f}"])
        ratios = [times["estimated_s"] / times["took_s"] for times in values["jobs"].values()]
        rows.append(["median", "", "", "", f"{statistics.median(ratios):.2f}", "", ""])
    return table(rows)


if __name__ == "__main__":
    main()
