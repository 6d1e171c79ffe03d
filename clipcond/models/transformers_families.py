"""The families of transformers that clipcond loads: by model type, the class for each use, and how their texts are read.

Imports no model library: the catalogue asks it about folders and caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from clipcond.errors import ModelError
from clipcond.wording import visible

Use = Literal["dual", "matching", "detection"]
_SAID: Mapping[Use, str] = {
    "dual": "a dual encoder, which scores and ranks",
    "matching": "an image-text matching model, for clipcond.Matcher",
    "detection": "a detection model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHabit:
    """The way in which a family reads its texts.

    pooling: the position or mean that stands for a text.   length: the most positions that the family was trained on, where
    its table of positions has more.   lost: places of that table that no token takes.   masked: it does not see padding.
    """

    pooling: str
    length: int | None = None
    lost: int = 0
    masked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family by the `model_type` of its config. classes: the classes for each use, the usual one first."""

    model_type: str
    title: str
    config: str
    classes: Mapping[Use, tuple[str, ...]]
    habit: TextHabit | None = None
    clip_tokens: bool = False

    def model_class(self, spec: str, use: Use, architectures: tuple[str, ...]) -> str:
        """The class to load for a use, of those that the config's `architectures` name. Raises ModelError."""
        known = self.classes.get(use, ())
        if not known:
            (other, *_) = self.classes
            raise ModelError(f"{spec} is {self.title}, {_SAID[other]}; expected {_SAID[use]}")
        stated = [name for name in architectures if name in known]
        others = {name for names in self.classes.values() for name in names}
        if architectures and not stated and not others & set(architectures):
            raise ModelError(
                f"{spec} holds {visible(', '.join(architectures))} and no {' or '.join(known)}, which is {_SAID[use]}"
            )
        return stated[0] if stated else known[0]


CAPTIONERS = frozenset({"florence2"})  # detection models that write captions, too
_END, _FIRST, _LAST = "end of text", "first place", "last place"
FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            model_type="clip",
            title="CLIP",
            config="CLIPConfig",
            classes={"dual": ("CLIPModel",)},
            habit=TextHabit(pooling=_END),
            clip_tokens=True,
        ),
        Family(
            model_type="metaclip_2",
            title="MetaCLIP 2",
            config="MetaClip2Config",
            classes={"dual": ("MetaClip2Model",)},
            habit=TextHabit(pooling=_END),
        ),
        Family(
            model_type="siglip",
            title="SigLIP or SigLIP 2",
            config="SiglipConfig",
            classes={"dual": ("SiglipModel",)},
            habit=TextHabit(pooling=_LAST, masked=False),
        ),
        Family(
            model_type="siglip2",
            title="SigLIP 2 NaFlex",
            config="Siglip2Config",
            classes={"dual": ("Siglip2Model",)},
            habit=TextHabit(pooling=_LAST, masked=False),
        ),
        Family(
            model_type="align",
            title="ALIGN",
            config="AlignConfig",
            classes={"dual": ("AlignModel",)},
            habit=TextHabit(pooling=_FIRST, length=64),
        ),
        Family(
            model_type="altclip",
            title="AltCLIP",
            config="AltCLIPConfig",
            classes={"dual": ("AltCLIPModel",)},
            habit=TextHabit(pooling=_FIRST, length=77, lost=2),
        ),
        Family(
            model_type="chinese_clip",
            title="Chinese-CLIP",
            config="ChineseCLIPConfig",
            classes={"dual": ("ChineseCLIPModel",)},
            habit=TextHabit(pooling=_FIRST, length=52),
        ),
        Family(
            model_type="blip",
            title="BLIP",
            config="BlipConfig",
            classes={
                "dual": ("BlipForImageTextRetrieval", "BlipModel"),
                "matching": ("BlipForImageTextRetrieval",),
            },
            habit=TextHabit(pooling=_FIRST),
        ),
        Family(
            model_type="blip-2",
            title="BLIP-2",
            config="Blip2Config",
            classes={"matching": ("Blip2ForImageTextRetrieval",)},
            habit=TextHabit(pooling=_FIRST),
        ),
        Family(
            model_type="clipseg",
            title="CLIPSeg",
            config="CLIPSegConfig",
            classes={"detection": ("CLIPSegForImageSegmentation",), "dual": ("CLIPSegModel",)},
            habit=TextHabit(pooling=_END),
            clip_tokens=True,
        ),
        Family(
            model_type="owlvit",
            title="OWL-ViT",
            config="OwlViTConfig",
            classes={"detection": ("OwlViTForObjectDetection",)},
        ),
        Family(
            model_type="owlv2",
            title="OWLv2",
            config="Owlv2Config",
            classes={"detection": ("Owlv2ForObjectDetection",)},
        ),
        Family(
            model_type="grounding-dino",
            title="Grounding DINO",
            config="GroundingDinoConfig",
            classes={"detection": ("GroundingDinoForObjectDetection",)},
        ),
        Family(
            model_type="mm-grounding-dino",
            title="MM Grounding DINO",
            config="MMGroundingDinoConfig",
            classes={"detection": ("MMGroundingDinoForObjectDetection",)},
        ),
        Family(
            model_type="florence2",
            title="Florence-2",
            config="Florence2Config",
            classes={"detection": ("Florence2ForConditionalGeneration",)},
        ),
    )
}


def family_of(spec: str, config: Mapping[str, Any], use: Use) -> Family:
    """The family of a config document. Raises ModelError for one that is not loaded, with the nearest that is."""
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    taken = [name for name, family in FAMILIES.items() if use in family.classes]
    named = f"a {visible(kind)} model" if isinstance(kind, str) else "a model of no stated type"
    near = get_close_matches(kind, taken, n=1) if isinstance(kind, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ModelError(f"{spec} is {named}; expected {_SAID[use]} (model_type {', '.join(taken)}){hint}")


def architectures_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of classes that a config document says its weights are of."""
    listed = config.get("architectures")
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def uses_of(config: Mapping[str, Any]) -> tuple[Use, ...]:
    """The uses for which a config document's model can be loaded; none for a family that is not known."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return ()
    stated = architectures_of(config)
    every = {name for names in family.classes.values() for name in names}
    if not stated or not every & set(stated):
        return () if stated else tuple(family.classes)
    held = {use for use, names in family.classes.items() if set(names) & set(stated)}
    if family.model_type == "clipseg" and "detection" in held:  # the whole holds its dual encoder
        held = set(family.classes)
    return tuple(use for use in family.classes if use in held)
