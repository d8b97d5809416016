"""The step graph from the source to each deployable: left to right on a wide page, an indented tree on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from edgekit.report.svg import Box, Canvas, fit

__all__ = ["Node", "draw_tree", "draw_wide"]

_TALL = 46.0
_INDENT = 22.0


@dataclass(frozen=True)
class Node:
    """A step. The first of `parents` is the model it changed, the others (a teacher) are drawn dashed."""

    name: str
    note: str
    parents: tuple[str, ...] = ()
    style: str = "step"  # source, step, onnx or gguf


@dataclass
class _Tree:
    """The nodes by their first parent. The deepest child goes straight on, the others branch off."""

    nodes: dict[str, Node]
    children: dict[str, list[str]] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)
    depths: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> _Tree:
        """Parents that do not stand before their child (a damaged report) are left out: no cycle can come in."""
        tree = cls({})
        for node in nodes:
            known = tuple(p for p in node.parents if p in tree.nodes)
            tree.nodes[node.name] = Node(node.name, node.note, known, node.style)
            (tree.children.setdefault(known[0], []) if known else tree.roots).append(node.name)
        for name in reversed(tree.nodes):
            tree.depths[name] = 1 + max((tree.depths[c] for c in tree.children.get(name, [])), default=0)
        return tree

    def straight_first(self, name: str) -> list[str]:
        return sorted(self.children.get(name, []), key=lambda child: -self.depths[child])


def draw_wide(nodes: Sequence[Node], width: float) -> str:
    """Columns by distance from the source, a line a branch; at least `width` wide, wider for long chains."""
    tree = _Tree.of(nodes)
    cells = _grid(tree)
    lanes = 1 + max((lane for _, lane in cells.values()), default=0)
    columns = 1 + max((column for column, _ in cells.values()), default=0)
    pitch = min(max(width / columns, 128), 210)
    wide, gap = pitch - 26, 26.0
    top = 20.0 if any(len(n.parents) > 1 for n in tree.nodes.values()) else 2.0
    canvas = Canvas(max(width, columns * pitch - gap + 2), top + lanes * (_TALL + 16) - 14, _spoken(nodes))
    boxes = {n: Box(1 + c * pitch, top + r * (_TALL + 16), wide, _TALL) for n, (c, r) in cells.items()}
    for node in tree.nodes.values():
        for number, parent in enumerate(node.parents):
            (_arrow if number == 0 else _arc)(canvas, boxes[parent], boxes[node.name])
    for node in tree.nodes.values():
        _box(canvas, node, boxes[node.name])
    return str(canvas)


def _grid(tree: _Tree) -> dict[str, tuple[int, int]]:
    """Column and lane of each node: a branch takes the first lane below its parent's that is free as far as it goes."""
    cells: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    # Iterative, so that a chain of any length draws: (name, column, lane of the parent, whether it goes straight on).
    waiting = [(root, 0, -1, False) for root in reversed(tree.roots)]
    while waiting:
        name, column, lane, straight = waiting.pop()
        if not straight:
            run = range(column - 1, column + tree.depths[name])
            lane = next(n for n in count(lane + 1) if not any((c, n) in taken for c in run))
            taken.update((c, lane) for c in run)
        cells[name] = (column, lane)
        first, *others = tree.straight_first(name) or [""]
        waiting += [(child, column + 1, lane, False) for child in reversed(others)]
        if first:
            waiting.append((first, column + 1, lane, True))
    return cells


def draw_tree(nodes: Sequence[Node], width: float) -> str:
    """One row a step; branches are indented, so that no line crosses a box. Second parents stand in the note."""
    tree = _Tree.of(nodes)
    rows: list[tuple[str, int]] = []
    waiting = [(root, 0) for root in reversed(tree.roots)]
    while waiting:
        name, lane = waiting.pop()
        rows.append((name, lane))
        straight, *side = tree.straight_first(name) or [""]
        if straight:
            waiting.append((straight, lane))
        waiting += [(child, lane + 1) for child in reversed(side)]
    step = _TALL + 14
    canvas = Canvas(width, len(rows) * step - 12, _spoken(nodes))
    # Deep nesting stops indenting before the boxes get too narrow to read.
    most = (width - 180) / _INDENT
    boxes = {
        name: Box(1 + min(lane, most) * _INDENT, 1 + row * step, width - 2 - min(lane, most) * _INDENT, _TALL)
        for row, (name, lane) in enumerate(rows)
    }
    for name, _ in rows:
        node, box = tree.nodes[name], boxes[name]
        if node.parents:
            parent = boxes[node.parents[0]]
            rail, bottom = parent.x + 10, parent.y + parent.height
            below = box.x == parent.x
            d = f"M{rail:.1f} {bottom:.1f}V{box.y - 2 if below else box.y + _TALL / 2:.1f}"
            canvas.path(d if below else f"{d}H{box.x - 2:.1f}", "edge")
            _head(canvas, rail if below else box.x, box.y if below else box.y + _TALL / 2, down=below)
        others = f" · reads {', '.join(node.parents[1:])} too" if len(node.parents) > 1 else ""
        _box(canvas, Node(node.name, node.note + others, node.parents, node.style), box)
    return str(canvas)


def _spoken(nodes: Sequence[Node]) -> str:
    return "Steps: " + "; ".join(f"{n.name} from {' and '.join(n.parents)}" if n.parents else n.name for n in nodes)


def _box(canvas: Canvas, node: Node, box: Box) -> None:
    with canvas.group(f"{node.name}: {node.note}"):
        canvas.rect(box, f"node {node.style}", 6)
        canvas.text(box.x + 10, box.y + 19, fit(node.name, box.width - 16, 12.5), "t name")
        canvas.text(box.x + 10, box.y + 35, fit(node.note, box.width - 16, 11), "tick")


def _arrow(canvas: Canvas, start: Box, end: Box) -> None:
    x1, y1, x2, y2 = start.x + start.width, start.y + _TALL / 2, end.x, end.y + _TALL / 2
    middle = x1 + 10
    d = f"M{x1:.1f} {y1:.1f}H{x2 - 2:.1f}" if y1 == y2 else f"M{x1:.1f} {y1:.1f}H{middle:.1f}V{y2:.1f}H{x2 - 2:.1f}"
    canvas.path(d, "edge")
    _head(canvas, x2, y2, down=False)


def _arc(canvas: Canvas, start: Box, end: Box) -> None:
    """Dashed: over the boxes between, or straight up from a lower line."""
    if start.y > end.y:
        x = end.x + end.width / 2
        canvas.path(f"M{start.x + start.width / 2:.1f} {start.y:.1f}L{x:.1f} {end.y + _TALL + 2:.1f}", "edge dashed")
        return
    x1, x2, high = start.x + start.width * 0.75, end.x + end.width / 2, min(start.y, end.y) - 14
    curve = f"C{x1:.1f} {high:.1f} {x2:.1f} {high:.1f} {x2:.1f} {end.y - 2:.1f}"
    canvas.path(f"M{x1:.1f} {start.y:.1f}{curve}", "edge dashed")
    _head(canvas, x2, end.y, down=True)


def _head(canvas: Canvas, x: float, y: float, *, down: bool) -> None:
    canvas.path(f"M{x:.1f} {y:.1f}" + ("l-4 -7h8z" if down else "l-7 -4v8z"), "head")
