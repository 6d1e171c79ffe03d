"""Names of models: a spec in parts, its overrides, and hints where it names nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from clipcond.errors import ModelError
from clipcond.resources import EMBEDDED
from clipcond.runtime.torchvision_repair import repair

FORMS = (
    "mini, emoji, NAME/PRETRAINED and NAME@CHECKPOINT (open_clip), hf:ID or hf:FOLDER (a dual encoder of transformers), "
    "or a folder that holds one of these"
)
_OVERRIDE = re.compile(r",(mean|std|size|activation|tokenizer)=([^,=]*)$")
OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32", "ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14", "ViT-L/14@336px": "ViT-L-14-336",
    "ViT-L-14@336px": "ViT-L-14-336",
}  # fmt: skip
_ACTIVATIONS = {"gelu": False, "quick_gelu": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Settings that a spec states in place of the model's own; None leaves the model's."""

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None  # side of the square picture that the model is to see
    quick_gelu: bool | None = None
    tokenizer: str | None = None  # a folder, or a name of the hub

    @property
    def places(self) -> tuple[str, ...]:
        """The places to look for a tokenizer before the model's own."""
        return () if self.tokenizer is None else (self.tokenizer,)

    @property
    def preprocess(self) -> dict[str, tuple[float, float, float]]:
        """The overrides of an open_clip `preprocess_cfg`."""
        return {name: value for name, value in (("mean", self.mean), ("std", self.std)) if value is not None}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A spec without its overrides, and these."""

    base: str
    overrides: Overrides


def parse_spec(spec: str) -> ModelSpec:
    """Part a spec from its overrides: `NAME@FILE,activation=quick_gelu,mean=0.5,std=0.2/0.3/0.3,size=336`.

    What exists as a file or folder is taken as it is. Raises ModelError for an empty spec and for values that no setting
    takes.
    """
    base, stated = spec.strip(), dict[str, str]()
    if not base:
        raise ModelError(f"the model name is empty; expected {FORMS}")
    while not _exists(base) and (match := _OVERRIDE.search(base)):
        stated.setdefault(match[1], match[2])
        base = base[: match.start()]
    return ModelSpec(
        base,
        Overrides(
            mean=_three("mean", stated["mean"]) if "mean" in stated else None,
            std=_three("std", stated["std"]) if "std" in stated else None,
            size=_size(stated["size"]) if "size" in stated else None,
            quick_gelu=_activation(stated["activation"]) if "activation" in stated else None,
            tokenizer=_tokenizer(stated["tokenizer"]) if "tokenizer" in stated else None,
        ),
    )


def _exists(base: str) -> bool:
    try:
        return Path(base.removeprefix("hf:")).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _three(name: str, text: str) -> tuple[float, float, float]:
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    numbers *= 3 if len(numbers) == 1 else 1
    if len(numbers) != 3:
        raise ModelError(f"{name}={text} in the model name; expected a number or three, as in {name}=0.48/0.46/0.41")
    return numbers[0], numbers[1], numbers[2]


def _size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise ModelError(f"size={text} in the model name; expected the side of a square picture in pixels, to 4096")
    return int(text)


def _activation(text: str) -> bool:
    if text not in _ACTIVATIONS:
        raise ModelError(f"activation={text} in the model name; expected {' or '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[text]


def _tokenizer(text: str) -> str:
    if not text:
        raise ModelError("tokenizer= in the model name is empty; expected a folder or a name of the hub")
    if text.startswith((".", "/", "~")) and not Path(text).expanduser().is_dir():
        raise ModelError(f"tokenizer={text} in the model name: there is no such folder")
    return text


def did_you_mean(spec: str) -> str:
    """Return `; did you mean …?` with the nearest name that can be loaded, or nothing."""
    if spec.startswith("hf-hub:"):
        return f"; did you mean hf:{spec.removeprefix('hf-hub:')}?"
    if ours := get_close_matches(spec, EMBEDDED, n=1):
        return f"; did you mean {ours[0]}?"
    if spec in OPENAI_NAMES:
        return f"; did you mean {OPENAI_NAMES[spec]}/openai?"
    repair()
    import open_clip

    known = open_clip.list_models()
    name, slash, tag = spec.partition("/")
    cases = {known_name.casefold(): known_name for known_name in known}
    near = get_close_matches(name.casefold(), cases, n=1, cutoff=0.6)
    if not near:
        return ""
    near = [cases[near[0]]]
    tags = open_clip.list_pretrained_tags_by_model(near[0])
    if slash and tag in tags:
        return f"; did you mean {near[0]}/{tag}?"
    return f"; did you mean {near[0]}/{_first_tag(near[0]) if slash else 'PRETRAINED'}?"


def _first_tag(name: str) -> str:
    import open_clip

    tags: list[str] = open_clip.list_pretrained_tags_by_model(name)
    return tags[0] if tags else "PRETRAINED"


def listed(names: list[str], most: int = 6) -> str:
    """Return the first names of a list, and how many more there are."""
    if not names:
        return "a checkpoint file as NAME@FILE: none are published for it"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
