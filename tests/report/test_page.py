from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from selshare.report import write_report

VOID = {"meta", "br", "img", "hr", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects links, headings and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.content: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._note(attrs)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids += [value for key, value in named.items() if key == "id" and value]
        self.addresses += [value for key in ("href", "src", "xlink:href") if (value := named.get(key))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.content.append(data)


def read(folder: Path) -> tuple[str, Page]:
    path = write_report(folder)
    assert path == folder / "report.html"
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_page_is_whole_and_self_contained(write_run: Callable[..., Path]) -> None:
    html, page = read(write_run(seeds=2))
    assert page.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert all(address[1:] in page.ids for address in page.addresses if address.startswith("#"))
    assert "@import" not in html
    assert "url(http" not in html
    sections = {"comparison", "groups", "curves", "sharing-similarity"}
    assert sections <= set(page.ids)
    text = " ".join(" ".join(page.content).split())
    assert "Made up & planted." in text
    assert "10 branches became 4, at the end of epochs 1, 3." in text
    assert "Locked after epoch 5: epochs in a row without a change: 3." in text
    assert "The weights tested are those of epoch 6" in text
    assert "task 0, task 3, task 6" in text
    assert "3 clusters among 10 branches, 4 left alone; embed 1.1 ms, cluster 4.2 ms." in text
    assert html.count("<small>± ") == 3  # a deviation for each method
    assert html.count("<svg role") == 1 + 6 + 1 + 2 * 2  # by task, curves, timeline, two clusterings


def test_names_are_text_wherever_they_appear(write_run: Callable[..., Path]) -> None:
    names = ["<script>alert(1)</script>", '"&amp;', *(f"t{index}" for index in range(8))]
    html, page = read(write_run(names=names))
    assert "script" not in page.tags
    assert names[0] in "".join(page.content)
    assert html.count("&lt;script&gt;") == unescape(html).count(names[0])


def test_many_tasks_are_summed_up_with_all_of_them_in_details(write_run: Callable[..., Path]) -> None:
    html, page = read(write_run(tasks=200, groups=10))
    text = " ".join(page.content)
    assert "median task" in text
    assert "Metric of each of the 200 tasks" in text
    assert set(re.findall(r"<tr><th>(task \d+)</th>", html)) == {f"task {index}" for index in range(200)}
    assert "group 10: 19 tasks" in text
    assert len(html) < 2_000_000


def test_baselines_alone_make_a_page(write_run: Callable[..., Path]) -> None:
    folder = write_run()
    rows = [row for row in json.loads((folder / "results.json").read_text()) if row["method"] == "stl"]
    (folder / "results.json").write_text(json.dumps(rows))
    _, page = read(folder)
    assert {"groups", "curves", "sharing-similarity"}.isdisjoint(page.ids)


def test_a_criterion_without_tree_or_distances_shows_its_timeline(write_run: Callable[..., Path]) -> None:
    folder = write_run()
    path = folder / "similarity-seed0.json"
    history = json.loads(path.read_text())
    for event in history["events"]:
        event |= {"embedded": [], "linkage": None, "distances": None, "embedding": None}
    for epoch in history["epochs"]:
        epoch |= {"validation_loss": None, "mean_metric": None, "metrics": {}}
    history["best_epoch"] = None
    path.write_text(json.dumps(history))
    _, page = read(folder)
    text = " ".join(page.content)
    assert "Who merged when" in text
    assert "Dendrogram" not in text
    assert "The weights tested" not in text


def test_the_best_value_of_each_task_is_marked(write_run: Callable[..., Path]) -> None:
    folder = write_run()
    rows = json.loads((folder / "results.json").read_text())
    for row, value in zip(rows, (0.91, 0.95, 0.95), strict=True):
        row["metrics"] |= {"task 0": value, "task 1": value, "task 2": 0.9}
        row["mean_metric"] = value
    (folder / "results.json").write_text(json.dumps(rows))
    problem = json.loads((folder / "problem.json").read_text())
    (folder / "problem.json").write_text(json.dumps(problem | {"lower_is_better": ["task 1"]}))
    html, _ = read(folder)
    table = html[html.index("<tbody>") : html.index("</tbody>")]
    stl, mtl, similarity = (
        [("best" in cell, cell) for cell in re.findall(r"<td.*?</td>", line)] for line in table.split("</tr>")[:3]
    )
    assert [stl[0][0], mtl[0][0], similarity[0][0]] == [False, True, True]  # the higher, and a tie
    assert [stl[1][0], mtl[1][0], similarity[1][0]] == [True, False, False]  # the lower
    assert not any(row[2][0] for row in (stl, mtl, similarity))  # all alike: none is
    assert [row[10][0] for row in (stl, mtl, similarity)] == [False, True, True]  # the mean
