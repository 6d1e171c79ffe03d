"""InvokeAI's prompts, of versions 2 to 5."""

from __future__ import annotations

import json
import time

import pytest
from written import png

from clipcond.images.metadata.image_prompt import plain_prompt
from clipcond.images.metadata.invokeai import read_invokeai, split_brackets

METADATA = {
    "app_version": "5.4.0",
    "positive_prompt": "a (red)1.3 fox++",
    "negative_prompt": "ugly",
    "seed": 5,
    "model": {},
}
GRAPH = {
    "nodes": {
        "noise": {"type": "noise"},
        "pos": {"type": "sdxl_compel_prompt", "prompt": "a fox", "style": ""},
        "neg": {"type": "compel", "prompt": "ugly"},
        "collect": {"type": "collect"},
        "text": {"type": "string", "value": "hen"},
        "denoise": {"type": "denoise_latents"},
    },
    "edges": [
        {"source": {"node_id": "neg", "field": "conditioning"},
         "destination": {"node_id": "denoise", "field": "negative_conditioning"}},
        {"source": {"node_id": "collect", "field": "collection"},
         "destination": {"node_id": "denoise", "field": "positive_conditioning"}},
        {"source": {"node_id": "pos", "field": "conditioning"}, "destination": {"node_id": "collect", "field": "item"}},
    ],
}  # fmt: skip


def prompts(texts: dict[str, str]) -> tuple[str, str, str]:
    found = read_invokeai(png(texts))
    assert found is not None
    assert found.infotext is not None, found.reason
    return found.infotext.prompt, found.infotext.negative_prompt, found.source


def test_metadata_of_version_3_to_5() -> None:
    texts = {"invokeai_metadata": json.dumps(METADATA), "invokeai_graph": json.dumps(GRAPH), "sd-metadata": "{}"}
    assert prompts(texts) == ("a (red)1.3 fox++", "ugly", "invokeai_metadata (InvokeAI)")
    found = read_invokeai(texts)
    assert found is not None
    assert found.infotext is not None
    assert plain_prompt(found.infotext) == "a red fox"
    assert found.infotext.settings == {"app_version": "5.4.0", "seed": "5", "Prompt dialect": "compel"}


def test_the_graph_where_there_is_no_metadata() -> None:
    assert prompts({"invokeai_graph": json.dumps(GRAPH)}) == ("a fox", "ugly", "invokeai_graph (InvokeAI)")
    linked = json.loads(json.dumps(GRAPH))
    linked["nodes"]["pos"]["prompt"] = ""
    linked["edges"].append({"source": {"node_id": "text", "field": "value"},
                            "destination": {"node_id": "pos", "field": "prompt"}})  # fmt: skip
    assert prompts({"invokeai_graph": json.dumps(linked)})[0] == "hen"


@pytest.mark.parametrize(
    "written", ["a fox [ugly, text] in snow [hat]", [{"prompt": "a fox [ugly, text] in snow [hat]", "weight": 1}]]
)
def test_metadata_of_version_2(written: object) -> None:
    text = json.dumps({"model": "sd", "image": {"prompt": written, "steps": 50, "seed": 5}})
    assert prompts({"sd-metadata": text}) == ("a fox in snow", "ugly, text, hat", "sd-metadata (InvokeAI)")
    text = json.dumps({"images": [{"prompt": written}]})
    assert prompts({"sd-metadata": text})[:2] == ("a fox in snow", "ugly, text, hat")


@pytest.mark.parametrize(
    ("text", "positive", "negative"),
    [
        ('"a fox, - in snow [ugly]" -s 50 -S 5 -W 512 -H 512 -C 7.5 -A k_lms', "a fox, - in snow", "ugly"),
        ('"a \\"red\\" fox" -s50 -S5', 'a "red" fox', ""),
        ("a fox -s 50 -S 5", "a fox", ""),
        ('"a fox', '"a fox', ""),
    ],
)
def test_the_command_line_of_version_1(text: str, positive: str, negative: str) -> None:
    assert prompts({"Dream": text}) == (positive, negative, "Dream (InvokeAI)")


def test_the_settings_of_the_command_line() -> None:
    found = read_invokeai({"Dream": '"a -C 3 fox" -s 50 -S 5 -C7.5 -A k_lms'})
    assert found is not None
    assert found.infotext is not None
    assert found.infotext.settings == {
        "Steps": "50", "Seed": "5", "CFG scale": "7.5", "Sampler": "k_lms", "Prompt dialect": "compel",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a [b] c", ("a c", "b")),
        ("a [b", ("a [b", "")),
        ("a [[b]]", ("a [ ]", "b")),
        ("[a]", ("", "a")),
        ("", ("", "")),
    ],
)
def test_brackets(text: str, parts: tuple[str, str]) -> None:
    assert split_brackets(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"positive_prompt": 3}', '{"image": []}', '{"image": {"prompt": []}}', '{"image": {"prompt": [3]}}',
     '{"images": 3}', '{"nodes": [], "edges": {}}', '{"nodes": {"a": 3}, "edges": [3, {}, {"source": {"node_id": []}}]}',
     "[" * 100_000, '{"a":' * 100_000],
)  # fmt: skip
def test_hostile_json_gives_nothing(text: str) -> None:
    for field in ("invokeai_metadata", "invokeai_graph", "sd-metadata"):
        assert read_invokeai({field: text}) is None


def test_circles_and_large_graphs_end() -> None:
    edges = [{"source": {"node_id": f"n{n % 5000}", "field": "x"}, "destination": {"node_id": f"n{n // 2}", "field": "y"}}
             for n in range(20_000)]  # fmt: skip
    edges.append({"source": {"node_id": "n1", "field": "x"},
                  "destination": {"node_id": "d", "field": "positive_conditioning"}})  # fmt: skip
    began = time.process_time()
    assert read_invokeai({"invokeai_graph": json.dumps({"nodes": {}, "edges": edges})}) is None
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text", ['"' + "\\" * 100_000, "[" * 100_000, " -s" * 40_000, "-s" + " " * 100_000, '"' * 100_000]
)
def test_hostile_command_lines_take_no_time(text: str) -> None:
    began = time.process_time()
    read_invokeai({"Dream": text})
    assert time.process_time() - began < 2
