"""The charts: what is drawn stands where it should, is not invented, and does not overlap."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree as Tree

import report_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.report import lineage, tradeoff, view, waterfall
from edgekit.report.lineage import Node
from edgekit.report.svg import Box, linear_ticks, log_ticks, text_width
from edgekit.report.tradeoff import Point

WIDTH, HEIGHT = 1042.0, 440.0


def point(name: str, latency: float, accuracy: float, size: int = 1_000_000) -> Point:
    return Point(name, "onnx", latency, accuracy, size)


def label_boxes(svg: str) -> list[Box]:
    """The boxes of the plot's labels: a name and the figures under it."""
    texts = [t for t in Tree.fromstring(svg).iter("text") if "halo" in t.attrib["class"]]
    boxes = []
    for name, note in zip(texts[::2], texts[1::2], strict=True):
        width = max(text_width(name.text or "", 12), text_width(note.text or "", 11))
        boxes.append(Box(float(name.attrib["x"]), float(name.attrib["y"]) - 12, width, 28))
    return boxes


def test_the_front_is_what_nothing_beats() -> None:
    a, b, c, d = point("a", 1, 0.9), point("b", 2, 0.92), point("c", 2.5, 0.91), point("d", 1, 0.89)
    assert tradeoff.pareto([d, c, b, a]) == [a, b]
    assert tradeoff.pareto([a, a]) == [a, a]
    assert tradeoff.pareto([]) == []


@given(st.lists(st.tuples(st.floats(0.01, 500), st.floats(0, 1), st.integers(0, 10**9)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_points_draw_inside_and_apart(values: list[tuple[float, float, int]]) -> None:
    points = [point(f"variant-{n}", *value) for n, value in enumerate(values)]
    svg = tradeoff.draw(points, WIDTH, HEIGHT)
    root = Tree.fromstring(svg)
    assert len([c for c in root.iter("circle") if "bubble" in c.attrib["class"]]) == len(points)
    for circle in root.iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT
    boxes = label_boxes(svg)
    for box in boxes:
        assert box.outside(Box(0, 0, WIDTH, HEIGHT)) < 1
    for first, second in combinations(boxes, 2):
        assert first.overlap(second) < 1


def test_bubble_areas_are_sizes() -> None:
    root = Tree.fromstring(tradeoff.draw([point("a", 1, 0.9, 4_000_000), point("b", 3, 0.9, 1_000_000)], WIDTH, HEIGHT))
    big, small = (float(c.attrib["r"]) for c in root.iter("circle") if "bubble" in c.attrib["class"])
    assert abs((big / small) ** 2 - 4) < 0.1


def test_nothing_measured_draws_nothing() -> None:
    assert tradeoff.draw([], WIDTH, HEIGHT) == ""
    assert tradeoff.draw([point("a", float("nan"), 0.9)], WIDTH, HEIGHT) == ""


def test_whiskers_follow_the_intervals() -> None:
    int8 = next(p for p in view.plot_points(report_sample.sample()) if p.name == "int8")
    assert int8.accuracy_range is not None
    assert int8.latency_range is not None
    assert [round(v, 3) for v in int8.accuracy_range] == [0.918, 0.931]
    assert int8.latency_range[0] < int8.latency < int8.latency_range[1]


def test_latency_stands_only_where_an_export_was_measured() -> None:
    latency = {row.name: row for row in view.panels(report_sample.sample())[2].rows}
    assert {name for name, row in latency.items() if row.value is None} == {
        "start",
        "distill",
        "vocabulary",
        "ffn",
        "gguf",
    }
    assert latency["teacher"].note == "as teacher-onnx"
    assert latency["factorize"].before_name == "teacher"
    assert latency["onnx"].before is None  # the same measurement as its source's
    svg = waterfall.draw(view.panels(report_sample.sample())[2])
    assert svg.count(">not exported<") == 5


def test_the_waterfall_follows_the_headline_then_the_branches() -> None:
    rows = view.panels(report_sample.sample())[1].rows
    assert [row.name for row in rows[:8]] == [
        "teacher",
        "start",
        "distill",
        "vocabulary",
        "ffn",
        "factorize",
        "onnx",
        "int8",
    ]
    assert [row.heading for row in rows if row.heading] == ["other branches"]
    assert waterfall.change_text("size", rows[1]) == "\u221247%"
    assert waterfall.change_text("size", rows[-1]) == "\u221241% vs gguf"


def test_a_model_at_chance_does_not_flatten_the_others() -> None:
    svg = waterfall.draw(view.panels(report_sample.sample())[0])
    assert "axis from 90%, ◂ below it" in svg
    assert ">41.2%<" in svg


def test_every_bar_stays_on_its_track() -> None:
    for panel in view.panels(report_sample.sample()):
        for rect in Tree.fromstring(waterfall.draw(panel)).iter("rect"):
            assert float(rect.attrib["x"]) >= 0
            assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= 336.1


def test_a_panel_without_values_is_empty() -> None:
    report = report_sample.sample()
    bare = report.model_copy(update={"deployables": (), "baseline": None})
    assert waterfall.draw(view.panels(bare)[2]) == ""


def boxes_of(svg: str) -> list[Box]:
    rects = (r.attrib for r in Tree.fromstring(svg).iter("rect"))
    return [Box(*(float(r[k]) for k in ("x", "y", "width", "height"))) for r in rects]


@given(st.lists(st.integers(min_value=0, max_value=30), max_size=14))
@settings(max_examples=60, deadline=None)
def test_any_graph_draws_every_step_once_and_apart(choices: list[int]) -> None:
    nodes = [Node("model", "", style="source")]
    for n, choice in enumerate(choices):
        nodes.append(Node(f"s{n}", "", (nodes[choice % len(nodes)].name, nodes[choice // 2 % len(nodes)].name)))
    for svg in (lineage.draw_wide(nodes, 1042), lineage.draw_tree(nodes, 340)):
        boxes = boxes_of(svg)
        assert len(boxes) == len(nodes)
        assert all(a.overlap(b) < 0.5 for a, b in combinations(boxes, 2))
        width = float(Tree.fromstring(svg).attrib["width"])
        assert all(b.x >= 0 and b.x + b.width <= width for b in boxes)


def test_unknown_parents_and_rings_do_not_loop() -> None:
    nodes = [Node("a", "", ("b",)), Node("b", "", ("a", "b"))]
    assert len(boxes_of(lineage.draw_wide(nodes, 500))) == 2


def test_ticks_are_round_and_inside() -> None:
    assert log_ticks(0.4, 11) == [0.5, 1, 2, 5, 10]
    assert len(log_ticks(2.1, 4.9)) > 1
    assert [round(v, 3) for v in linear_ticks(0.914, 0.937)] == [0.915, 0.92, 0.925, 0.93, 0.935]


def test_the_svg_says_what_it_shows() -> None:
    report = report_sample.sample()
    svg = tradeoff.draw(view.plot_points(report), WIDTH, HEIGHT, "int8")
    spoken = re.search(r'aria-label="([^"]*)"', svg)
    assert spoken is not None
    assert "int8 0.814 ms, 92.5%, 3.72 MB" in spoken[1]
