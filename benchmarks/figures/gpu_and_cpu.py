"""Training steps on a GPU and on a CPU: milliseconds for a step of one replicate."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from records import named, read_json

from analysis.figures import style

GPU, COMPILED, CPU = "2026-11-26-packed-h100", "2026-11-27-packed-h200", "2026-11-25-packed-cpu"
ARMS = {"plain": "plain", "adv": "VAT", "noise": "noise\ninstances", "all": "all three\nregularizers"}
BARS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu": ("one core of a CPU", {"color": "#1B1B1B"}),
    "one": ("H100, one replicate", {"color": "#56B4E9"}),
    "stack": ("H100, 20 replicates as a stack", {"color": "#0072B2"}),
    "compiled": ("H200, full stack, compiled", {"facecolor": "#F5C9A8", "edgecolor": "#D55E00", "hatch": "//////"}),
}
"""Name and look of each; they differ in grey too."""


def draw() -> Figure:
    """A panel for each bag size, bars on a logarithmic axis."""
    measured = read_json(GPU, "packed.json")
    about = measured["about"]
    replicates = about["replicates"]
    gpu = {(row["K"], row["arm"]): row for row in measured["rows"] if _is_default(row)}
    newer = read_json(COMPILED, "compiled.json")
    compiled = {(row["K"], row["arm"]): row for row in newer["rows"] if _is_default(row)}
    full = sorted({row["most"] for row in compiled.values()})
    cpu = {(row["K"], row["arm"]): row for row in read_json(CPU, "quiet-xeon.json")
           if row.get("formulation") == "matmul"}  # fmt: skip
    with style.use("page"):
        sizes = sorted({size for size, _ in gpu})
        figure, axes = style.panels(len(sizes), 2.4, around=1.0, most=2, sharey=True)
        for axis, size in zip(axes, sizes, strict=True):
            for number, arm in enumerate(ARMS):
                row = gpu[size, arm]
                values = {"one": row["ms_1"], "stack": row[f"ms_{replicates}"] / replicates}
                row = compiled[size, arm]
                values["compiled"] = row[f"ms_{row['most']}"] / row["most"]
                if (size, arm) in cpu:
                    values["cpu"] = cpu[size, arm]["loop_ms"] / 4
                for place, bar in enumerate(BARS):
                    if bar in values:
                        at = number + 0.22 * (place - 1.5)
                        axis.bar(at, values[bar], width=0.2, **BARS[bar][1])
                        # to the right, over the next bar, which is lower
                        axis.text(at - 0.1, values[bar] * 1.06, f"{values[bar]:.2g}", ha="left", fontsize=6)
            axis.set_xticks(range(len(ARMS)), ARMS.values())
            axis.set_yscale("log")
            axis.set_ylim(0.008, 25)
            axis.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
            axis.grid(False, axis="x")
            missing = "" if (size, "plain") in cpu else " (CPU not measured)"
            axis.set_title(f"bags of about {size} instances{missing}")
        axes[0].set_ylabel("ms for a step of one replicate")
        figure.legend(handles=_handles(), loc="outside upper center", ncols=2)
        style.footnote(figure, (
            f"Steps of one bag for each replicate. GPU: {about['device']} and {newer['about']['device']}, "
            f"{about['precision']}, torch {about['torch']}, CUDA graphs; a full stack has {full[0]} to {full[-1]} "
            "replicates. Without the drawing of bags, which takes longer than a full stack's step where there are "
            "noise instances. CPU: an Intel Xeon with AMX, one thread, float32, four replicates one after the other, "
            f"with the drawing of their bags; {named(GPU, COMPILED, CPU)}."
        ))  # fmt: skip
    return figure


def _is_default(row: dict[str, Any]) -> bool:
    """Whether it is a step as studies take it: one matrix product, replayed as a CUDA graph."""
    return row.get("formulation") == "matmul" and row.get("graphs") is True


def _handles() -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(**look, label=name) for name, look in BARS.values()]
