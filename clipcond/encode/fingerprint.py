"""A model's fingerprint, a short text of its content: its weights, its adapters, and the settings that no weight shows.

Each tensor is read once, at the speed of memory: 64-bit words are summed along 64 lanes and in 1024 blocks, so that
any one changed number and nearly every exchange of two is seen. What was read is remembered for as long as the tensor
is the same object of the same version and a few of its numbers are what they were; moving a model to another device
keeps all that. The one change that can go unseen is one made through `.data` that leaves all of those numbers alone.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

LANES, BLOCKS, SAMPLES = 64, 1024, 8
_SETTINGS = (
    "hidden_act", "layer_norm_eps", "num_attention_heads",  # CLIP
    "feed_forward_proj", "layer_norm_epsilon", "num_heads", "relative_attention_max_distance",  # T5
)  # fmt: skip
_PARTS = ("text_config", "vision_config", "qformer_config")  # of a model that is made of several
_NO_WEIGHTS: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """A tensor's summed content, with the signs by which a change shows."""

    tensor: weakref.ref[Tensor]
    version: int
    shape: torch.Size
    sample: bytes
    content: bytes

    def holds(self, tensor: Tensor, sample: bytes) -> bool:
        return (
            self.tensor() is tensor
            and self.version == _version(tensor)
            and self.shape == tensor.shape
            and self.sample == sample
        )


class Fingerprint:
    """The fingerprint of one model, called each time it is needed; a repeat costs about a millisecond."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._known: dict[str, _Known] = {}
        self._last: tuple[object, str] = (None, "")
        self._here = uuid4().hex  # for weights that cannot be read

    def __call__(self) -> str:
        """32 hex digits: equal in every process, on every device and in all versions of transformers for equal models.

        Weights on the meta device are read where their offload hook keeps them, from disk each time anew. Where no
        hook does, they count as those of this object: the text is then good for this process only, and no change of
        theirs is seen.
        """
        tensors: dict[str, Tensor] = {}
        adapters = []
        for path, module in _walk(self._model):
            tensors.update(_tensors(path, module))
            adapters.append(_adapters(path, module))
        samples = _samples(tensors)
        contents = {name: self._read(name, tensor, samples.get(name, b"")) for name, tensor in tensors.items()}
        state = (contents, adapters)
        if self._last[0] != state:
            self._known = {name: known for name, known in self._known.items() if name in tensors}
            self._last = (state, _summed(self._model, contents, adapters))
        return self._last[1]

    def _read(self, name: str, tensor: Tensor, sample: bytes) -> bytes:
        if tensor.device.type == "meta":
            return self._here.encode()
        known = self._known.get(name)
        if known is None or not known.holds(tensor, sample):
            known = _Known(weakref.ref(tensor), _version(tensor), tensor.shape, sample, _content(tensor))
            self._known[name] = known
        return known.content


def running_device(model: nn.Module, weight: Tensor) -> torch.device:
    """Return the device of a forward of `model`: as accelerate's or diffusers' offload hooks say, or a weight's own."""
    for _, module in _walk(model):
        attached = module.__dict__.get("_hf_hook")
        grouped = module.__dict__.get("_diffusers_hook")
        if attached is None and grouped is None:
            continue
        groups = [getattr(hook, "group", None) for hook in _hooks(grouped)]
        for source in (attached, *getattr(attached, "hooks", ()), *groups):
            for name in ("execution_device", "onload_device"):
                if getattr(source, name, None) is not None:
                    return torch.device(getattr(source, name))
    return torch.device("cpu") if weight.device.type == "meta" else weight.device


def _hooks(registry: object) -> Iterable[object]:
    """The hooks of a module in diffusers' registry of them; those of group offloading have a group."""
    hooks: Mapping[str, object] = getattr(registry, "hooks", {})
    return hooks.values()


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules by path, in the order of named_modules and quicker.

    Paths are without `text_model.`, where versions of transformers differ.
    """
    waiting, met = [("", model)], set()
    while waiting:
        path, module = waiting.pop()
        if module in met:
            continue
        met.add(module)
        yield path, module
        for name, child in reversed(module._modules.items()):
            if child is not None:
                waiting.append((path if name == "text_model" else f"{path}{name}.", child))


def _tensors(path: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters and stored buffers by name."""
    offloaded = _weights_map(module) if "_hf_hook" in module.__dict__ else _NO_WEIGHTS
    for name, value in [*module._parameters.items(), *module._buffers.items()]:
        if value is None or name in module._non_persistent_buffers_set:
            continue
        if value.device.type == "meta" and name in offloaded:
            value = offloaded[name]
        yield from _plain(path + name, value)


