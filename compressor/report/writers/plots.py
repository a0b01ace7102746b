"""The plots of report.html, as inline SVG in the colours of the page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compressor.gates.history import GateEpoch
from compressor.report import schema
from compressor.training.history import Epoch

# The page's own colours: matplotlib is given these stand-ins, and the SVG then names the style sheet's variables.
NAMES = ("text", "muted", "dense", "compact", "third", "fourth")
COLOURS = {f"#{number:02}{number:02}{number:02}": f"var(--{name})" for number, name in enumerate(NAMES, start=1)}
TEXT, MUTED, DENSE, COMPACT, *OTHERS = COLOURS

PANELS, LABEL = 5, 20
"""Panels in a row, and letters of a group's name above one."""

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
    """Draw the distributions of the latencies of all variants.

    Args:
        models: Raw samples in milliseconds, by variant.

    Returns:
        An SVG. The slowest 1 % of each is left out of the picture, so that one stray sample does not flatten the rest.
    """
    shown = {name: np.sort(values)[: max(1, int(0.99 * len(values)))] for name, values in models.items()}
    everything = np.concatenate(list(shown.values()))
    bins = np.linspace(everything.min(), everything.max() + 1e-9, 80).tolist()
    with rc_context({**STYLE, "svg.hashsalt": "latency"}):
        figure = Figure(figsize=(7.6, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for name, colour in colours(models).items():
            median = float(np.median(models[name]))
            axes.hist(shown[name], bins=bins, color=colour, alpha=0.75, linewidth=0, label=f"{name} {median:.3g} ms")
            axes.axvline(median, color=colour, linewidth=1.2)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=len(models), borderpad=0, handlelength=1, handleheight=1
        )
        axes.set(xlabel="milliseconds per call", yticks=[], xlim=(0, None))
        axes.spines["left"].set_visible(False)
        return _svg(figure)


def colours(variants: Iterable[str]) -> dict[str, str]:
    """Return a colour for each variant: its own for the dense and the compact one, any other for the rest."""
    own, others = {schema.DENSE: DENSE, schema.COMPACT: COMPACT}, cycle(OTHERS)
    return {name: own[name] if name in own else next(others) for name in variants}


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


def gates(movements: Sequence[GateEpoch], sizes: Mapping[str, int]) -> str:
    """Draw how wide learned gates made every group by epoch, expected and thresholded, as an SVG.

    Args:
        movements: One per epoch.
        sizes: Units of every group, by its name.
    """
    epochs = [movement.epoch for movement in movements]
    rows = -(-len(sizes) // PANELS)
    with rc_context({**STYLE, "svg.hashsalt": "gates"}):
        figure = Figure(figsize=(7.6, 1.25 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, PANELS, squeeze=False).flatten()
        for panel, (name, size) in zip(panels, sizes.items(), strict=False):
            expected = [movement.expected[name] for movement in movements]
            panel.plot(epochs, expected, color=COMPACT, marker="o", markersize=2.5, linewidth=1.4, label="expected")
            thresholded = [movement.thresholded[name] for movement in movements]
            panel.plot(epochs, thresholded, color=DENSE, linestyle="--", linewidth=1.4, label="thresholded")
            panel.set_title(name if len(name) <= LABEL else f"…{name[1 - LABEL :]}", loc="left", fontsize=8)
            panel.set(ylim=(0, 1.08 * size), yticks=[0, size], xticks=[epochs[0], epochs[-1]])
            panel.tick_params(labelsize=7)
        for panel in panels[len(sizes) :]:
            panel.set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return _svg(figure)


def staircases(curves: Mapping[str, Sequence[float]], kept: Mapping[str, int]) -> str:
    """Draw the latency of the network over the width of single groups, as an SVG.

    Args:
        curves: Milliseconds at every width from 0 up, by the name of the group.
        kept: The width that was chosen.
    """
    with rc_context({**STYLE, "svg.hashsalt": "staircases"}):
        figure = Figure(figsize=(7.6, 1.9), layout="constrained")
        panels = figure.subplots(1, PANELS, squeeze=False, sharey=True).flatten()
        for panel, (name, values) in zip(panels, curves.items(), strict=False):
            panel.plot(range(len(values)), values, color=DENSE, linewidth=1.2)
            if name in kept:
                panel.plot(kept[name], values[kept[name]], color=COMPACT, marker="o", markersize=4)
            panel.set_title(name if len(name) <= LABEL else f"…{name[1 - LABEL :]}", loc="left", fontsize=8)
            panel.set(xticks=[0, len(values) - 1])
            panel.tick_params(labelsize=7)
        panels[0].set_ylabel("ms", fontsize=8)
        for panel in panels[len(curves) :]:
            panel.set_visible(False)
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
