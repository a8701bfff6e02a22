"""Show a collapse: SimSiam on CIFAR-10 with its stop-gradient and without, and the other methods in comparison.

Without the stop-gradient the loss is almost at its minimum, while all images have the same prediction. Only the spread
of the predictions shows it.

Protocol: 5,000 training images (the first 500 of each class), ResNet-9 at quarter width with the small-image stem, 32
px, batches of 64, 800 steps, and otherwise each method's defaults. The reporter of a job logs every 10 steps. kNN uses
2,000 test images, k = 20 and temperature 0.07. One call measures one cell, in 3 to 10 minutes on 2 cores. A call
without a method draws docs/pictures/collapse.png.

    python -m benchmarks.collapse --images cifar10 --method simsiam --seed 0
    python -m benchmarks.collapse --images cifar10 --method simsiam --without-stop-gradient --seed 0
    python -m benchmarks.collapse
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from benchmarks.results import Results, table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from manyview_server.learn import methods, optimizers
from manyview_server.learn.evaluation.alarms import LOW_RATIO, Alarms
from manyview_server.learn.evaluation.collapse import effective_rank_of_gram
from manyview_server.learn.evaluation.knn import knn_rankings, topk_accuracy
from manyview_server.learn.losses import negative_cosine
from manyview_server.learn.methods import METHODS, Method, Moment, StepOutput, Views, build_method
from manyview_server.learn.methods.distillation.simsiam import SimSiam, SimSiamSettings
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import StepResult, train_step
from manyview_server.learn.views import make_views
from manyview_server.messages.message import Message
from manyview_server.messages.training import AlertRaised, ScalarsLogged
from manyview_server.worker.evaluation import diagnostics
from manyview_server.worker.training.reporter import StepReporter

RESULTS = Results("collapse")
K, TEMPERATURE = 20, 0.07
"""Neighbors that vote on the class of a test image, and the temperature of their votes."""
PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "collapse.png"
TRAIN_PER_CLASS, TEST_PER_CLASS = 500, 200
NUM_STEPS, BATCH, LOG_EVERY, SIDE = 800, 64, 10, 32
CONFIG = {
    "backbone": "resnet9",
    "backbone_width": 0.25,
    "image_size": SIDE,
    "batch_size": BATCH,
    "precision": "float32",
}
REPORTED = (
    "projection_std",
    "projection_std_ratio",
    "representation_std",
    "representation_std_ratio",
    "effective_rank",
    "alignment",
    "uniformity",
)
"""Metrics that are kept of each logged step."""
INK, MUTED, HEALTHY, COLLAPSED = "#1f2933", "#8a94a0", "#1769aa", "#c0392b"


class WithoutStopGradient(SimSiam):
    """SimSiam whose gradient also reaches the predicted side: the paper's figure 2, and a collapse by design."""

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views
        h = self.encoder(pair.flatten(0, 1))
        z = self.head(h)
        p = self.predictor(z)
        (z0, z1), (p0, p1) = z.chunk(2), p.chunk(2)
        loss = (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2
        return StepOutput(loss=loss, representation=h.detach(), projection=p.detach())


class Collected:
    """A channel that keeps the messages that are sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)


def main() -> None:
    """Measure one cell, or draw the picture. Then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--without-stop-gradient", action="store_true", help="only for simsiam")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.method:
        if arguments.images is None:
            parser.error("--images is needed to measure a cell")
        if arguments.without_stop_gradient and arguments.method != "simsiam":
            parser.error("--without-stop-gradient works only with simsiam")
        name = arguments.method + ("_without_stop_gradient" if arguments.without_stop_gradient else "")
        key = {"method": name, "seed": arguments.seed}
        if RESULTS.find(**key) is None:
            RESULTS.add(
                key, measure(arguments.images, arguments.method, arguments.without_stop_gradient, arguments.seed)
            )
    elif RESULTS.find(method="simsiam", seed=0) and RESULTS.find(method="simsiam_without_stop_gradient", seed=0):
        draw(PICTURE)
    print(report())


def measure(folder: Path, name: str, without_stop_gradient: bool, seed: int) -> dict[str, Any]:
    """Train, and return the logged scalars, the alerts, and the time that the diagnostics take."""
    train, _ = read(folder / "train", TRAIN_PER_CLASS)
    settings = methods.resolve(name, {**CONFIG, "seed": seed, "max_steps": NUM_STEPS})
    method = build_method(settings, len(train))
    if without_stop_gradient:
        weights = method.state_dict()
        method = WithoutStopGradient(cast(SimSiamSettings, settings.for_num_images(len(train))))
        method.load_state_dict(weights)
        method = method.to(memory_format=torch.channels_last)
    sent = Collected()
    reporter = StepReporter(sent, every_steps=LOG_EVERY, batch_size=BATCH, alarms=Alarms())
    result, seconds = steps(method, settings, train, reporter)
    logged = [message for message in sent.messages if isinstance(message, ScalarsLogged)]
    return {
        "rows": [
            {"step": message.step, "loss": message.values["loss"]}
            | {name: message.values[name] for name in REPORTED if name in message.values}
            for message in logged
        ],
        "projection_dim": method.projection_dim,
        "feature_dim": method.encoder.feature_dim,
        "alerts": [
            {"step": message.step, "reason": message.reason, "message": message.message}
            for message in sent.messages
            if isinstance(message, AlertRaised)
        ],
        "knn_top1": nearest(method, settings, folder),
        "step_ms": 1e3 * seconds / NUM_STEPS,
        "diagnostics_ms": diagnostics_ms(result),
        "threads": torch.get_num_threads(),
    }


def steps(method: Method, settings: TrainSettings, images: Tensor, reporter: StepReporter) -> tuple[StepResult, float]:
    """Run all steps. Returns the result of the last one, and the seconds of all steps with their reports."""
    optimizer = optimizers.build(settings.optimizer, method, BATCH)
    generator = torch.Generator().manual_seed(settings.seed)
    steps_per_epoch = len(images) // BATCH
    began = time.perf_counter()
    for step in range(NUM_STEPS):
        epoch, at = divmod(step, steps_per_epoch)
        if at == 0:
            order = torch.randperm(len(images), generator=generator)
        rows = order[at * BATCH : (at + 1) * BATCH]
        views = make_views(
            images[rows],
            torch.full((BATCH, 2), SIDE),
            rows,
            settings.views,
            image_size=SIDE,
            seed=settings.seed,
            epoch=epoch,
            memory_format=torch.channels_last,
        )
        moment = Moment(step=step, total_steps=NUM_STEPS, steps_per_epoch=steps_per_epoch)
        result = train_step(method, optimizer, views, rows, moment)
        reporter.step_done(step + 1, epoch, result)
    reporter.flush()
    return result, time.perf_counter() - began


def diagnostics_ms(result: StepResult, repeats: int = 20) -> float:
    """Return the milliseconds that a logged step spends on the metrics of its features."""
    began = time.perf_counter()
    for _ in range(repeats):
        diagnostics.spread(result)
        diagnostics.geometry(result, BATCH)
        effective_rank_of_gram(diagnostics.gram(result, BATCH))
    return 1e3 * (time.perf_counter() - began) / repeats


def read(folder: Path, per_class: int) -> tuple[Tensor, Tensor]:
    """Read the first images of each class, (N, 3, 32, 32) uint8, and their labels (N,)."""
    pixels, labels = [], []
    for number, kind in enumerate(sorted(folder.iterdir())):
        for path in sorted(kind.iterdir())[:per_class]:
            with Image.open(path) as image:
                pixels.append(np.asarray(image.convert("RGB")))
            labels.append(number)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def nearest(method: Method, settings: TrainSettings, folder: Path) -> float:
    """Return the kNN accuracy of test images, with the training images as the bank."""
    normalize = settings.views.normalize
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))

    def features(images: Tensor) -> Tensor:
        return torch.cat([method.embed((part / 255 - mean) / std) for part in images.split(500)])

    (train, labels), (test, wanted) = read(folder / "train", TRAIN_PER_CLASS), read(folder / "test", TEST_PER_CLASS)
    ranking = knn_rankings(features(test), features(train), labels, 10, [(K, TEMPERATURE)])[K, TEMPERATURE]
    return float(topk_accuracy(ranking, wanted, 1))


