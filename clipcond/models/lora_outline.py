"""The outline of a LoRA file from its header: parts that it touches, ranks, alphas, and keys that a loader would ignore.

Nothing of the file is run and no matrix is read, only names, shapes and the few bytes of each alpha. Names of kohya's
scripts, LyCORIS, peft and diffusers (old and new), Flux's own, and cloneofsimo's.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipcond.models.safetensors_header import Header, StoredTensor, read_header

_MOST_ALPHAS = 100_000
# the end of a key: the role of the matrix in its pair, by the kind of adapter
_DOWN = r"lora_down|lora_A|lora\.down|down|lora_linear_layer\.down|hada_w1_b|lokr_w1_b|lokr_w2_b"
_UP = r"lora_up|lora_B|lora\.up|up|lora_linear_layer\.up|hada_w1_a|lokr_w1_a|lokr_w2_a"
_OTHER = (
    r"lora_mid|hada_w2_a|hada_w2_b|hada_t1|hada_t2|lokr_w1|lokr_w2|lokr_t2|oft_blocks|oft_diag|diff|diff_b|w_norm|b_norm"
    r"|a1|a2|b1|b2"
)
_ROLE = re.compile(
    rf"(?P<module>.+?)[._](?P<role>{_DOWN}|{_UP}|{_OTHER}|alpha|dora_scale|lora_magnitude_vector)"
    r"(?:\.default)?(?:\.weight)?"
)
_LONGEST = 400  # characters of a key; the published ones have some hundred
_NUMBERED = re.compile(r"(?P<module>(?:unet|text_encoder):\d+):(?P<role>up|down)")
_IS_DOWN, _IS_UP = re.compile(_DOWN), re.compile(_UP)
_PARTS = (
    ("text_encoder_3", r"lora_te3_|text_encoder_3\."), ("text_encoder_2", r"lora_te2_|text_encoder_2\."),
    ("text_encoder", r"lora_te1?_|text_encoder\.|text_encoder:|lora_clip_"),
    ("transformer", r"lora_transformer_|transformer\.|(?:lora_unet_|diffusion_model\.)?(?:double|single|joint)_blocks"),
    ("unet", r"lora_unet_|unet\.|unet:|diffusion_model\.|down_blocks\.|up_blocks\.|mid_block\."),
)  # fmt: skip
_KINDS = {
    "hada": "LoHa",
    "lokr": "LoKr",
    "oft": "OFT",
    "diff": "full difference",
    "w_no": "norm",
    "b_no": "norm",
    "a1": "GLoRA",
}
_ENCODER_WIDTHS = {768: "CLIP-L", 1024: "CLIP-H", 1280: "bigG", 4096: "T5-XXL"}
_CONTEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL", 1280: "SDXL refiner"}
_ENCODER_LAYERS = {"CLIP-L": 12, "CLIP-H": 24, "bigG": 32, "T5-XXL": 24}
_ENCODER_MODULES = re.compile(
    r"(?:text_model_)?(?:encoder_)?layers_(?P<layer>\d+)_(?:self_attn_(?:q|k|v|out)_proj|mlp_fc[12])(?:_lora_linear_layer)?"
    r"|(?:text_model_)?embeddings_(?:token|position)_embedding|text_projection|(?:encoder_)?block_\d+_layer_\d+_.+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOutline:
    """A part of a pipeline that a file touches.

    modules: adapted layers.   kinds: of adapters → modules.   ranks: → modules.   scales: smallest and largest of
    alpha / rank, None where no alpha is stored, which means 1.   weights: numbers in all.   encoder: the text encoder
    that the shapes are of, None for a denoiser and where they do not say.
    """

    modules: int
    kinds: Mapping[str, int]
    ranks: Mapping[int, int]
    scales: tuple[float, float] | None
    weights: int
    encoder: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Keys of one sort that a loader would ignore, an example among them."""

    reason: str
    keys: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOutline:
    """The outline of a file. family: by shapes, None where they do not say.   stated: the base model of the metadata."""

    parts: Mapping[str, PartOutline]
    ignored: tuple[Ignored, ...]
    family: str | None
    stated: str | None
    embeddings: tuple[str, ...]


