"""The sections of the run in their order. The most important ones come first, in case the time runs out."""

from __future__ import annotations

from benchmarks.gpu.sections import Section

RUN_S = 480.0
"""Eight minutes for all of it."""
ROWS = tuple(f"G{number}" for number in range(1, 17))
"""The rows of the table of targets in docs/performance.md."""
WORKER = ("simplejpeg",)
SERVER = (
    *WORKER,
    *("pydantic", "pydantic_settings", "typer", "rich"),
    *("grpc", "grpc_status", "grpc_health", "grpc_reflection"),
)
DEMO = (*SERVER, "sklearn", "matplotlib")

SECTIONS = (
    Section(name="views", call="comparisons.views.run", budget_s=40),
    Section(name="losses", call="comparisons.losses.run", budget_s=30),
    Section(name="optimizers", call="comparisons.optimizers.run", budget_s=20),
    Section(name="steps", call="comparisons.steps.parity", budget_s=70),
    Section(name="syncs", call="comparisons.steps.syncs", budget_s=60, rows=("G13",)),
    Section(name="checkpoints", call="comparisons.worker.checkpoints_and_models", budget_s=30),
    Section(name="jobs", call="comparisons.worker.jobs", budget_s=60, needs=WORKER),
    Section(name="selection", call="comparisons.selection.run", budget_s=30),
    Section(name="precision", call="comparisons.worker.precisions", budget_s=30),
    Section(name="memory", call="comparisons.memory.run", budget_s=30),
    Section(name="bank", call="comparisons.kernels.bank", budget_s=30, rows=("G10",)),
    Section(name="updates", call="comparisons.kernels.updates", budget_s=20, rows=("G11",)),
    Section(name="augmentation", call="comparisons.kernels.augmentation", budget_s=25, rows=("G12",)),
    Section(name="training", call="throughput.training", budget_s=75, rows=("G4", "G5", "G8", "G9")),
    Section(name="multi-crop", call="throughput.multi_crop", budget_s=45, rows=("G6", "G7")),
    Section(name="service", call="service.run", budget_s=110, rows=("G1", "G5", "G14", "G15"), needs=SERVER),
    Section(name="decoding", call="comparisons.decoding.run", budget_s=25, rows=("G16",), needs=WORKER),
    Section(name="demo", call="service.demo", budget_s=90, needs=DEMO),
)
NO_PEER = {"G2": "lightly with 8 workers", "G3": "lightly tuned, with 16 workers"}
"""Rows that compare with a peer that needs lightly on the machine. No section measures them."""