def _weights_map(module: nn.Module) -> Mapping[str, Tensor]:
    """Return the weights of a module that an offload hook keeps."""
    hook = module.__dict__["_hf_hook"]
    for each in [hook, *getattr(hook, "hooks", ())]:
        found: Mapping[str, Tensor] | None = getattr(each, "weights_map", None)
        if found is not None:
            return found
    return _NO_WEIGHTS


def _plain(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a tensor consists of: quantised ones have several."""
    if hasattr(value, "__tensor_flatten__"):
        for part in value.__tensor_flatten__()[0]:
            yield from _plain(f"{name}.{part}", getattr(value, part))
    else:
        yield name, value


def _version(tensor: Tensor) -> int:
    """Return torch's count of writes into a tensor."""
    return -1 if tensor.is_inference() else tensor._version


@torch.no_grad()
def _samples(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """A few numbers of each tensor as bytes, from the first to nearly the last, with one transfer for each kind."""
    kinds: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        if tensor.device.type != "meta" and tensor.is_contiguous():
            count = tensor.numel()
            step = max(1, (count - 1) // (SAMPLES - 1))
            few = tensor.as_strided((min(SAMPLES, count),), (step,))
            kinds.setdefault((tensor.device, tensor.dtype), []).append((name, few))
    found: dict[str, bytes] = {}
    for members in kinds.values():
        content, at = torch.cat([few for _, few in members]).view(torch.uint8).cpu().numpy().tobytes(), 0
        for name, few in members:
            found[name] = content[at : at + few.nbytes]
            at += few.nbytes
    return found


def _summed(model: nn.Module, contents: Mapping[str, bytes], adapters: Sequence[str | None]) -> str:
    digest = hashlib.sha256(_settings(model).encode())
    for name in sorted(contents):
        digest.update(f"\n{name} ".encode() + contents[name])
    digest.update("\n".join(sorted(filter(None, adapters))).encode())
    return digest.hexdigest()[:32]


def _content(tensor: Tensor) -> bytes:
    """Return a digest of a tensor's dtype, shape and bits, the same on every device."""
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    whole = flat.numel() // 8 * 8
    words = (flat[:whole].clone() if flat.storage_offset() % 8 else flat[:whole]).view(torch.int64)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + flat[whole:].cpu().numpy().tobytes())
    for shape, axis in (((-1, LANES), 0), ((BLOCKS, -1), 1)):
        step = max(shape)
        even = words.numel() // step * step
        sums = words[:even].view(shape).sum(dim=axis) if even else words[:0]
        digest.update(torch.cat([sums, words[even:]]).cpu().numpy().tobytes())
    return digest.digest()


def _adapters(path: str, module: nn.Module) -> str | None:
    """Return the adapters of a layer and their strengths, which peft keeps beside the weights."""
    scaling = module.__dict__.get("scaling")
    if not isinstance(scaling, Mapping):
        return None
    active, merged = getattr(module, "active_adapters", ()), getattr(module, "merged_adapters", ())
    off = getattr(module, "disable_adapters", False)
    return f"{path} {sorted(scaling.items())} {list(active)} {list(merged)} {off}"


def _settings(model: nn.Module) -> str:
    """Return the settings that change the states and show in no weight: the config's, or the modules' own."""
    config: Any = getattr(model, "config", None)
    if config is not None:
        parts = [config, *(part for name in _PARTS if (part := getattr(config, name, None)) is not None)]
        return "; ".join(" ".join(f"{name}={getattr(part, name, None)}" for name in _SETTINGS) for part in parts)
    leaves = {str(module) for module in model.modules() if not any(module.children())}
    heads = {module.num_heads for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    return f"{sorted(leaves)} {sorted(heads)}"
