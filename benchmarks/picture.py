"""The picture of the landing page: cost of each fold, cold and warm, from figures of `loso`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLD, WARM, TEXT = "#d1864a", "#2f7fb8", "#7a7f87"  # legible on light and on dark pages


def draw(data: list[dict[str, Any]], path: Path) -> None:
    """Draw a row of points per data set of `loso` into an SVG file."""
    import matplotlib  # noqa: PLC0415 - only where plots are wanted

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "gamwarm", "text.color": TEXT, "font.size": 11})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    fig, axis = plt.subplots(figsize=(8.6, 0.75 + 0.62 * len(data)), layout="constrained")
    for place, figure in enumerate(reversed(data)):
        for what, costs, colour, shift in (
            ("cold", cheapest_cold(figure), COLD, 0.13),
            ("warm", figure["per fold"]["warm formations"], WARM, -0.13),
        ):
            values, folds = np.unique(costs, return_counts=True)
            label = f"{what}: each fold" if place == 0 else None
            sizes = 14 + 160 * folds / folds.sum()
            axis.scatter(values, np.full(len(values), place + shift), sizes, colour, alpha=0.75, lw=0, label=label)
        ratio = np.sum(cheapest_cold(figure)) / np.sum(figure["per fold"]["warm formations"])
        axis.text(1.01, place, f"{ratio:.1f}×", transform=axis.get_yaxis_transform(), va="center", weight="bold")
    axis.set(xscale="log", ylim=(-0.5, len(data) - 0.5), xlabel="Hessian formations per fold")
    axis.set_xticks([2, 5, 10, 20, 50, 100], labels=["2", "5", "10", "20", "50", "100"])
    axis.set_yticks(range(len(data)), labels=[f"{f['data']}, {f['rows']:,} rows" for f in reversed(data)])
    axis.minorticks_off()
    axis.tick_params(colors=TEXT, length=0)
    axis.xaxis.label.set_color(TEXT)
    axis.grid(axis="x", color=TEXT, alpha=0.2)
    axis.set_frame_on(False)
    fig.legend(loc="outside upper center", ncols=2, frameon=False)
    fig.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    plt.close(fig)


def cheapest_cold(figure: dict[str, Any]) -> list[float]:
    """Return, per fold, the formations of the cold start that took the fewest in all."""
    arms = [costs for name, costs in figure["per fold"].items() if name.startswith("cold formations, ")]
    return min(arms, key=sum)
