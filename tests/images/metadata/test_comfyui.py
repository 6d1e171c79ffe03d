"""ComfyUI graphs, as the program and third-party savers write them, traced to their prompts."""

from __future__ import annotations

import json
import time
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.images.metadata.comfyui import read_comfyui
from clipcond.images.metadata.fields import text_fields
from clipcond.images.metadata.image_prompt import ImagePrompt, plain_prompt
from clipcond.images.metadata.more_fields import more_text_fields

Nodes = dict[str, Any]


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


def graph(positive: object = "a (red:1.2) fox", negative: object = "blurry", **more: dict[str, object]) -> Nodes:
    """ComfyUI's own first workflow, with other nodes added or in place of its own."""
    return {
        "3": node("KSampler", seed=5, steps=20, cfg=8.0, sampler_name="euler", model=["4", 0], positive=["6", 0],
                  negative=["7", 0], latent_image=["5", 0]),
        "4": node("CheckpointLoaderSimple", ckpt_name="model.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "6": node("CLIPTextEncode", text=positive, clip=["4", 1]),
        "7": node("CLIPTextEncode", text=negative, clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="ComfyUI"),
    } | more  # fmt: skip


def read(nodes: object) -> ImagePrompt | None:
    return read_comfyui({"prompt": json.dumps(nodes)})


def prompts(nodes: object) -> tuple[str, str]:
    found = read(nodes)
    assert found is not None
    assert found.infotext is not None, found.reason
    return found.infotext.prompt, found.infotext.negative_prompt


def saved(image_format: str, **options: object) -> dict[str, str]:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format, **options)  # type: ignore[arg-type]
    image = Image.open(BytesIO(buffer.getvalue()))
    image.load()
    return {**more_text_fields(image), **text_fields(image)}


def exif(values: dict[int, str]) -> bytes:
    block = Image.Exif()
    for tag, value in values.items():
        block[tag] = value
    return block.tobytes()


def test_png_text() -> None:
    text = PngInfo()
    text.add_text("prompt", json.dumps(graph()))
    text.add_text("workflow", json.dumps({"nodes": [], "links": []}))
    found = read_comfyui(saved("PNG", pnginfo=text))
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a (red:1.2) fox", "blurry")
    assert found.infotext.settings == {
        "Seed": "5", "Steps": "20", "CFG scale": "8.0", "Sampler": "euler", "Prompt dialect": "comfy",
    }  # fmt: skip
    assert found.source == "prompt (ComfyUI)"
    assert plain_prompt(found.infotext) == "a red fox"


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({0x0110: f"prompt:{json.dumps(graph())}", 0x010F: 'workflow:{"nodes": []}'}, "exif:Model (ComfyUI)"),
        ({0x010F: f"Prompt:{json.dumps(graph())}", 0x010E: 'Workflow:{"nodes": []}'}, "exif:Make (ComfyUI)"),
    ],
)
@pytest.mark.parametrize("image_format", ["WEBP", "JPEG"])
def test_exif_as_the_program_and_as_others_write_it(values: dict[int, str], source: str, image_format: str) -> None:
    found = read_comfyui(saved(image_format, exif=exif(values)))
    assert found is not None
    assert found.infotext is not None
    assert (found.infotext.prompt, found.source) == ("a (red:1.2) fox", source)


def test_the_chunk_of_animated_pngs() -> None:
    text = PngInfo()
    text.add(b"comf", b"prompt\0" + json.dumps(graph()).encode(), after_idat=True)
    found = read_comfyui(saved("PNG", pnginfo=text))
    assert found is not None
    assert found.infotext is not None
    assert found.infotext.prompt == "a (red:1.2) fox"


def test_a_camera_in_the_exif_model_is_no_graph() -> None:
    assert read_comfyui(saved("JPEG", exif=exif({0x0110: "Camera 3000", 0x010F: "prompt: none"}))) is None


def test_the_positive_input_counts_not_the_order_of_the_encoders() -> None:
    nodes = graph()
    nodes["3"]["inputs"]["positive"], nodes["3"]["inputs"]["negative"] = ["7", 0], ["6", 0]
    assert prompts(nodes) == ("blurry", "a (red:1.2) fox")


