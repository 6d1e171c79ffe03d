"""ComfyUI: the texts of the graph in `prompt`, traced from the saved picture to its sampler and on to the encoders.

Conditioning is followed through whatever changes or combines it, text through nodes that pass or join strings. Where
no way leads from a picture to a text, the encoders' texts are named as candidates: none is taken by guess.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from clipcond.images.metadata.comfyui_graph import Graph, Link, Node, api_graph, editor_graph
from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import LARGEST_PROMPT, image_prompt, joined, json_object, plain_text
from clipcond.wording import visible

_EXIF = ("exif:Model", "exif:Make", "exif:ImageDescription", "exif:DocumentName", "exif:0x010C")
_MOST_SAVED = 16  # pictures of one graph
_DEEPEST = 64  # nodes from a sampler to a text
_ENCODERS = (("text_g", "text_l"), ("clip_l", "clip_g", "t5xxl", "llama"))  # one prompt for several encoders
_TEXTS = (
    "populated_text", "text", "string", "prompt", "value", "text_positive", "positive_prompt", "wildcard_text", "Text",
    "STRING", "result", "caption",
)  # fmt: skip
_JOINED = re.compile(r"(?:text|string|str|prompt|input)[ _]?(?:[a-z]|\d{1,3})", re.IGNORECASE)
_CONDITIONING = (
    "conditioning", "conditioning_1", "conditioning_2", "conditioning_to", "conditioning_from", "cond1", "cond",
    "positive_conditioning",
)  # fmt: skip
_BUNDLES = ("pipe", "basic_pipe", "context", "ctx", "base_ctx", "bus")
_PASSED_ON = re.compile(r".*cond|any|input|value|text|string|on_true|on_false|\*?$", re.IGNORECASE)
_NOTHING = "ConditioningZeroOut"  # an encoder's output with its text wiped out
_SETTINGS = {"steps": "Steps", "sampler_name": "Sampler", "cfg": "CFG scale", "seed": "Seed", "noise_seed": "Seed",
             "scheduler": "Schedule type", "denoise": "Denoising strength"}  # fmt: skip


def read_comfyui(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return the prompt of a ComfyUI graph, the reason why its graph has none, or None where there is no graph."""
    reasons = []
    for name, make in (("prompt", api_graph), ("workflow", editor_graph)):
        for field, text in _texts_of(name, fields):
            values = json_object(text)
            graph = {} if values is None else make(values)
            if graph:
                found = _traced(field, graph)
                if found.infotext is not None:
                    return found
                reasons.append(found)
    return reasons[0] if reasons else None