@dataclass(slots=True)
class _Module:
    part: str
    down: StoredTensor | None = None
    up: StoredTensor | None = None
    alpha: StoredTensor | None = None
    others: int = 0
    weights: int = 0
    keys: int = 0
    kind: str = "LoRA"

    @property
    def rank(self) -> int | None:
        return self.down.shape[0] if self.down is not None and self.down.shape else None


def outline_lora(path: Path) -> LoraOutline:
    """Read the outline of a `.safetensors` file. Raises ModelError for a file that is none or is damaged."""
    header = read_header(path)
    modules: dict[str, _Module] = {}
    ignored: dict[str, list[str]] = {}
    embeddings: list[str] = []
    for key, stored in header.tensors.items():
        if key.startswith("bundle_emb.") or key in ("clip_l", "clip_g", "emb_params"):
            embeddings.append(key.split(".")[1] if key.startswith("bundle_emb.") and key.count(".") > 1 else key)
        elif (reason := _take(modules, key, stored)) is not None:
            ignored.setdefault(reason, []).append(key)
    whole = _complete(modules, ignored)
    return LoraOutline(
        parts={name: _part(path, whole, name) for name in dict.fromkeys(each.part for each in whole.values())},
        ignored=tuple(Ignored(reason=reason, keys=len(keys), example=keys[0]) for reason, keys in ignored.items()),
        family=_family(whole),
        stated=_stated(header),
        embeddings=tuple(dict.fromkeys(embeddings)),
    )


def _take(modules: dict[str, _Module], key: str, stored: StoredTensor) -> str | None:
    """Put a key with its module; return the reason where no loader knows it."""
    match = None if len(key) > _LONGEST else _NUMBERED.fullmatch(key) or _ROLE.fullmatch(key)
    if match is None:
        return "the name is of no adapter that loaders know"
    module, role = match["module"], match["role"]
    bare = module.removeprefix("base_model.model.").removeprefix("base_model_model_")
    part = next((name for name, prefix in _PARTS if re.match(prefix, bare)), None)
    if part is None:
        return "the layer is of no part of a pipeline"
    entry = modules.setdefault(module, _Module(part))
    entry.keys += 1
    if role == "alpha":
        entry.alpha = stored
        return None
    entry.weights += _count(stored)
    if _IS_DOWN.fullmatch(role):
        entry.down = entry.down or stored
    elif _IS_UP.fullmatch(role):
        entry.up = entry.up or stored
    else:
        entry.others += role not in ("dora_scale", "lora_magnitude_vector", "lora_mid")
    entry.kind = _KINDS.get(role[:4], _KINDS.get(role, entry.kind))
    if role in ("dora_scale", "lora_magnitude_vector"):
        entry.kind = "DoRA"
    return None


def _complete(modules: Mapping[str, _Module], ignored: dict[str, list[str]]) -> dict[str, _Module]:
    """The modules that a loader can use; the others' names go to `ignored`."""
    whole = {}
    for name, module in modules.items():
        if reason := _problem(name, module):
            ignored.setdefault(reason, []).extend([name] * module.keys)
        else:
            whole[name] = module
    return whole


def _problem(name: str, module: _Module) -> str | None:
    if not module.weights:
        return "an alpha without its matrices"
    if module.kind in ("LoRA", "DoRA") and not module.others:
        if module.down is None or module.up is None:
            return "half of a pair: only one of its two matrices is there"
        if len(module.up.shape) > 1 and module.down.shape and module.up.shape[1] != module.down.shape[0]:
            return "a pair of different ranks"
    if not module.part.startswith("text_encoder") or ":" in name:
        return None
    layer = re.sub(r"^(base_model\.model\.)?(lora_te\d?_|lora_clip_|text_encoder(_\d)?\.)", "", name).replace(".", "_")
    match = _ENCODER_MODULES.fullmatch(layer)
    if match is None:
        return "a text encoder has no layer of this name"
    encoder = _encoder_of(module) if "q_proj" in name else None
    if match["layer"] and int(match["layer"]) >= _ENCODER_LAYERS.get(encoder or "", 32):
        return "a layer beyond the text encoder's last"
    return None