def report() -> str:
    """Return a table with a row for each cell, and then the two runs of SimSiam side by side."""
    header = ["method", "seed", "loss", "projection std x sqrt(P)", "lowest from step 100", "features' std x sqrt(D)"]
    rows = [[*header, "rank", "kNN", "alert", "diagnostics"]]
    for cell in RESULTS.cells():
        logged, values = cell["values"]["rows"], cell["values"]
        first, last = logged[0], logged[-1]
        lowest = min((row["projection_std_ratio"] for row in logged[9:] if "projection_std_ratio" in row), default=None)
        alerts = ", ".join(f"{alert['reason']} at {alert['step']}" for alert in values["alerts"]) or "none"
        share = values["diagnostics_ms"] / LOG_EVERY / values["step_ms"]
        rows.append(
            [
                cell["key"]["method"],
                str(cell["key"]["seed"]),
                f"{first['loss']:.2f} -> {last['loss']:.2f}",
                change(logged, "projection_std_ratio"),
                "-" if lowest is None else f"{lowest:.3f}",
                change(logged, "representation_std_ratio"),
                f"{first['effective_rank']:.0f} -> {last['effective_rank']:.0f}",
                f"{100 * values['knn_top1']:.1f}",
                alerts,
                f"{values['diagnostics_ms']:.1f} ms, {100 * share:.2f} %",
            ]
        )
    return f"{table(rows)}\n\n{side_by_side()}"


