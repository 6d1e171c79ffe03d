"""InvokeAI 2 to 5: `invokeai_metadata`, or a graph, since 3; `sd-metadata` and `Dream` before.

Until 2.3 the negative prompt stands in brackets within the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import (
    LARGEST_PROMPT,
    image_prompt,
    joined,
    json_object,
    mapping,
    plain_text,
    sequence,
)

_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_OPTION = re.compile(r"(?:^|\s)-([A-Za-z])\s*([^\s-]\S{0,80})")
_DREAM = {"s": "Steps", "S": "Seed", "W": "Width", "H": "Height", "C": "CFG scale", "A": "Sampler"}
_FIELDS = {"positive": "positive_conditioning", "negative": "negative_conditioning"}
_FARTHEST = 64  # nodes between a picture and its prompt


def read_invokeai(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return InvokeAI's prompt, or None."""
    for field, read in (
        ("invokeai_metadata", _from_metadata),
        ("invokeai_graph", _from_graph),
        ("sd-metadata", _from_sd_metadata),
    ):
        values = json_object(fields.get(field))
        found = None if values is None else read(field, values)
        if found is not None:
            return found
    return _from_dream(fields["Dream"]) if "Dream" in fields else None


def _prompt(field: str, prompt: str, negative: str, settings: Mapping[str, object]) -> ImagePrompt:
    return image_prompt(
        tool="InvokeAI", field=field, prompt=prompt, negative_prompt=negative, dialect="compel", settings=settings
    )


def _from_metadata(field: str, values: Mapping[str, object]) -> ImagePrompt | None:
    if not isinstance(values.get("positive_prompt"), str):
        return None
    settings = {name: value for name, value in values.items() if name not in ("positive_prompt", "negative_prompt")}
    return _prompt(field, plain_text(values["positive_prompt"]), plain_text(values.get("negative_prompt")), settings)


def _from_graph(field: str, values: Mapping[str, object]) -> ImagePrompt | None:
    """The prompts that lead to the conditioning of a denoising node."""
    nodes = mapping(values.get("nodes"))
    sources: dict[tuple[str, str], list[str]] = {}  # (node, field) and node: nodes whose output goes there
    for each in sequence(values.get("edges")):
        edge = mapping(each)
        start, end = mapping(edge.get("source")).get("node_id"), mapping(edge.get("destination"))
        if isinstance(start, str) and isinstance(end.get("node_id"), str):
            for name in (str(end.get("field")), ""):
                sources.setdefault((str(end["node_id"]), name), []).append(start)
    found = {}
    for side, name in _FIELDS.items():
        starts = [node for (_, entry), from_nodes in sources.items() if entry == name for node in from_nodes]
        found[side] = _text_behind(starts, nodes, sources)
    return _prompt(field, found["positive"], found["negative"], {}) if found["positive"] else None


def _text_behind(starts: list[str], nodes: Mapping[str, object], sources: Mapping[tuple[str, str], list[str]]) -> str:
    """The first prompt on the way back from some nodes, each entered once."""
    waiting, met = list(dict.fromkeys(starts)), set()
    for _ in range(_FARTHEST):
        for node in waiting:
            values = mapping(nodes.get(node))
            for name in ("prompt", "value", "string"):
                if plain_text(values.get(name)):
                    return plain_text(values[name])
        met.update(waiting)
        before = [each for node in waiting for each in sources.get((node, ""), [])]
        waiting = [each for each in dict.fromkeys(before) if each not in met]
    return ""


def _from_sd_metadata(field: str, values: Mapping[str, object]) -> ImagePrompt | None:
    image = mapping(values.get("image"))
    if not image:
        images = sequence(values.get("images"))
        image = mapping(images[0]) if images else {}
    written = image.get("prompt")
    if isinstance(written, list):
        written = mapping(written[0]).get("prompt") if written else None
    if not isinstance(written, str):
        return None
    settings = {name: value for name, value in image.items() if name != "prompt"}
    return _prompt(field, *split_brackets(plain_text(written)), settings)


def _from_dream(text: str) -> ImagePrompt | None:
    """A command line: the prompt, in quotes or not, then options of one letter."""
    text = text[: 2 * LARGEST_PROMPT]
    quoted = _QUOTED.match(text)
    first = _OPTION.search(text, quoted.end() if quoted else 0)
    prompt = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text[: first.start()] if first else text
    options = _OPTION.findall(text, quoted.end() if quoted else first.start() if first else len(text))
    settings = {_DREAM[name]: value for name, value in options if name in _DREAM}
    return _prompt("Dream", *split_brackets(plain_text(prompt)), settings) if plain_text(prompt) else None


def split_brackets(text: str) -> tuple[str, str]:
    """Return a prompt without what stands in brackets, and that, its negative prompt. Linear in the size of the text."""
    parts = re.split(r"(\[[^\[\]]*\])", text)
    inside = [part[1:-1].strip() for part in parts[1::2]]
    return " ".join(" ".join(parts[::2]).split()) if inside else text, joined(inside)
