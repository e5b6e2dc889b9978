"""The report: one HTML page about a run, without scripts and without anything that is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..files import write_whole
from . import figures
from .activation_regions import GroupOverlap, group_overlap
from .partitions import Formation, formation
from .run import Record, RunFolder, read_run
from .summary import (
    MANY_TASKS,
    MethodSummary,
    alone,
    best_of,
    by_direction,
    by_method,
    metric_range,
    metric_text,
    seconds_text,
)

STRONGEST_PAIRS = 10
FURTHER_CLUSTERINGS = 4
"""Clusterings after the first that are drawn too, if they merged anything."""
CURVES = (
    ("train_loss", "Training loss", False),
    ("validation_loss", "Validation loss", False),
    ("mean_metric", "Mean metric on validation data", False),
    ("branches", "Live branches", True),
    ("seconds", "Seconds of training per epoch", False),
    ("sharing_seconds", "Seconds of clustering and merging per epoch", False),
)


@dataclass(frozen=True)
class Clustering:
    """The figures of one clustering; either may be missing where the event does not hold what it takes."""

    epoch: int
    found: str
    tree: Markup | None
    matrix: Markup | None


@dataclass(frozen=True)
class RelationSection:
    """The relations that one method has learned with one seed, and its strongest pairs."""

    method: str
    seed: int
    matrix: Markup
    strongest: Sequence[tuple[str, str, float]]


@dataclass(frozen=True)
class SharingSection:
    """What is shown of one method that shares: how its groups formed with one seed."""

    method: str
    seed: int
    outcome: str
    formed: Formation
    timeline: Markup
    clusterings: Sequence[Clustering]


@dataclass(frozen=True)
class RegionsSection:
    """Where the tasks of a method look, with one seed, and how much the regions of a group overlap."""

    method: str
    seed: int
    figure: Markup
    overlap: GroupOverlap | None


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    The page holds the comparison table, the groups by name, curves over the epochs, and for each method that shares,
    with its first seed, how groups formed, the dendrogram and the distance matrix of the first clustering and of up to
    four later ones that merged something; then activation regions, where :func:`write_regions` has found them.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`selshare.report.run.read_run`.
    OSError
        If the page cannot be written; an earlier one is still there.
    """
    run = read_run(folder)
    page = run.folder / "report.html"
    write_whole(page, render(run))
    return page


def render(run: RunFolder) -> str:
    """Return the page about a run."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"metric": metric_text, "seconds": seconds_text}
    summaries = by_method(run.rows)
    tasks = list(dict.fromkeys(task for summary in summaries for task in summary.metrics))
    return environment.get_template("page.html").render(
        run=run,
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        tasks=tasks,
        many_tasks=len(tasks) > MANY_TASKS,
        summaries=summaries,
        seeds=sorted({row["seed"] for row in run.rows}),
        epochs=max((len(record.epochs) for record in run.records), default=None),
        shows_rand=any(summary.average("adjusted_rand") is not None for summary in summaries),
        directions=_directions(tasks, run.lower_is_better),
        ranges={
            summary.method: [
                value
                for _, members in _directions(tasks, run.lower_is_better)
                for value in metric_range(summary, members)
            ]
            for summary in summaries
        },
        per_task=[(task, _marked(task, run, summaries)) for task in tasks],
        best=_best(run, summaries, tasks),
        named_tasks=figures.NAMED_TASKS,
        by_task=_safe(figures.metric_by_task(summaries)),
        groups=_groups(summaries),
        curves=_curves(run.records, summaries),
        legend=_legend(run.records, summaries),
        relations=_relations(run.records),
        sections=_sections(run.records),
        regions=_regions(run),
    )


def _directions(tasks: Sequence[str], lower_is_better: Collection[str]) -> list[tuple[str, list[str]]]:
    """The tasks by what is better; an arrow says it where there are both kinds."""
    higher, lower = by_direction(tasks, lower_is_better)
    return [(" ↑", higher), (" ↓", lower)] if higher and lower else [("", list(tasks))]


def _marked(task: str, run: RunFolder, summaries: Sequence[MethodSummary]) -> list[tuple[float | None, bool]]:
    """A task's metric under each method, and whether it is the best."""
    values = [summary.metrics.get(task) for summary in summaries]
    return list(zip(values, best_of(values, task in run.lower_is_better), strict=True))


def _best(run: RunFolder, summaries: Sequence[MethodSummary], tasks: Sequence[str]) -> set[tuple[str, str]]:
    """The (method, task) of the best values, and (method, "") where the mean is."""
    marked = {task: [best for _, best in _marked(task, run, summaries)] for task in tasks}
    # The mean is over tasks whose metric is better when higher, if there is any.
    marked[""] = best_of([s.mean_metric for s in summaries], lower=run.lower_is_better >= set(tasks))
    return {
        (s.method, task) for task, best in marked.items() for s, is_best in zip(summaries, best, strict=True) if is_best
    }


def _regions(run: RunFolder) -> list[RegionsSection]:
    """One for each method that regions were found for; groups are those of the same seed."""
    found = []
    for record in run.records:
        if record.regions is not None:
            row = next(row for row in run.rows if (row["method"], row["seed"]) == (record.method, record.seed))
            groups = sorted(row["groups"], key=len, reverse=True)
            figure = Markup(figures.regions_figure(record.regions, groups))
            overlap = group_overlap(record.regions, groups)
            found.append(RegionsSection(record.method, record.seed, figure, overlap))
    return found