@pytest.mark.parametrize(
    "more",
    [
        {"10": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["11", 0], image=["12", 0])},
        {"10": node("ControlNetApplyAdvanced", negative=["7", 0], positive=["13", 0], control_net=["11", 0]),
         "13": node("ConditioningSetArea", conditioning=["6", 0], width=64)},
    ],
)  # fmt: skip
def test_pairs_are_followed_by_their_output(more: Nodes) -> None:
    nodes = graph(**more)
    nodes["3"]["inputs"] |= {"positive": ["10", 0], "negative": ["10", 1]}
    assert prompts(nodes) == ("a (red:1.2) fox", "blurry")
    nodes["3"]["inputs"] |= {"positive": ["10", 1], "negative": ["10", 0]}
    assert prompts(nodes) == ("blurry", "a (red:1.2) fox")


@pytest.mark.parametrize(
    "more",
    [
        {"10": node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["11", 0])},
        {"10": node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["11", 0])},
        {"10": node("ConditioningAverage", conditioning_to=["6", 0], conditioning_from=["11", 0], strength=0.5)},
    ],
)
def test_conditioning_that_is_combined_has_both_texts(more: Nodes) -> None:
    nodes = graph(**more, **{"11": node("CLIPTextEncode", text="in snow", clip=["4", 1])})
    nodes["3"]["inputs"]["positive"] = ["10", 0]
    assert prompts(nodes)[0] == "a (red:1.2) fox, in snow"


@pytest.mark.parametrize(
    ("guider", "negative"),
    [
        (node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=4), "blurry"),
        (node("BasicGuider", model=["4", 0], conditioning=["6", 0]), ""),
        (node("DualCFGGuider", model=["4", 0], cond1=["6", 0], cond2=["7", 0], negative=["7", 0]), "blurry"),
    ],
)
def test_guiders(guider: dict[str, object], negative: str) -> None:
    sampler = node("SamplerCustomAdvanced", noise=["11", 0], guider=["10", 0], sampler=["12", 0], sigmas=["13", 0])
    assert prompts(graph(**{"3": sampler, "10": guider})) == ("a (red:1.2) fox", negative)


@pytest.mark.parametrize("kind", ["KSamplerAdvanced", "SamplerCustom", "UltimateSDUpscale"])
def test_samplers_of_other_names(kind: str) -> None:
    nodes = graph()
    nodes["3"]["class_type"] = kind
    assert prompts(nodes) == ("a (red:1.2) fox", "blurry")


@pytest.mark.parametrize(
    ("encoder", "text"),
    [
        (node("CLIPTextEncodeSDXL", text_g="a fox", text_l="a fox", clip=["4", 1]), "a fox"),
        (node("CLIPTextEncodeSDXL", text_g="a fox", text_l="red, snow", clip=["4", 1]), "a fox, red, snow"),
        (node("CLIPTextEncodeSD3", clip_l="fox", clip_g="fox", t5xxl="a red fox in snow", empty_padding="none"),
         "a red fox in snow"),
        (node("CLIPTextEncodeFlux", clip_l="fox", t5xxl="a red fox in snow", guidance=3.5, clip=["4", 1]), "a red fox in snow"),
        (node("TextEncodeQwenImageEdit", prompt="make it red", clip=["4", 1], image=["5", 0]), "make it red"),
    ],
)  # fmt: skip
def test_encoders_of_several_texts(encoder: dict[str, object], text: str) -> None:
    assert prompts(graph(**{"6": encoder}))[0] == text


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"10": node("PrimitiveString", value="a fox")}, "a fox"),
        ({"10": node("Reroute", **{"": ["11", 0]}), "11": node("String Literal", string="a fox")}, "a fox"),
        ({"10": node("StringConcatenate", string_a="a fox", string_b=["11", 0], delimiter=" and "),
          "11": node("String Literal", string="a hen")}, "a fox and a hen"),
        ({"10": node("Text Concatenate", text_a="a fox", text_b="", text_c="in snow", delimiter=", ")}, "a fox, in snow"),
        ({"10": node("ImpactWildcardProcessor", wildcard_text="a {fox|hen}", populated_text="a hen")}, "a hen"),
        ({"10": node("Any Switch (rgthree)", any_01=["11", 0], any_02=["7", 0]),
          "11": node("String Literal", string="a fox")}, "a fox"),
        ({"10": node("SDXLPromptStyler", text_positive="a fox", text_negative="ugly", style="base")}, "a fox"),
        ({"10": node("ShowText|pysssss", text=["11", 0]), "11": node("String Literal", string="a fox")}, "a fox"),
    ],
)  # fmt: skip
def test_text_through_nodes_of_strings(more: Nodes, text: str) -> None:
    assert prompts(graph(positive=["10", 0], **more))[0] == text


