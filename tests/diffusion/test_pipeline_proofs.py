"""One class of each family, built tiny and run: clipcond's text is its own text, and long, weighted and repeated prompts draw.

`benchmarks/pipelines.py` asks the same of every class.
"""

from __future__ import annotations

from typing import Any

import pytest
from tiny_pipelines.assemble import PARTS, VARIANTS, NotBuilt, build
from tiny_pipelines.proofs import CLOSE, measured

from clipcond.diffusion.pipeline_shapes import SHAPES

CLASSES = {
    "sd15": "StableDiffusionPipeline",
    "upscaler": "StableDiffusionLatentUpscalePipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "cascade": "StableCascadePriorPipeline",
    "hunyuan-video": "HunyuanVideoPipeline",
    "kandinsky5": "Kandinsky5T2IPipeline",
    "kandinsky5-video": "Kandinsky5T2VPipeline",
    "kandinsky6": "Kandinsky6TI2VAPipeline",
    "editing": "LEditsPPPipelineStableDiffusion",
}
ROWS = [(family, name, family, {}) for family, name in CLASSES.items()]
ROWS += [(variant, name, family, parts) for variant, (name, family, parts) in VARIANTS.items()]
# what a class cannot do with its own encoding either
UNABLE = {"editing": {"images", "offload"}, "upscaler": {"images"}}


@pytest.mark.parametrize(("row", "name", "family", "parts"), ROWS, ids=[each[0] for each in ROWS])
def test_a_family_draws_with_clipconds_text_what_it_draws_with_words(
    row: str, name: str, family: str, parts: dict[str, Any]
) -> None:
    found = measured(build(name, family, parts))
    for proof in {"text", "picture", "images", "offload"} - UNABLE.get(row, set()):
        assert isinstance(found[proof], float), (proof, found[proof])
        assert found[proof] <= CLOSE, (proof, found[proof])
    states = not SHAPES[family].language
    assert found["long"] > 77, found["long"]
    assert (found["weights"] > 1e-5) == states, found["weights"]  # a language model's text knows no weights
    assert found["negative"] > 1e-5, found["negative"]


def test_a_part_that_is_not_known_is_named() -> None:
    with pytest.raises(NotBuilt, match=r"needs clip_image_processor \(CLIPImageProcessor\)"):
        build("UniDiffuserPipeline", "sd15")
    with pytest.raises(NotBuilt, match="no tiny parts of the family dalle"):
        build("StableDiffusionPipeline", "dalle")
    with pytest.raises(NotBuilt, match="cannot be imported"):
        build("StableDiffusionPipelineOfTomorrow", "sd15")
    assert set(CLASSES) - set(PARTS) == {"upscaler", "editing"}