def change(rows: list[dict[str, float]], name: str) -> str:
    """A scalar's first and last value."""
    return f"{rows[0][name]:.3f} -> {rows[-1][name]:.3f}" if name in rows[0] else "-"


def side_by_side(seed: int = 0) -> str:
    """Loss and std of the predictions of both runs of SimSiam, each epoch or so."""
    cells = [RESULTS.find(method=name, seed=seed) for name in ("simsiam_without_stop_gradient", "simsiam")]
    if None in cells:
        return ""
    collapsed, healthy = (cell["values"] for cell in cells if cell is not None)
    rows = [["step", "collapsed: loss", "std", "healthy: loss", "std"]]
    for one, other in zip(collapsed["rows"], healthy["rows"], strict=True):
        if one["step"] in (10, 50) or one["step"] % 100 == 0:
            figures = [f"{row[name]:.3f}" for row in (one, other) for name in ("loss", "projection_std")]
            rows.append([str(one["step"]), *figures])
    dim = collapsed["projection_dim"]
    return f"{table(rows)}\n1 / sqrt({dim}) = {1 / math.sqrt(dim):.3f}"


def draw(path: Path, seed: int = 0) -> None:
    """Draw the picture as a PNG: loss, std of the predictions and std of the features of both runs."""
    figure = Figure(figsize=(12, 3.9), dpi=110, facecolor="white", layout="constrained")
    panels = figure.subplots(1, 3)
    titles = {
        "loss": "loss: the collapsed run looks better",
        "projection_std": "std of the predictions: it has collapsed",
        "representation_std": "std of the features: it hardly shows it",
    }
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        axes.set_title(title, loc="left", fontsize=11, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=9)
        axes.set_xlabel("step", color=INK)
        for method, color, label in (
            ("simsiam", HEALTHY, "SimSiam"),
            ("simsiam_without_stop_gradient", COLLAPSED, "without stop-gradient"),
        ):
            cell = RESULTS.find(method=method, seed=seed)
            assert cell is not None
            rows = cell["values"]["rows"]
            axes.plot(
                [row["step"] for row in rows], [row[name] for row in rows], color=color, linewidth=1.6, label=label
            )
            for alert in cell["values"]["alerts"] if name == "projection_std" else ():
                axes.axvline(alert["step"], color=color, linewidth=1)
                axes.text(alert["step"] + 8, 0.06, f"alert at step {alert['step']}", fontsize=8.5, color=color)
        assert cell is not None
        dim = {"projection_std": cell["values"]["projection_dim"], "representation_std": cell["values"]["feature_dim"]}
        if name in dim:
            levels(axes, dim[name])
    panels[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(path)


def levels(axes: Axes, dim: int) -> None:
    """Draw dashed lines at an even spread, at the alarm's threshold and at a collapse."""
    healthy = 1 / math.sqrt(dim)
    marks = ((healthy, f"1/√{dim} = {healthy:.3f}: evenly spread"), (LOW_RATIO * healthy, "a quarter of it"), (0, "0"))
    for value, text in marks:
        axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(
            0.99, value, text, transform=axes.get_yaxis_transform(), va="bottom", ha="right", fontsize=8, color=MUTED
        )
    axes.set_ylim(-0.05 * healthy, 1.2 * healthy)


if __name__ == "__main__":
    main()