def test_a_styler_gives_each_side_its_own() -> None:
    styler = node("SDXLPromptStyler", text_positive="a fox", text_negative="ugly", style="base")
    assert prompts(graph(positive=["10", 0], negative=["10", 1], **{"10": styler})) == ("a fox", "ugly")


def test_loaders_that_take_the_text_themselves() -> None:
    loader = node("Efficient Loader", ckpt_name="m", positive="a fox", negative="ugly", batch_size=1)
    nodes = graph(**{"10": loader})
    nodes["3"]["inputs"] |= {"positive": ["10", 1], "negative": ["10", 2]}
    assert prompts(nodes) == ("a fox", "ugly")


def test_conditioning_that_was_wiped_out_is_no_prompt() -> None:
    nodes = graph(**{"10": node("ConditioningZeroOut", conditioning=["6", 0])})
    nodes["3"]["inputs"]["negative"] = ["10", 0]
    assert prompts(nodes) == ("a (red:1.2) fox", "")


def test_an_empty_negative_prompt_is_empty_whatever_else_has_text() -> None:
    lora = node("LoraTagLoader", text="<lora:fur:1>", model=["4", 0], clip=["4", 1])
    nodes = graph(negative="", **{"10": lora})
    nodes["7"]["inputs"]["clip"] = ["10", 1]
    assert prompts(nodes) == ("a (red:1.2) fox", "")


def test_of_several_samplers_the_one_that_feeds_the_saved_picture() -> None:
    nodes = graph(**{
        "20": node("KSampler", positive=["21", 0], negative=["7", 0], latent_image=["5", 0]),
        "21": node("CLIPTextEncode", text="a sketch", clip=["4", 1]),
        "22": node("PreviewImage", images=["23", 0]),
        "23": node("VAEDecode", samples=["20", 0]),
    })  # fmt: skip
    nodes["3"]["inputs"]["latent_image"] = ["20", 0]
    assert prompts(nodes)[0] == "a (red:1.2) fox"


def test_several_saved_pictures_of_different_prompts_are_not_told_apart_by_guess() -> None:
    nodes = graph(**{
        "20": node("KSampler", positive=["21", 0], negative=["7", 0], latent_image=["5", 0]),
        "21": node("CLIPTextEncode", text="a sketch", clip=["4", 1]),
        "22": node("SaveImage", images=["20", 0]),
    })  # fmt: skip
    found = read(nodes)
    assert found is not None
    assert found.reason == (
        'its ComfyUI graph saves pictures of 2 prompts ("a (red:1.2) fox"; "a sketch"); pass a prompt'
    )
    nodes["21"]["inputs"]["text"] = "a (red:1.2) fox"
    assert prompts(nodes) == ("a (red:1.2) fox", "blurry")


def test_where_no_way_leads_to_a_text_the_encoders_are_candidates() -> None:
    nodes = graph()
    nodes["3"]["inputs"]["positive"] = ["99", 0]
    found = read(nodes)
    assert found is not None
    assert found.infotext is None
    assert found.reason == (
        "its ComfyUI graph does not lead from the picture to a prompt "
        '(its encoders have "a (red:1.2) fox"; "blurry"); pass a prompt'
    )
    found = read({"1": node("SaveImage", images=["2", 0])})
    assert found is not None
    assert found.reason == "its ComfyUI graph does not lead from the picture to a prompt; pass a prompt"


def test_text_of_easy_diffusion_is_no_graph() -> None:
    for text in ("a red fox", '{"a": 1}', "{red|blue} fox", "[1, 2]", ""):
        assert read_comfyui({"prompt": text}) is None