def _texts_of(name: str, fields: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """The PNG text of that name, and EXIF strings `prompt:{…}`, as the program writes them, or `Prompt:{…}`, as others do."""
    if name in fields:
        yield name, fields[name]
    for field in _EXIF:
        head, colon, tail = fields.get(field, "").partition(":")
        if colon and len(head) < 20 and head.strip().lower() == name:
            yield field, tail


def _traced(field: str, graph: Graph) -> ImagePrompt:
    """The prompt of the saved picture; a reason where there is none, or where several pictures have different ones."""
    found: dict[str, tuple[Node, str]] = {}
    for sampler in _samplers(graph):
        positive, negative = (_Trace(graph, side).conditioning(sampler) for side in ("positive", "negative"))
        if positive:
            found.setdefault(positive, (sampler, negative))
    if len(found) == 1:
        ((positive, (sampler, negative)),) = found.items()
        return image_prompt(
            tool="ComfyUI",
            field=field,
            prompt=positive,
            negative_prompt=negative,
            dialect="comfy",
            settings={_SETTINGS[name]: value for name, value in sampler.inputs.items() if name in _SETTINGS},
        )
    if found:
        problem = f"its ComfyUI graph saves pictures of {len(found)} prompts ({_shown(found)})"
    else:
        texts = _encoder_texts(graph)
        candidates = f" (its encoders have {_shown(texts)})" if texts else ""
        problem = f"its ComfyUI graph does not lead from the picture to a prompt{candidates}"
    return ImagePrompt(None, f"{field} (ComfyUI)", f"{problem}; pass a prompt")


def _shown(texts: Collection[str]) -> str:
    quoted = [f'"{visible(text[:60])}{"…" * (len(text) > 60)}"' for text in list(texts)[:3]]
    return "; ".join([*quoted, "…"] if len(texts) > 3 else quoted)


def _samplers(graph: Graph) -> list[Node]:
    """The sampler that is nearest to each saved picture, or to each shown one, or the only one that there is."""
    for endings in (("save",), ("preview", "output", "display")):
        starts = [name for name, node in graph.items() if any(word in node.kind.lower() for word in endings)]
        nearest = [_nearest_sampler(graph, name) for name in starts[:_MOST_SAVED]]
        found = [node for node in nearest if node is not None]
        if found:
            return found
    samplers = [node for node in graph.values() if _is_sampler(node)]
    return samplers if len(samplers) == 1 else []


def _nearest_sampler(graph: Graph, start: str) -> Node | None:
    waiting, met = [start], {start}
    while waiting:
        before = []
        for name in waiting:
            node = graph[name]
            if _is_sampler(node):
                return node
            for value in node.inputs.values():
                if isinstance(value, Link) and value.node in graph and value.node not in met:
                    met.add(value.node)
                    before.append(value.node)
        waiting = before
    return None


def _is_sampler(node: Node) -> bool:
    linked = {name for name, value in node.inputs.items() if isinstance(value, Link)}
    if "sampler" not in node.kind.lower():
        return "positive" in linked and bool(linked & {"latent_image", "model"})
    return bool(linked & {"positive", "guider", "conditioning", *_BUNDLES})


def _encoder_texts(graph: Graph) -> list[str]:
    texts = []
    for node in graph.values():
        if "encode" in node.kind.lower() and "text" in node.kind.lower():
            texts.append(joined(plain_text(node.inputs.get(name)) for name in ("text", "text_g", "text_l", "prompt")))
    return list(dict.fromkeys(text for text in texts if text))


class _Trace:
    """A way back from a sampler's positive or negative input to its texts. Each output is entered once."""

    def __init__(self, graph: Graph, side: str) -> None:
        self._graph, self._side = graph, side
        self._met: set[tuple[str, int, str]] = set()
        self._depth = 0
        self._size = 0  # characters found

    def conditioning(self, node: Node) -> str:
        """The texts that lead to a sampler or guider."""
        if self._side in node.inputs:
            return self._conditioning(node.inputs[self._side])
        guider = self._enter(node.inputs.get("guider"), "guider")
        if guider is not None:
            return self.conditioning(guider)
        names = ("conditioning", "cond1", *_BUNDLES) if self._side == "positive" else _BUNDLES
        return next((text for name in names if (text := self._conditioning(node.inputs.get(name)))), "")

    def _conditioning(self, value: object) -> str:
        """The texts behind a conditioning; a string where a node takes the text itself."""
        if isinstance(value, str):
            return self._count(plain_text(value))
        node = self._enter(value, "conditioning")
        if node is None or not isinstance(value, Link):
            return ""
        self._depth += 1
        try:
            return self._encoded(node) or self._passed(node, value.output)
        finally:
            self._depth -= 1

    def _encoded(self, node: Node) -> str:
        """The text of a node that encodes one; of several texts for several encoders the longest, or both of SDXL's."""
        if node.kind == _NOTHING:
            return ""
        for names in _ENCODERS:
            texts = [self._text(node.inputs[name]) for name in names if name in node.inputs]
            if any(texts):
                return joined(texts) if "text_g" in names else max(texts, key=len)
        if self._has_conditioning(node):
            return ""
        return self._first_text(node)

    def _has_conditioning(self, node: Node) -> bool:
        names = (*_CONDITIONING, "positive", "negative", *_BUNDLES)
        return any(isinstance(node.inputs.get(name), Link) for name in names)

    def _passed(self, node: Node, output: int) -> str:
        """The texts of a node that changes or combines conditioning; an encoder of no text passes none on."""
        if node.kind == _NOTHING or "clip" in node.inputs:
            return ""
        if "positive" in node.inputs and "negative" in node.inputs:  # a pair: the outputs are in the inputs' order
            bundled = not all(isinstance(node.inputs[side], Link) for side in ("positive", "negative"))
            side = self._side if bundled or output not in (0, 1) else ("positive", "negative")[output]
            return self._conditioning(node.inputs[side])
        texts = [self._conditioning(node.inputs[name]) for name in _CONDITIONING if name in node.inputs]
        if any(texts):
            return joined(texts)
        guides = self.conditioning(node)
        if guides:
            return guides
        return next((text for link in _passing(node) if (text := self._conditioning(link))), "")

    def _text(self, value: object) -> str:
        """A string, or the string that a link leads to."""
        if isinstance(value, str):
            return self._count(plain_text(value))
        node = self._enter(value, "text")
        if node is None:
            return ""
        self._depth += 1
        try:
            return self._joined(node) or self._first_text(node) or self._passed_on(node)
        finally:
            self._depth -= 1

    def _joined(self, node: Node) -> str:
        """The texts of a node that joins several."""
        names = [name for name in node.inputs if len(name) < 20 and _JOINED.fullmatch(name)]
        if len(names) < 2:
            return ""
        delimiter = next((node.inputs[name] for name in ("delimiter", "separator") if name in node.inputs), ", ")
        texts = [self._text(node.inputs[name]) for name in names[:64]]
        between = delimiter if isinstance(delimiter, str) and len(delimiter) < 20 else ", "
        return between.replace("\\n", "\n").join(text for text in texts if text).strip()

    def _first_text(self, node: Node) -> str:
        """The text of the first input that has one, an input for this side first."""
        names = (self._side, f"text_{self._side}", f"{self._side}_prompt", f"prompt_{self._side}", *_TEXTS)
        other = "negative" if self._side == "positive" else "positive"
        for name in names:
            if name in node.inputs and other not in name:
                text = self._text(node.inputs[name])
                if text:
                    return text
        return ""

    def _passed_on(self, node: Node) -> str:
        """The text behind a node that passes it on: a reroute, or the first used input of a switch."""
        return next((text for link in _passing(node) if (text := self._text(link))), "")

    def _enter(self, value: object, what: str) -> Node | None:
        """The node that a link leads to, unless this output was entered before, or the way is too long."""
        if not isinstance(value, Link) or self._depth > _DEEPEST or (value.node, value.output, what) in self._met:
            return None
        self._met.add((value.node, value.output, what))
        return self._graph.get(value.node)

    def _count(self, text: str) -> str:
        """The text while there is room for more; what goes beyond is too large for a prompt in any case."""
        self._size += len(text)
        return text if self._size <= max(2 * LARGEST_PROMPT, len(text)) else ""


def _passing(node: Node) -> list[Link]:
    """The links that a node may pass on: the only one that it has, or those whose names say so."""
    links = {name: value for name, value in node.inputs.items() if isinstance(value, Link)}
    if len(links) == 1:
        return list(links.values())
    return [link for name, link in links.items() if _PASSED_ON.match(name[:100])][:16]
