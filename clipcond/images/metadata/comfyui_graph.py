"""ComfyUI graphs in one shape: nodes by id, each with its class and its inputs, which are values or links to a node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clipcond.images.metadata.json_text import mapping, sequence

_TEXTUAL = re.compile(r"text|string|prompt|primitive|wildcard", re.IGNORECASE)
_MUTED = (2, 4)  # modes of a node that does nothing


@dataclass(frozen=True, slots=True)
class Link:
    """An output of a node."""

    node: str
    output: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node: `inputs` are links, strings, numbers and whatever else a file says."""

    kind: str
    inputs: Mapping[str, object]


Graph = Mapping[str, Node]


def api_graph(values: Mapping[str, object]) -> Graph:
    """Return the graph that ComfyUI was asked to run: `{id: {"class_type": …, "inputs": {…}}}`; empty if it is none."""
    nodes = {}
    for number, each in values.items():
        node = mapping(each)
        if isinstance(node.get("class_type"), str):
            inputs = {name: _link_or_value(value) for name, value in mapping(node.get("inputs")).items()}
            nodes[number] = Node(str(node["class_type"]), inputs)
    return nodes


def editor_graph(values: Mapping[str, object]) -> Graph:
    """Return the graph of the editor, `{"nodes": […], "links": […]}`, as far as texts are concerned; empty if it is none.

    The editor does not name the values of a node: of one that is about text, the longest string is its text.
    """
    links = {}
    for each in sequence(values.get("links")):
        parts = sequence(each)
        if len(parts) >= 3 and isinstance(parts[0], int) and isinstance(parts[2], int):
            links[parts[0]] = Link(str(parts[1]), parts[2])
    nodes = {}
    for each in sequence(values.get("nodes")):
        node = mapping(each)
        kind, number = node.get("type"), node.get("id")
        if isinstance(kind, str) and isinstance(number, (int, str)):
            muted = node.get("mode") in _MUTED
            nodes[str(number)] = Node("Muted" if muted else kind, _editor_inputs(kind, node, links))
    return nodes


def _editor_inputs(kind: str, node: Mapping[str, object], links: Mapping[int, Link]) -> dict[str, object]:
    inputs: dict[str, object] = {}
    for each in sequence(node.get("inputs")):
        entry = mapping(each)
        name, link = entry.get("name"), entry.get("link")
        if isinstance(name, str) and isinstance(link, int) and link in links:
            inputs[name] = links[link]
    texts = [value for value in sequence(node.get("widgets_values")) if isinstance(value, str)]
    if texts and _TEXTUAL.search(kind[:200]) and "text" not in inputs:
        inputs["text"] = max(texts, key=len)
    return inputs


def _link_or_value(value: object) -> object:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int):
        return Link(str(value[0])[:200], value[1]) if not _huge(value[0]) else None
    return value


def _huge(value: str | int) -> bool:
    """True for a number of thousands of digits, which cannot be written."""
    return isinstance(value, int) and value.bit_length() > 64
