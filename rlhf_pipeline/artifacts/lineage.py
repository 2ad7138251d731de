"""The ancestry of an object, as a tree of text, as a graph in the dot language, and as a picture.

Left out: descendants. An object knows its parents, not what was made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlhf_pipeline.artifacts.manifest import HUB_PIN
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.artifacts.store import Store


def text_tree(store: Store, name: str) -> str:
    """Draw `name`, its parents by role, and the data each was made from; what was shown above is not shown again."""
    return "\n".join([_title(store, name), *_branches(store, name, "", {name})])


def _branches(store: Store, name: str, indent: str, shown: set[str]) -> Iterator[str]:
    """Yield the lines below `name`."""
    children = [("data", f"{data} {fingerprint[:19]}", "") for data, fingerprint in _data(store, name)]
    children += [(role, parent, parent) for role, parent in _parents(store, name)]
    for number, (role, text, parent) in enumerate(children, start=1):
        last = number == len(children)
        again = " (above)" if parent in shown else ""
        title = _title(store, parent) if parent and not again else text
        yield f"{indent}{'└── ' if last else '├── '}{role}: {title}{again}"
        if parent and not again:
            shown.add(parent)
            yield from _branches(store, parent, indent + ("    " if last else "│   "), shown)


def _title(store: Store, name: str) -> str:
    if HUB_PIN.fullmatch(name):
        return name
    return f"{name}  {store.manifest(name).created}" if store.has(name) else f"{name} (missing)"


def _parents(store: Store, name: str) -> list[tuple[str, str]]:
    known = store.has(name) and not HUB_PIN.fullmatch(name)
    return sorted(store.manifest(name).parents.items()) if known else []


def _data(store: Store, name: str) -> list[tuple[str, str]]:
    known = store.has(name) and not HUB_PIN.fullmatch(name)
    return sorted(store.manifest(name).data.items()) if known else []


def edges(store: Store, name: str) -> list[tuple[str, str, str]]:
    """Return (child, role, parent) for `name` and all its ancestors, each edge once."""
    found: list[tuple[str, str, str]] = []
    waiting, seen = [name], {name}
    while waiting:
        child = waiting.pop(0)
        for role, parent in _parents(store, child):
            found.append((child, role, parent))
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return found


def dot(store: Store, name: str) -> str:
    """Write the ancestry in the dot language, parents on the left."""
    arrows = [f'  "{parent}" -> "{child}" [label="{role}"];' for child, role, parent in edges(store, name)]
    return "\n".join(["digraph lineage {", "  rankdir=LR;", "  node [shape=box];", f'  "{name}";', *arrows, "}"])


def draw(store: Store, name: str, picture: Path) -> None:
    """Draw the ancestry of `name` to the file `picture` (.png, .svg or .pdf): the oldest ancestors on the left."""
    from matplotlib.figure import Figure

    arrows = edges(store, name)
    places = _places(name, arrows)
    columns = 1 + max(-x for x, _ in places.values())
    bottom, top = min(y for _, y in places.values()) - 1, max(y for _, y in places.values()) + 1
    figure = Figure(figsize=(1 + 2.8 * columns, top - bottom))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-columns + 0.4, 0.6)
    axes.set_ylim(bottom, top)
    for child, role, parent in arrows:
        axes.annotate(
            "", xy=places[child], xytext=places[parent], arrowprops={"arrowstyle": "->", "shrinkA": 40, "shrinkB": 40}
        )
        (x0, y0), (x1, y1) = places[parent], places[child]
        paper = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
        axes.text((x0 + x1) / 2, (y0 + y1) / 2, role, ha="center", va="center", fontsize=8, color="0.35", bbox=paper)
    for node, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "0.3"}
        axes.text(x, y, _wrapped(node), ha="center", va="center", fontsize=8, family="monospace", bbox=box)
    with storage_errors(f"{picture}: cannot write"):
        figure.savefig(picture, dpi=150)


def _wrapped(node: str) -> str:
    if HUB_PIN.fullmatch(node):
        name, _, commit = node.partition("@")
        return f"{name}\n@{commit[:12]}"
    return node.replace("-", "\n")


def _places(name: str, arrows: list[tuple[str, str, str]]) -> dict[str, tuple[float, float]]:
    """Return x and y of every node: x is minus the longest way to `name`, y spreads a column around 0.

    Every second column is raised, so that an arrow over two columns does not run through the box between.
    """
    depth = {name: 0}
    for _ in arrows:  # the longest way is never longer than the number of edges
        for child, _, parent in arrows:
            if child in depth:
                depth[parent] = max(depth.get(parent, 0), depth[child] + 1)
    columns: dict[int, list[str]] = {}
    for node, column in depth.items():
        columns.setdefault(column, []).append(node)
    return {
        node: (-float(column), 1.2 * (position - (len(nodes) - 1) / 2) + 0.7 * (column % 2))
        for column, nodes in columns.items()
        for position, node in enumerate(nodes)
    }
