"""The study's figures, from the results on disk, into ``docs/images``.

    python -m benchmarks.study.figures

Nothing is trained. A figure whose results are not there yet is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .planted import WAYS
from .results import RESULTS, Row, finished, mean_and_error, read
from .settings import SETTINGS

IMAGES = Path(__file__).parents[2] / "docs" / "images"
COLOURS = ("#0072b2", "#d55e00", "#00805e", "#b5538c", "#a87400", "#3e9fda", "#6a51a3", "#66760a")
STYLE = {
    "svg.hashsalt": "selshare",
    "svg.fonttype": "path",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9dde2",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
SHOWN = ("mtl", "default", "chance", "paper", "paper-chance", "hard")
OUT_OF_SIGHT = 8  # times as far as all others: an arrow instead of a point
LABELS = {
    "mtl": "MTL (unmerged)",
    "default": "selshare's default",
    "chance": "random groups, as default",
    "paper": "the paper's method",
    "paper-chance": "random groups, as the paper's",
    "hard": "one branch for all",
}


def main() -> None:
    """Draw all."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    accuracy = {name: finished(read(RESULTS / f"accuracy-{name}.jsonl")) for name in SETTINGS}
    accuracy = {name: _longest(rows) for name, rows in accuracy.items() if rows}
    drawn: list[tuple[str, Callable[[], Figure | None]]] = [
        ("difference-to-mtl", lambda: differences(accuracy)),
        ("learning-curves", lambda: curves(accuracy, "mean_metric", "mean metric, validation data")),
        ("epoch-duration", lambda: durations(accuracy | _planted())),
        ("planted-relatedness", lambda: relatedness(read(RESULTS / "planted-relatedness.jsonl"))),
        ("planted-scale", lambda: scale(read(RESULTS / "planted-scale.jsonl"))),
    ]
    with mpl.rc_context(STYLE):
        for name, draw in drawn:
            figure = draw()
            if figure is not None:
                path = IMAGES / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")
                print(f"{path.relative_to(IMAGES.parents[1])}: {path.stat().st_size / 1000:.0f} kB")


def _planted() -> dict[str, list[Row]]:
    """The runs on planted tasks, by size."""
    rows = read(RESULTS / "planted-scale.jsonl")
    sizes = dict.fromkeys(row["setting"] for row in rows)
    return {f"planted, {size}": _longest([row for row in rows if row["setting"] == size]) for size in sizes}


def _longest(rows: list[Row]) -> list[Row]:
    """The runs of the largest number of epochs that something can be compared at."""
    epochs = {row["epochs"] for row in rows}
    compared = [count for count in epochs if len({row["method"] for row in rows if row["epochs"] == count}) > 1]
    return [row for row in rows if row["epochs"] == max(compared or epochs)]


def differences(accuracy: dict[str, list[Row]]) -> Figure | None:
    """Mean metric minus MTL's with the same seed, and its standard error: a panel for each data set."""
    if not accuracy:
        return None
    columns = min(3, len(accuracy))
    lines = -(-len(accuracy) // columns)
    figure = Figure(figsize=(0.9 + 3.4 * columns, 0.6 + 2.3 * lines))
    grid = np.atleast_1d(figure.subplots(lines, columns, sharey=True, squeeze=False)).ravel()
    present = [m for m in SHOWN if m != "mtl" and any(row["method"] == m for rows in accuracy.values() for row in rows)]
    for axes, (name, rows) in zip(grid, accuracy.items(), strict=False):
        mtl = {row["seed"]: row["mean_metric"] for row in rows if row["method"] == "mtl"}
        axes.axvline(0, color="#5d6670", linewidth=1)
        found = {}
        for method in present:
            own = [row for row in rows if row["method"] == method and row["seed"] in mtl]
            if own:
                found[method] = mean_and_error(row["mean_metric"] - mtl[row["seed"]] for row in own)
        _points(axes, present, found)
        axes.set_title(f"{name} ({len(mtl)} seed{'s' if len(mtl) > 1 else ''})", fontsize=11)
        axes.set_yticks(range(len(present)), [LABELS[method] for method in present])
        axes.set_ylim(len(present) - 0.5, -0.5)
        axes.set_xlabel("mean metric − MTL's")
        axes.locator_params(axis="x", nbins=4)
    for axes in grid[len(accuracy) :]:
        axes.set_visible(False)
    return figure


def _points(axes: Axes, present: Sequence[str], found: dict[str, tuple[float, float]]) -> None:
    """Means with error bars, a line each; one that would leave the others no room is an arrow with its figure."""
    reach = {method: abs(mean) + np.nan_to_num(error) for method, (mean, error) in found.items()}
    *others, farthest = sorted(reach, key=lambda method: reach[method])
    room = 1.2 * reach[others[-1]] if others else np.inf
    for method, (mean, error) in found.items():
        place, colour = present.index(method), _colour(method)
        if method == farthest and reach[method] > OUT_OF_SIGHT * room:
            edge = float(np.copysign(room, mean))
            axes.plot(edge, place, marker="<" if mean < 0 else ">", color=colour, clip_on=False)
            text, side = f"{mean:+.2f}".replace("-", "−"), "left" if mean < 0 else "right"
            axes.annotate(
                text, (edge, place), (8 if mean < 0 else -8, -4), textcoords="offset points", ha=side, color=colour
            )
        else:
            _point(axes, mean, error, place, method)


def curves(accuracy: dict[str, list[Row]], key: str, label: str) -> Figure | None:
    """The mean over seeds of an entry of the learning curve, epoch by epoch: a panel for each data set."""
    if not accuracy:
        return None
    columns = min(3, len(accuracy))
    lines = -(-len(accuracy) // columns)
    figure = Figure(figsize=(0.6 + 3.6 * columns, 0.7 + 2.7 * lines))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, rows) in zip(grid, accuracy.items(), strict=False):
        for method in SHOWN:
            own = [row["curve"][key] for row in rows if row["method"] == method and key in row["curve"]]
            if own:
                values = np.mean(np.array(own, dtype=float), axis=0)
                axes.plot(range(1, len(values) + 1), values, color=_colour(method), label=LABELS[method], linewidth=1.4)
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label, fontsize=10)
    for axes in grid[len(accuracy) :]:
        axes.set_visible(False)
    handles, names = max((axes.get_legend_handles_labels() for axes in grid), key=lambda found: len(found[0]))
    figure.legend(handles, names, loc="outside lower center", ncols=1 + columns, fontsize=9)
    return figure