def test_the_editors_graph_alone() -> None:
    nodes = [
        {"id": 3, "type": "KSampler", "widgets_values": [5, "fixed", 20], "inputs": [
            {"name": "model", "link": None}, {"name": "positive", "link": 1}, {"name": "negative", "link": 2},
            {"name": "latent_image", "link": 9}]},
        {"id": 6, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "link": None}], "widgets_values": ["a fox"]},
        {"id": 7, "type": "CLIPTextEncode", "inputs": [{"name": "text", "link": 4}], "widgets_values": ["old"]},
        {"id": 10, "type": "PrimitiveNode", "widgets_values": ["blurry", "fixed"]},
        {"id": 11, "type": "ControlNetApplyAdvanced", "mode": 4, "inputs": [
            {"name": "positive", "link": 5}, {"name": "negative", "link": 6}]},
        {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "link": 3}]},
        {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "link": 7}]},
    ]  # fmt: skip
    links = [[1, 11, 0, 3, 1, "CONDITIONING"], [2, 11, 1, 3, 2, "CONDITIONING"], [3, 3, 0, 8, 0, "LATENT"],
             [4, 10, 0, 7, 1, "STRING"], [5, 6, 0, 11, 0, "CONDITIONING"], [6, 7, 0, 11, 1, "CONDITIONING"],
             [7, 8, 0, 9, 0, "IMAGE"], "no link", [1], [None, {}, []]]  # fmt: skip
    found = read_comfyui({"workflow": json.dumps({"nodes": [*nodes, 3, {"id": []}], "links": links})})
    assert found is not None
    assert found.infotext is not None, found.reason
    assert (found.infotext.prompt, found.infotext.negative_prompt) == ("a fox", "blurry")
    assert found.source == "workflow (ComfyUI)"


def test_circles_end() -> None:
    nodes = graph(
        positive=["10", 0], **{"10": node("Reroute", value=["11", 0]), "11": node("Reroute", value=["10", 0])}
    )
    found = read(nodes)
    assert found is not None
    assert "does not lead" in found.reason
    nodes = graph()
    nodes["3"]["inputs"]["positive"] = ["3", 0]
    nodes["9"]["inputs"]["images"] = ["9", 0]
    assert read(nodes) is not None


def test_ways_that_are_too_long_end() -> None:
    chain = {f"c{n}": node("Reroute", value=[f"c{n + 1}", 0]) for n in range(10_000)}
    found = read(graph(positive=["c0", 0], **chain))
    assert found is not None
    assert "does not lead" in found.reason


def test_hostile_graphs_take_time_linear_in_their_size() -> None:
    fan = {f"f{n}": node("ConditioningCombine", conditioning_1=[f"f{n + 1}", 0], conditioning_2=[f"f{n + 1}", 1],
                         cond=[f"f{n + 2}", 2]) for n in range(5_000)}  # fmt: skip
    saves = {f"s{n}": node("SaveImage", images=["8", 0]) for n in range(5_000)}
    nodes = graph(**fan, **saves)
    nodes["3"]["inputs"]["positive"] = ["f0", 0]
    began = time.process_time()
    read(nodes)
    assert time.process_time() - began < 2


def test_a_text_that_is_too_large_is_refused() -> None:
    found = read(graph(positive="x" * 300_000))
    assert found is not None
    assert "too large to be a prompt (300,000 characters)" in found.reason


def test_half_surrogates_and_zeros_do_not_come_out() -> None:
    assert prompts(graph(positive="a \ud800fox\0"))[0] == "a ?fox"


@pytest.mark.parametrize(
    "link",
    [["6", -5], ["6", 10**400], [10**400, 0], [["6"], 0], ["6"], {}, None, True, ["6", True], [6, 0], ["6", 0.5], []],
)
def test_odd_links_never_raise(link: object) -> None:
    nodes = graph(**{"10": node("ControlNetApplyAdvanced", positive=link, negative=["7", 0], conditioning=link)})
    for name in ("positive", "negative", "model"):
        nodes["3"]["inputs"][name] = link
        nodes["3"]["inputs"]["negative"] = ["10", -5]
        read(nodes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["3", "6", "KSampler", "SaveImage"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["3", "6", "class_type", "inputs", "positive", "text", "images", "nodes", "links", "id", "type"]),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON, JSON)
def test_any_json_gives_an_answer(values: object, more: object) -> None:
    for name in ("prompt", "workflow"):
        read_comfyui({name: json.dumps(values)})
        read_comfyui({name: json.dumps(graph() | {"3": node("KSampler", positive=values, negative=more)})})
        read_comfyui({name: json.dumps({"nodes": values, "links": more})})