def _encoder_of(module: _Module) -> str | None:
    return _ENCODER_WIDTHS.get(module.down.shape[1]) if module.down is not None and len(module.down.shape) > 1 else None


def _part(path: Path, modules: Mapping[str, _Module], name: str) -> PartOutline:
    own = {key: module for key, module in modules.items() if module.part == name}
    encoders = Counter(
        encoder
        for key, module in own.items()
        if re.search(r"q_proj|SelfAttention", key) and (encoder := _encoder_of(module))
    )
    return PartOutline(
        modules=len(own),
        kinds=dict(Counter(module.kind for module in own.values()).most_common()),
        ranks=dict(sorted(Counter(module.rank for module in own.values() if module.rank is not None).items())),
        scales=_scales(path, [module for module in own.values() if module.alpha is not None and module.rank]),
        weights=sum(module.weights for module in own.values()),
        encoder=encoders.most_common(1)[0][0] if name.startswith("text_encoder") and encoders else None,
    )


def _scales(path: Path, modules: list[_Module]) -> tuple[float, float] | None:
    """Return the smallest and largest alpha / rank. Of each alpha its few bytes are read."""
    found = []
    with path.open("rb") as file:
        for module in modules[:_MOST_ALPHAS]:
            if module.alpha is not None and module.rank and (value := _scalar(file, module.alpha)) is not None:
                found.append(value / module.rank)
    return (min(found), max(found)) if found else None


def _scalar(file: object, stored: StoredTensor) -> float | None:
    formats = {"F16": "<e", "F32": "<f", "F64": "<d", "I64": "<q", "I32": "<i"}
    if _count(stored) != 1:
        return None
    file.seek(stored.start)  # type: ignore[attr-defined]
    content: bytes = file.read(stored.end - stored.start)  # type: ignore[attr-defined]
    if stored.dtype == "BF16":
        return float(struct.unpack("<f", b"\0\0" + content)[0])
    return float(struct.unpack(formats[stored.dtype], content)[0]) if stored.dtype in formats else None


def _count(stored: StoredTensor) -> int:
    count = 1
    for side in stored.shape:
        count *= side
    return count


def _family(modules: Mapping[str, _Module]) -> str | None:
    """The base family, by the width of what cross-attention reads, else by the text encoders."""
    names = " ".join(modules)
    if re.search(r"single_transformer_blocks|single_blocks|double_blocks", names):
        return "Flux"
    if re.search(r"joint_blocks|transformer_blocks[._]\d+[._]attn[._]add_[kqv]_proj", names):
        return "Stable Diffusion 3"
    widths = Counter(
        module.down.shape[1]
        for name, module in modules.items()
        if module.part == "unet" and re.search(r"attn2[._](?:processor[._])?to_[kv]", name)
        and module.down is not None and len(module.down.shape) > 1
    )  # fmt: skip
    if widths:
        return _CONTEXT_WIDTHS.get(widths.most_common(1)[0][0])
    encoders = {
        (m.part, _encoder_of(m)) for name, m in modules.items() if "q_proj" in name and m.part.startswith("text")
    }
    if any(part == "text_encoder_2" and encoder == "bigG" for part, encoder in encoders):
        return "SDXL"
    if ("text_encoder", "CLIP-H") in encoders:
        return "Stable Diffusion 2"
    return "Stable Diffusion 1" if encoders == {("text_encoder", "CLIP-L")} and "lora_te1_" not in names else None


def _stated(header: Header) -> str | None:
    for key in ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"):
        if header.metadata.get(key):
            return header.metadata[key][:200]
    return None