def durations(accuracy: dict[str, list[Row]]) -> Figure | None:
    """Processor time of an epoch relative to MTL's with the same seed, median over seeds: a line per data set."""
    chosen = {name: rows for name, rows in accuracy.items() if any(row["merges"] for row in rows)}
    if not chosen:
        return None
    figure = Figure(figsize=(7.2, 4.6))
    axes = figure.subplots()
    for number, (name, rows) in enumerate(chosen.items()):
        mtl = {row["seed"]: np.median(row["curve"]["processor_seconds"]) for row in rows if row["method"] == "mtl"}
        for method, style in (("default", "-"), ("paper", ":")):
            own = [row for row in rows if row["method"] == method and row["merges"] and row["seed"] in mtl]
            if own:
                spent = [np.array(row["curve"]["processor_seconds"]) / mtl[row["seed"]] for row in own]
                relative = np.median(spent, axis=0)
                left = mean_and_error(row["branches"] / _branches_before(row) for row in own)[0]
                text = f"{name} ({100 * left:.0f} % of branches left)" if style == "-" else None
                places = range(1, len(relative) + 1)
                axes.plot(places, relative, color=COLOURS[number], label=text, linewidth=1.4, linestyle=style)
    axes.axhline(1, color="#5d6670", linewidth=1)
    axes.set_ylim(0, 1.5)
    axes.set_xlim(0, 45)
    axes.set_xlabel("epoch (solid: default; dotted: the paper's method, merged after the first)")
    axes.set_ylabel("processor time of an epoch,\nMTL's median = 1")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _branches_before(row: Row) -> int:
    """As many as tasks: those in groups and those that kept a branch of their own."""
    return sum(map(len, row["groups"])) + row["branches"] - len(row["groups"])


def relatedness(rows: Sequence[Row]) -> Figure | None:
    """ARI against relatedness, a line for each way to group."""
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.subplots()
    points = sorted({row["relatedness"] for row in rows})
    for number, way in enumerate(WAYS):
        found = [mean_and_error(row["agreement"][way] for row in rows if row["relatedness"] == p) for p in points]
        means, errors = np.nan_to_num(np.array(found)).T
        axes.errorbar(points, means, errors, color=COLOURS[number], marker="osD^vP"[number], markersize=4, label=way)
    axes.set_xlabel("relatedness: cosine of two tasks' weights in a group")
    axes.set_ylabel("adjusted Rand index")
    axes.set_ylim(-0.05, 1.05)
    axes.legend(loc="lower right", fontsize=10)
    return figure


def scale(rows: Sequence[Row]) -> Figure | None:
    """Test loss per task, a panel for each size."""
    sizes = list(dict.fromkeys(row["setting"] for row in rows))
    if not sizes:
        return None
    figure = Figure(figsize=(1.8 + 3.4 * len(sizes), 2.9))
    present = [name for name in (*SHOWN, "oracle") if any(row["method"] == name for row in rows)]
    for axes, size in zip(figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0], sizes, strict=True):
        tasks = int(size.split()[0].replace(",", ""))
        compared = _longest([row for row in rows if row["setting"] == size])
        for place, method in enumerate(present):
            own = [row["test_loss"] / tasks for row in compared if row["method"] == method]
            if own:
                _point(axes, *mean_and_error(own), place, method)
        axes.set_title(f"{size} groups", fontsize=11)
        axes.set_yticks(range(len(present)), [LABELS.get(name, "the true groups") for name in present])
        axes.set_ylim(len(present) - 0.5, -0.5)
        axes.set_xlabel("test loss per task")
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", labelsize=9)
    return figure


def _point(axes: Axes, mean: float, error: float, place: int, method: str) -> None:
    """A dot and its error bar; of one seed the dot alone."""
    bar = None if np.isnan(error) else error
    axes.errorbar(mean, place, xerr=bar, fmt="o", capsize=3, color=_colour(method))


def _colour(method: str) -> str:
    return COLOURS[SHOWN.index(method)] if method in SHOWN else COLOURS[-1]


if __name__ == "__main__":
    main()
