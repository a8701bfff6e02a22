"""The table of the benchmark: cost for the training, cost for the server, and latency, by phase."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.results import table

NOBODY = "nobody"
COST_HEADS = ["", "subscribers", "messages/s each", "CPU us/message", "server cores", "replay CPU ms/MB", "p99 ms live",
              "p99 ms replay", "MiB live", "MiB replay", "others"]  # fmt: skip
HEADS = ["", "cores", "logged", "phase", "steps/s", "change", "CPU ms/step", "change", "server cores", "subscribers",
         "others", "p50 ms", "p99 ms", "max ms", "MiB"]  # fmt: skip


def report(cells: Sequence[dict[str, Any]]) -> str:
    """Return the cells as a table of medians. Changes are against the windows without subscribers around them."""
    rows = [HEADS]
    for cell in cells:
        key, values = cell["key"], cell["values"]
        if key.get("part") != "phases":
            continue
        for kind in dict.fromkeys(window["kind"] for window in values["windows"]):
            first = [key["release"], key["cores"], f"every {key['log_every_steps']}"] if kind == NOBODY else [""] * 3
            rows.append([*first, kind, *_figures(values, kind)])
    return table(rows)


def costs(cells: Sequence[dict[str, Any]]) -> str:
    """Return what subscribers cost a server without a trainer: processor time for a message and a replayed megabyte."""
    rows = [COST_HEADS]
    for cell in cells:
        if cell["key"]["part"] != "cost":
            continue
        values = cell["values"]
        of = {kind: [w for w in values["windows"] if w["kind"] == kind] for kind in (NOBODY, "live", "replay")}
        idle = statistics.median(per_second(window, "front_s") for window in of[NOBODY])
        live = [seen for seen in values["seen"] if seen["kind"] == "live"]
        replay = [seen for seen in values["seen"] if seen["kind"] == "replay"]
        used = [sum(w["front_s"] - idle * (w["ended"] - w["began"]) for w in of[kind]) for kind in ("live", "replay")]
        seconds = sum(w["ended"] - w["began"] for w in of["live"])
        messages, mb = sum(seen["live_messages"] for seen in live), sum(seen["mb"] for seen in replay)
        rows.append(
            [
                cell["key"]["release"],
                str(cell["key"]["subscribers"]),
                f"{messages / seconds / cell['key']['subscribers']:.1f}",
                f"{1e6 * used[0] / messages:.0f}",
                f"{used[0] / seconds:.2f}",
                f"{1e3 * used[1] / mb:.1f}",
                *(f"{values['latency'][kind]['p99_ms']:.0f}" for kind in ("live", "replay")),
                f"{max(w['front_mib'] for w in of['live']):.0f}",
                f"{max(w['front_mib'] for w in of['replay']):.0f}",
                f"{statistics.median(w['others_cores'] for w in values['windows']):.1f}",
            ]
        )
    return table(rows)


def _figures(values: dict[str, Any], kind: str) -> list[str]:
    windows = [window for window in values["windows"] if window["kind"] == kind]
    change, cost = changes(values["windows"], kind)
    latency = values["latency"].get(kind)
    return [
        f"{statistics.median(map(rate, windows)):.2f}",
        "" if kind == NOBODY else f"{100 * change:+.1f} %",
        f"{1000 * statistics.median(map(cpu_per_step, windows)):.1f}",
        "" if kind == NOBODY else f"{100 * cost:+.1f} %",
        f"{statistics.median(per_second(window, 'front_s') for window in windows):.3f}",
        f"{statistics.median(per_second(window, 'crowd_s') for window in windows):.3f}",
        f"{statistics.median(window['others_cores'] for window in windows):.2f}",
        *([f"{latency[name]:.0f}" for name in ("p50_ms", "p99_ms", "p100_ms")] if latency else [""] * 3),
        f"{max(window['front_mib'] for window in windows):.0f}",
    ]


def changes(windows: Sequence[dict[str, Any]], kind: str) -> tuple[float, float]:
    """Return the change of the rate of training and of its CPU time per step.

    Each window of this kind is compared with the mean of the windows without subscribers before and after it, and the
    median counts.
    """
    rates, costs = [], []
    for index, window in enumerate(windows):
        if window["kind"] != kind:
            continue
        beside = [
            w for w in (*windows[max(0, index - 1) : index], *windows[index + 1 : index + 2]) if w["kind"] == NOBODY
        ]
        if beside:
            rates.append(rate(window) / statistics.mean(map(rate, beside)) - 1)
            costs.append(cpu_per_step(window) / statistics.mean(map(cpu_per_step, beside)) - 1)
    return (statistics.median(rates), statistics.median(costs)) if rates else (0.0, 0.0)


def rate(window: dict[str, Any]) -> float:
    """Return the steps per second."""
    return float(window["steps"] / (window["ended"] - window["began"]))


def cpu_per_step(window: dict[str, Any]) -> float:
    """Return the CPU seconds of the trainer for a step."""
    return float(window["trainer_s"] / window["steps"])


def per_second(window: dict[str, Any], name: str) -> float:
    """Return CPU seconds per second."""
    return float(window[name] / (window["ended"] - window["began"]))
