"""Low-rank adapters on the text tower: peft's layers around its linear maps, merged at the end, and written as a file.

The file has kohya's names (`lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight`), which diffusers'
`load_lora_weights`, ComfyUI, A1111 and Forge all read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.condition.targets import SD2_LAYERS
from clipcond.errors import ConfigError, ModelError
from clipcond.files import writing
from clipcond.train.config import TrainConfig
from clipcond.train.model import attended, temperature, use_plain_attention

TARGETS: Mapping[str, Mapping[str, str]] = {  # → the layers of a block by our names, and by those of the file
    "attn": {f"attn.{each}_proj": f"self_attn_{each}_proj" for each in ("q", "k", "v", "out")},
    "mlp": {"mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2"},
}
_PREFIXES = {
    "sdxl-l": "lora_te1_",
    "sdxl-g": "lora_te2_",
    "sd3-l": "lora_te1_",
    "sd3-g": "lora_te2_",
    "flux": "lora_te1_",
}
_WIDTH_H, _WIDTH_G = 1024, 1280


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraFactors:
    """An adapter's matrices. layers: by block and name in the file, (r, I) down and (O, r) up, float32 on the CPU.

    scale: of up @ down, by which a weight changes.
    """

    layers: Mapping[tuple[int, str], tuple[Tensor, Tensor]]
    rank: int
    scale: float


class SplitAttention(nn.Module):
    """Self-attention with a linear layer for each of query, key, value and output, as adapters want them."""

    def __init__(self, joint: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = joint.num_heads
        parts = zip(joint.in_proj_weight.chunk(3), joint.in_proj_bias.chunk(3), strict=True)
        self.q_proj, self.k_proj, self.v_proj = (_linear(weight, bias) for weight, bias in parts)
        self.out_proj = _linear(joint.out_proj.weight, joint.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Compute (B, T, D) → (B, T, D), as open_clip's blocks ask for it: one tensor three times, no weights wanted."""
        q, k, v = (
            project(query).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attended(q, k, v, attn_mask)), None

    def joined(self) -> nn.MultiheadAttention:
        """Return the attention of the library with these weights, query, key and value stacked."""
        parts = (self.q_proj, self.k_proj, self.v_proj)
        joint = nn.MultiheadAttention(self.out_proj.in_features, self.num_heads, batch_first=True, device="meta")
        joint.in_proj_weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]))
        joint.in_proj_bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
        joint.out_proj.weight, joint.out_proj.bias = self.out_proj.weight, self.out_proj.bias
        return joint


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws nothing
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return layer


