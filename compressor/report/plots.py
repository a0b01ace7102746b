"""The plots of report.html, as inline SVG in the colours of the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compressor.report.schema import Epoch

# The page's own colours: matplotlib is given these stand-ins, and the SVG then names the style sheet's variables.
COLOURS = {"#010101": "var(--text)", "#020202": "var(--muted)", "#030303": "var(--dense)", "#040404": "var(--compact)"}
TEXT, MUTED, DENSE, COMPACT = COLOURS

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": TEXT,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def latency(models: Mapping[str, Sequence[float]]) -> str:
    """Draw the distributions of the latencies of the dense and the compact network.

    Args:
        models: Raw samples in milliseconds, the dense network first.

    Returns:
        An SVG. The slowest 1 % of each is left out of the picture, so that one stray sample does not flatten the rest.
    """
    shown = {name: np.sort(values)[: max(1, int(0.99 * len(values)))] for name, values in models.items()}
    everything = np.concatenate(list(shown.values()))
    bins = np.linspace(everything.min(), everything.max() + 1e-9, 80).tolist()
    with rc_context({**STYLE, "svg.hashsalt": "latency"}):
        figure = Figure(figsize=(7.6, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for name, colour in zip(models, (DENSE, COMPACT), strict=False):
            median = float(np.median(models[name]))
            axes.hist(shown[name], bins=bins, color=colour, alpha=0.75, linewidth=0, label=f"{name} {median:.3g} ms")
            axes.axvline(median, color=colour, linewidth=1.2)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0, handlelength=1, handleheight=1)
        axes.set(xlabel="milliseconds per call", yticks=[], xlim=(0, None))
        axes.spines["left"].set_visible(False)
        return _svg(figure)


def training(history: Sequence[Epoch]) -> str:
    """Draw loss and training accuracy by epoch, as an SVG."""
    epochs = [entry.epoch for entry in history]
    with rc_context({**STYLE, "svg.hashsalt": "training"}):
        figure = Figure(figsize=(7.6, 2.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _curve(left, epochs, [entry.loss for entry in history], "training loss")
        known = [(entry.epoch, 100 * entry.accuracy) for entry in history if entry.accuracy is not None]
        _curve(right, [epoch for epoch, _ in known], [value for _, value in known], "training accuracy, %")
        return _svg(figure)


def _curve(axes: Axes, epochs: Sequence[int], values: Sequence[float], title: str) -> None:
    axes.plot(epochs, values, color=COMPACT, marker="o", markersize=3.5, linewidth=1.6)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=MUTED, alpha=0.2, linewidth=0.6)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for stand_in, variable in COLOURS.items():
        text = text.replace(stand_in, variable)
    return text[text.index("<svg") :]
