"""Text encoders of the families by target: the layer, the pooled vector and the padding that a pipeline reads of each.

| target | states | pooled |
|---|---|---|
| `sd15` | the last layer, with the final norm | – |
| `sd2` | the last layer with the final norm; of a tower of 24 layers the 23rd, where its pipelines end | – |
| `sdxl-l` `sdxl-g` | the penultimate layer | – / projected |
| `sd3-l` `sd3-g` | the penultimate layer | projected |
| `flux` | – | not projected |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clipcond.condition.families import LAYOUTS, PooledFrom, layer
from clipcond.prompt.families import FAMILIES

SD2_LAYERS = 24  # of the whole tower

TARGETS: Mapping[str, tuple[str, str]] = {  # (family, encoder)
    "sd15": ("sd15", "clip_l"),
    "sd2": ("sd2", "clip_h"),
    "sdxl-l": ("sdxl", "clip_l"),
    "sdxl-g": ("sdxl", "clip_g"),
    "sd3-l": ("sd3", "clip_l"),
    "sd3-g": ("sd3", "clip_g"),
    "flux": ("flux", "clip_l"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The part of an encoder's output that conditions a family.

    skip, final_norm: the layer, counted back from the last.   states: False where the pooled vector alone is read.
    pooled: which vector, None where none is read.   pad_id: what fills a row behind its EOS.
    """

    skip: int
    final_norm: bool
    states: bool
    pooled: PooledFrom | None
    pad_id: int


def reading(family: str, encoder: str, *, layers: int, pipeline_layers: int | None = None) -> Reading:
    """Return what a family reads of one of its CLIP encoders, which has so many layers.

    pipeline_layers: how many of them a pipeline has, where the encoder goes on behind these for another purpose.
    """
    layout = LAYOUTS[family]
    skip, norm = layer(layout, encoder, 0)
    if pipeline_layers is not None:
        skip += layers - pipeline_layers
    elif family == "sd2" and layers == SD2_LAYERS:
        skip += 1
    return Reading(
        skip=skip,
        final_norm=norm,
        states=encoder in layout.concat_width,
        pooled=layout.pooled_from if encoder in layout.pooled else None,
        pad_id=FAMILIES[family][encoder].pad_id,
    )