class Adapter:
    """The adapter of a text tower in training: all of the model that trains, the temperature aside."""

    def __init__(
        self, model: Any, *, rank: int, alpha: float, targets: Sequence[str], blocks: int | None = None,
        scale_trains: bool = True, base: str = "",
    ) -> None:  # fmt: skip
        """Put an adapter that changes nothing yet into a model, and take everything else out of training.

        alpha: the change counts alpha / rank.   targets: of TARGETS.   blocks: the last so many have one; None for all.
        scale_trains: let the temperature train beside it.   base: the fingerprint of the model, which checkpoints keep.
        Raises ConfigError without peft, ModelError for a text tower of another kind than CLIP's own.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ConfigError("lora_rank needs peft, which is not installed: pip install 'clipcond[lora]'") from error
        self.base = base
        self._model, self._rank, self._scale = model, rank, alpha / rank
        model.requires_grad_(False)
        every = model.transformer.resblocks
        for block in every:
            if type(block.attn) is not nn.MultiheadAttention or block.attn.in_proj_bias is None:
                raise ModelError("the text tower's attention is of another kind than CLIP's; no adapter fits it")
            block.attn = SplitAttention(block.attn)
        first = len(every) - min(len(every), blocks or len(every))
        names = [name for target in targets for name in TARGETS[target]]
        wanted = [f"resblocks.{number}.{name}" for number in range(first, len(every)) for name in names]
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=wanted), model.transformer)
        for parameter in temperature(model) if scale_trains else ():
            parameter.requires_grad_(True)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what trains, by its name in the model."""
        return {name: p.detach() for name, p in self._model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what trained. Raises ValueError or RuntimeError where it is of another adapter."""
        own = self.state_dict()
        if own.keys() != state.keys():
            raise ValueError(f"holds other weights: {', '.join(sorted(own.keys() ^ state.keys())[:3])}")
        for name, value in own.items():
            value.copy_(state[name])

    def merge(self) -> LoraFactors:
        """Put the adapter into the model's weights, which is then open_clip's as before; return the adapter apart."""
        layers: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        for block, name, layer in list(self._layers()):
            down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            layers[block, name] = (down.detach().cpu().clone(), up.detach().cpu().clone())
            layer.merge()
        for block in self._model.transformer.resblocks:
            for path, layer in [(path, each) for path, each in block.named_modules() if hasattr(each, "lora_A")]:
                block.set_submodule(path, layer.get_base_layer())
            block.attn = block.attn.joined()
        use_plain_attention(self._model.transformer)
        return LoraFactors(layers=layers, rank=self._rank, scale=self._scale)

    def _layers(self) -> Iterator[tuple[int, str, Any]]:
        """Yield block, name in the file and peft's layer of each layer that has an adapter."""
        for number, block in enumerate(self._model.transformer.resblocks):
            for names in TARGETS.values():
                for path, name in names.items():
                    layer = block.get_submodule(path)
                    if hasattr(layer, "lora_A"):
                        yield number, name, layer


def adapter_of(config: TrainConfig, model: Any, base: str = "") -> Adapter | None:
    """Put the adapter that a run asks for into its model; None where it asks for none. base, errors: as of Adapter."""
    if config.lora_rank is None:
        return None
    return Adapter(
        model, rank=config.lora_rank, alpha=config.lora_alpha or config.lora_rank, targets=config.lora_targets,
        blocks=config.train_blocks, scale_trains="temperature" not in config.frozen, base=base,
    )  # fmt: skip


def adapter_weights(config: TrainConfig, model: Any) -> int:
    """Return the number of weights of the adapter that a run asks for, and of the temperature where that trains."""
    blocks = model.transformer.resblocks
    width, inner = int(model.token_embedding.embedding_dim), int(blocks[0].mlp.c_fc.out_features)
    sides = {"attn": 4 * (width + width), "mlp": 2 * (width + inner)}
    count = min(len(blocks), config.train_blocks or len(blocks))
    scales = 0 if "temperature" in config.frozen else len(temperature(model))
    return count * (config.lora_rank or 0) * sum(sides[target] for target in config.lora_targets) + scales


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPlace:
    """The encoder that a file is for. prefix: of its keys.   blocks: how many it has."""

    prefix: str
    blocks: int


def lora_place(model: Any, target: str | None, pipeline_layers: int | None = None) -> LoraPlace:
    """Return the place in a pipeline of a text tower: `lora_te_` for its only CLIP, `lora_te1_` and `lora_te2_` for its two.

    target: what the tower is for; None takes one of bigG's width as the second encoder of SDXL.   pipeline_layers: of its
    layers, that pipelines read; None for as many as those of its width.
    """
    width, blocks = model.token_embedding.embedding_dim, len(model.transformer.resblocks)
    if pipeline_layers is None and blocks == SD2_LAYERS and width == _WIDTH_H:
        pipeline_layers = blocks - 1
    prefix = _PREFIXES.get(target or "", "lora_te2_" if width == _WIDTH_G else "lora_te_")
    return LoraPlace(prefix=prefix, blocks=pipeline_layers or blocks)


def write_lora(path: Path, factors: LoraFactors, place: LoraPlace, *, strength: float = 1.0) -> None:
    """Write an adapter as a `.safetensors` file, complete or not at all, over an earlier one. Raises OSError.

    Blocks that the place has not are left out.   strength: a factor of the change.
    """
    from safetensors.torch import save

    alpha = factors.rank * factors.scale * strength
    state: dict[str, Tensor] = {}
    for (block, name), (down, up) in factors.layers.items():
        if block < place.blocks:
            key = f"{place.prefix}text_model_encoder_layers_{block}_{name}"
            state[f"{key}.lora_down.weight"], state[f"{key}.lora_up.weight"] = down.contiguous(), up.contiguous()
            state[f"{key}.alpha"] = torch.tensor(alpha)
    said = {
        "format": "pt", "ss_network_module": "networks.lora", "ss_network_dim": str(factors.rank),
        "ss_network_alpha": f"{alpha:g}",
    }  # fmt: skip
    with writing(path, overwrite=True) as file:
        file.write(save(state, metadata=said))