def _groups(summaries: Sequence[MethodSummary]) -> list[dict[str, Any]]:
    """Final groups by name, largest first, of each method that has any, seed by seed."""
    listed = []
    for summary in summaries:
        seeds = []
        for row in summary.rows:
            groups = sorted(row["groups"], key=len, reverse=True)
            seeds.append({"seed": row["seed"], "groups": groups, "alone": alone(row)})
        if any(seed["groups"] for seed in seeds):
            listed.append({"method": summary.method, "seeds": seeds})
    return listed


def _numbered(records: Sequence[Record], summaries: Sequence[MethodSummary]) -> dict[str, int]:
    """The colour number of each method that has a history: its place among all methods."""
    known = {record.method for record in records}
    return {summary.method: number for number, summary in enumerate(summaries) if summary.method in known}


def _curves(records: Sequence[Record], summaries: Sequence[MethodSummary]) -> list[dict[str, Any]]:
    methods = _numbered(records, summaries)
    drawn = [
        (title, figures.curve(records, methods, key, f"{title}, epoch by epoch.", steps=steps))
        for key, title, steps in CURVES
    ]
    return [{"title": title, "svg": Markup(svg)} for title, svg in drawn if svg]


def _legend(records: Sequence[Record], summaries: Sequence[MethodSummary]) -> list[dict[str, Any]]:
    return [
        {"method": method, "number": number % figures.GROUP_COLOURS, "dashes": figures.dash_array(place)}
        for place, (method, number) in enumerate(_numbered(records, summaries).items())
    ]


def _sections(records: Sequence[Record]) -> list[SharingSection]:
    """The first seed of each method that has sharing events."""
    first = {record.method: record for record in reversed(records) if record.events}
    return [_section(first[method]) for method in dict.fromkeys(record.method for record in records) if method in first]


def _relations(records: Sequence[Record]) -> list[RelationSection]:
    """The first seed of each method that has learned relations."""
    first = {record.method: record for record in reversed(records) if record.relations}
    methods = dict.fromkeys(record.method for record in records)
    return [
        _learned(method, first[method].seed, first[method].relations or {}) for method in methods if method in first
    ]


def _learned(method: str, seed: int, relations: Mapping[str, Any]) -> RelationSection:
    """The matrix and the strongest pairs."""
    names, weights = relations["names"], np.array(relations["weights"], dtype=np.float64)
    rows, columns = np.triu_indices(len(names), 1)
    strongest = np.argsort(-weights[rows, columns], kind="stable")[:STRONGEST_PAIRS]
    pairs = [(names[rows[k]], names[columns[k]], float(weights[rows[k], columns[k]])) for k in strongest]
    return RelationSection(method, seed, Markup(figures.relation_matrix(names, weights)), pairs)


def _section(record: Record) -> SharingSection:
    formed = formation(record.events)
    last = max([epoch["epoch"] for epoch in record.epochs] + [event["epoch"] for event in record.events])
    return SharingSection(
        record.method,
        record.seed,
        _outcome(record, formed),
        formed,
        Markup(figures.timeline(formed, last, record.lock_epoch, record.best_epoch)),
        _clusterings(record, formed.group_of),
    )


def _outcome(record: Record, formed: Formation) -> str:
    """Say in a sentence or two what became of the branches."""
    before, after = len(formed.stages[0].branches), len(formed.stages[-1].branches)
    changes = [str(stage.epoch) for stage in formed.stages[1:]]
    if changes:
        epochs = f"epoch{'s' if len(changes) > 1 else ''} {', '.join(changes)}"
        said = f"{before} branches became {after}, at the end of {epochs}."
    else:
        said = f"Nothing merged: all {before} branches are left."
    for event in record.events:
        for group in event.get("undone", ()):
            said += f" Taken apart again after epoch {event['epoch']}, not having recovered: {', '.join(group)}."
    reason = next((event["lock_reason"] for event in record.events if event["locked"]), None)
    if reason:
        said += f" Locked after epoch {record.lock_epoch}: {reason}."
    if record.best_epoch is not None:
        said += f" The weights tested are those of epoch {record.best_epoch}, the best on validation data."
    return said


def _clusterings(record: Record, group_of: Mapping[str, int]) -> list[Clustering]:
    """The first clustering, and later ones that merged something."""
    events = [event for event in record.events if event["embedded"]]
    chosen = events[:1] + [event for event in events[1:] if event["merged"]][:FURTHER_CLUSTERINGS]
    drawn = ((e, figures.dendrogram(e, group_of), figures.distance_matrix(e, group_of)) for e in chosen)
    return [
        Clustering(event["epoch"], _found(event), _safe(tree), _safe(matrix))
        for event, tree, matrix in drawn
        if tree or matrix
    ]


def _safe(svg: str | None) -> Markup | None:
    """Mark a figure as HTML; its text has been escaped."""
    return None if svg is None else Markup(svg)


def _found(event: Mapping[str, Any]) -> str:
    """Say what a clustering found and how long it took."""
    labels = [event["labels"][branch] for branch in event["embedded"]]
    count, noise = len({label for label in labels if label >= 0}), sum(label < 0 for label in labels)
    said = f"{count} cluster{'s' if count != 1 else ''} among {len(labels)} branches, {noise} left alone"
    took = ", ".join(f"{stage} {seconds_text(1000 * value)} ms" for stage, value in event["seconds"].items())
    return f"{said}; {took}." if took else f"{said}."
