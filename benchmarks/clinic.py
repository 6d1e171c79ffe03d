"""A hundred faults seeded into text encoders on disk: which of them does `clipcond drift` name?

    python benchmarks/clinic.py [--faults 100] [--seed 0] [--verbose]

Each fault is written as a folder of transformers, weights, config and tokenizer, into the trained encoder of the embedded
pipeline or into a small random one, and compared with the whole one by the command's own workflow. A fault counts as named
if its name is all that is found; for an encoder that is refused, if the line says what is wrong. The rules were written
against the faults of tests/models/test_clinic.py, which stay in memory; these are others, with other sizes and seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipcond.errors import ClipCondError
from clipcond.models.export_layouts import nested
from clipcond.models.export_tokenizer import write_tokenizer
from clipcond.resources import embedded
from clipcond.workflows.drift import DriftOptions, run

LAYERS = "text_model.encoder.layers."
POSITIONS = "text_model.embeddings.position_embedding.weight"
NORM = "text_model.final_layer_norm"


@dataclass(eq=False)
class Folder:
    """An encoder before it is written: weights in nested names, config, and the tokenizer's special tokens and length."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    tokens: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write `text_encoder` and `tokenizer`; returns the former."""
        for name in ("text_encoder", "tokenizer"):
            (folder / name).mkdir(parents=True)
        save_file({n: v.contiguous() for n, v in self.state.items()}, folder / "text_encoder/model.safetensors")
        (folder / "text_encoder/config.json").write_text(json.dumps(self.config))
        write_tokenizer(folder / "tokenizer")
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            path = folder / "tokenizer" / name
            path.write_text(json.dumps({**json.loads(path.read_text()), **self.tokens}))
        return folder / "text_encoder"

    def blocks(self, *parts: str) -> list[str]:
        """Names of the matrices of all blocks that hold one of some parts."""
        return [n for n, v in self.state.items() if n.startswith(LAYERS) and v.ndim == 2 and any(p in n for p in parts)]


Change = Callable[[Folder, torch.Generator], None]
Fault = tuple[str, str, Change]  # its name, what was done, and by what


def trained() -> Folder:
    """The encoder of the embedded pipeline."""
    folder = embedded("pipeline") / "text_encoder"
    state = {name: value.float() for name, value in nested(load_file(folder / "model.safetensors")).items()}
    return Folder(state, json.loads((folder / "config.json").read_text()), {})


def random_one() -> Folder:
    """A small encoder with numbers of the size that trained ones have."""
    draw = torch.Generator().manual_seed(11)
    config = {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 48,
        "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 6, "max_position_embeddings": 77,
        "hidden_act": "gelu", "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 1, "projection_dim": 48,
    }  # fmt: skip
    from transformers import CLIPTextConfig, CLIPTextModel

    state = nested({k: v.clone() for k, v in CLIPTextModel(CLIPTextConfig(**config)).state_dict().items()})
    state = {
        name: value for name, value in state.items() if name.startswith("text_model.") and "position_ids" not in name
    }
    for name, value in state.items():
        size = 0.15 if value.ndim == 1 else 0.4 if "embedding" in name else 1.2 / value.shape[1] ** 0.5
        noise = size * torch.randn(value.shape, generator=draw)
        value.copy_(value + noise if value.ndim == 1 else noise)
    return Folder(state, config, {})


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def grid(bits: int, group: int | None, *, even: bool = True) -> Change:
    """Round matrices to a grid: symmetric by the largest of a group, or from its least to its largest."""

    def change(folder: Folder, draw: torch.Generator) -> None:
        for name, value in folder.state.items():
            if value.ndim == 2 and (group is None or value.shape[1] % group == 0):
                groups = value.reshape(-1, group or value.shape[1])
                low = torch.zeros(len(groups), 1) if even else groups.amin(dim=1, keepdim=True)
                reach = groups.abs().amax(dim=1, keepdim=True) if even else groups.amax(dim=1, keepdim=True) - low
                step = (reach / (2 ** (bits - 1) - 1 if even else 2**bits - 1)).clamp_min(1e-12)
                folder.state[name] = (((groups - low) / step).round() * step + low).reshape(value.shape)

    return change


def stored_as(kind: torch.dtype) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        folder.state = {name: value.to(kind) for name, value in folder.state.items()}
        if kind.itemsize == 1:  # as programs read it back
            folder.state = {name: value.to(torch.bfloat16) for name, value in folder.state.items()}

    return change


def fresh(share: float, how: str) -> Change:
    """Weights that were never loaded: initial ones, or zeros."""

    def change(folder: Folder, draw: torch.Generator) -> None:
        names = sorted(name for name in folder.state if name.startswith(LAYERS) and name.endswith("weight"))
        order = torch.randperm(len(names), generator=draw)[: max(1, round(share * len(names)))]
        for name in (names[int(n)] for n in order):
            value = folder.state[name]
            if how == "zeros":
                folder.state[name] = torch.zeros_like(value)
            elif value.ndim == 1:
                folder.state[name] = torch.ones_like(value)
                folder.state[name.replace("weight", "bias")].zero_()
            else:
                folder.state[name] = 0.02 * torch.randn(value.shape, generator=draw)
                folder.state[name.replace("weight", "bias")].zero_()

    return change


def fresh_layers(count: int) -> Change:
    """The upper blocks as they are initialised."""

    def change(folder: Folder, draw: torch.Generator) -> None:
        first = int(folder.config["num_hidden_layers"]) - count
        for name, value in folder.state.items():
            if name.startswith(LAYERS) and int(name.split(".")[3]) >= first:
                if value.ndim == 1:
                    value.fill_(float("norm" in name and name.endswith("weight")))
                else:
                    value.copy_(0.02 * torch.randn(value.shape, generator=draw))

    return change


def lacking(part: str) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        del folder.state[part if part in folder.state else f"{LAYERS}0.{part}"]

    return change


def plain_norm(folder: Folder, draw: torch.Generator) -> None:
    folder.state[f"{NORM}.weight"] = torch.ones_like(folder.state[f"{NORM}.weight"])
    folder.state[f"{NORM}.bias"] = torch.zeros_like(folder.state[f"{NORM}.bias"])


def moved_positions(step: int, *, ring: bool) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        table = folder.state[POSITIONS]
        moved = table.roll(-step, 0)
        if not ring and step > 0:
            moved[-step:] = 0
        elif not ring:
            moved[:-step] = 0.02 * torch.randn(moved[:-step].shape, generator=draw)
        folder.state[POSITIONS] = moved

    return change


def table_of(count: int, how: str) -> Change:
    """A table of other length: cut, filled up, or stretched as Long-CLIP does it."""

    def change(folder: Folder, draw: torch.Generator) -> None:
        table = folder.state[POSITIONS]
        if how == "stretch":
            tail = torch.nn.functional.interpolate(table[20:].T[None], size=count - 20, mode="linear")[0].T
            table = torch.cat([table[:20], tail])
        else:
            table = torch.cat([table, table[-1:].expand(max(0, count - len(table)), -1)])[:count]
        folder.state[POSITIONS] = table.clone()
        folder.config["max_position_embeddings"] = count
        folder.tokens["model_max_length"] = count

    return change


def told(**tokens: Any) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        folder.tokens.update(tokens)

    return change


def configured(**values: Any) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        folder.config.update(values)

    return change


def other_heads(factor: float) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        folder.config["num_attention_heads"] = int(folder.config["num_attention_heads"] * factor)

    return change


def without_layers(count: int) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        kept = int(folder.config["num_hidden_layers"]) - count
        folder.config["num_hidden_layers"] = kept
        folder.state = {
            n: v for n, v in folder.state.items() if not (n.startswith(LAYERS) and int(n.split(".")[3]) >= kept)
        }

    return change


def merged_lora(rank: int, *parts: str, strength: float = 0.05) -> Change:
    """A LoRA merged into some matrices of each block, with the sizes that trained ones have."""

    def change(folder: Folder, draw: torch.Generator) -> None:
        for name in folder.blocks(*parts):
            value = folder.state[name]
            up, down = (torch.randn(*size, generator=draw) for size in ((len(value), rank), (rank, value.shape[1])))
            delta = up @ down
            folder.state[name] = value + strength * delta * value.norm() / delta.norm()

    return change


def trained_on(size: float, *parts: str) -> Change:
    """Small steps of Adam's kind: each number moves by about as much, some more."""

    def change(folder: Folder, draw: torch.Generator) -> None:
        for name, value in folder.state.items():
            if not parts or any(part in name for part in parts):
                step = torch.randn(value.shape, generator=draw).sign() * torch.rand(value.shape, generator=draw)
                folder.state[name] = value + size * value.std().clamp_min(1e-3) * step

    return change


def swapped(first: str, second: str, layer: int) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        one, two = f"{LAYERS}{layer}.{first}.weight", f"{LAYERS}{layer}.{second}.weight"
        folder.state[one], folder.state[two] = folder.state[two].clone(), folder.state[one].clone()

    return change


def swapped_layers(one: int, two: int) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        for name in [name for name in folder.state if name.startswith(f"{LAYERS}{one}.")]:
            other = name.replace(f"{LAYERS}{one}.", f"{LAYERS}{two}.")
            folder.state[name], folder.state[other] = folder.state[other].clone(), folder.state[name].clone()

    return change


def transposed(part: str) -> Change:
    def change(folder: Folder, draw: torch.Generator) -> None:
        for name in folder.blocks(part):
            folder.state[name] = folder.state[name].T.clone()

    return change


def unrelated(folder: Folder, draw: torch.Generator) -> None:
    for name, value in folder.state.items():
        folder.state[name] = torch.randn(value.shape, generator=draw) * value.std() + value.mean()


ATTENTION, MLP = ("q_proj", "v_proj"), ("fc1", "fc2")
FAULTS: list[Fault] = [
    *[("quantised", f"{bits} bits, groups of {group}", grid(bits, group)) for bits in (8, 5, 4) for group in (None, 16)],
    ("quantised", "8 bits from least to largest", grid(8, None, even=False)),
    ("quantised", "4 bits from least to largest, groups of 16", grid(4, 16, even=False)),
    *[("quantised", f"stored as {str(kind)[6:]}", stored_as(kind)) for kind in
      (torch.float16, torch.bfloat16, torch.float8_e4m3fn)],
    *[("half loaded", f"{share:.0%} {how}", fresh(share, how)) for share in (0.04, 0.15, 0.4, 0.6)
      for how in ("initial", "zeros")],
    *[("half loaded", f"{count} blocks initial", fresh_layers(count)) for count in (1, 2)],
    *[(f"lacks {part}", "a weight missing", lacking(part)) for part in
      (f"{NORM}.weight", f"{NORM}.bias", "mlp.fc2.bias", "self_attn.k_proj.weight", POSITIONS)],
    ("final norm", "ones and zeros", plain_norm),
    *[("positions", f"moved by {step}", moved_positions(step, ring=ring)) for step in (-3, -1, 1, 2) for ring in (True, False)],
    *[("length", f"table of {count}, {how}", table_of(count, how)) for count, how in
      ((248, "stretch"), (154, "stretch"), (128, "filled"), (64, "cut"), (50, "cut"))],
    *[("length", f"rows of {count}", told(model_max_length=count)) for count in (76, 64, 32)],
    *[("end token", f"end {text}", told(eos_token=text)) for text in ("<|startoftext|>", "!", "</w>")],
    *[("padding", f"padding {text}", told(pad_token=text)) for text in ("!", "<|startoftext|>", "a</w>")],
    *[("start token", f"start {text}", told(bos_token=text)) for text in ("<|endoftext|>", "!")],
    ("pooling", "pooled at the start", configured(eos_token_id=49406)),
    ("pooling", "pooled at an id that no row has", configured(eos_token_id=49000)),
    *[("activation", kind, configured(hidden_act=kind)) for kind in ("relu", "gelu_new", "silu")],
    *[("heads", f"{factor}× the heads", other_heads(factor)) for factor in (0.5, 2)],
    *[("layers", f"{count} fewer", without_layers(count)) for count in (1, 2)],
    *[("low-rank change", f"LoRA of rank {rank} on q and v", merged_lora(rank, *ATTENTION)) for rank in (1, 4, 8)],
    *[("low-rank change", f"LoRA of rank {rank} on all", merged_lora(rank, "proj", "fc", strength=0.2)) for rank in (2, 6)],
    ("low-rank change", "LoRA of rank 4, weak", merged_lora(4, "proj", strength=0.005)),
    *[("retrained", f"steps of {size}", trained_on(size)) for size in (1e-3, 0.02, 0.2)],
    *[("retrained", f"{parts[0]} …, steps of {size}", trained_on(size, *parts)) for parts in (ATTENTION, MLP)
      for size in (0.005, 0.1)],
    ("retrained", "the last block", trained_on(0.05, f"{LAYERS}3.")),
    ("retrained", "the token table", trained_on(0.01, "token_embedding")),
    *[("swapped weights", f"{one} and {two}", swapped(one, two, layer)) for one, two, layer in
      (("self_attn.q_proj", "self_attn.k_proj", 0), ("self_attn.v_proj", "self_attn.out_proj", 2))],
    ("swapped weights", "two blocks", swapped_layers(0, 1)),
    *[("swapped weights", f"{part} transposed", transposed(part)) for part in ("out_proj", "q_proj")],
    ("another encoder", "unrelated weights", unrelated),
]  # fmt: skip


# ── the clinic ───────────────────────────────────────────────────────────────────────────────────────────────────────


def named(before: Path, after: Path, prompts: Path) -> list[str]:
    """The names that the command finds, or its line where it refuses."""
    options = DriftOptions(before=str(before), after=str(after), target="sd15", prompts=prompts, limits={})
    try:
        (encoder,) = run(options).encoders.values()
    except ClipCondError as error:
        return [f"refused: {error}"]
    return [each.name for each in encoder.differences]


def is_right(name: str, found: list[str]) -> bool:
    """True for the name alone, or for a refusal that says it."""
    if name.startswith("lacks"):
        return len(found) == 1 and all(word in found[0] for word in name.split())
    return found == [name]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--faults", type=int, default=100)
    options.add_argument("--seed", type=int, default=0, help="other draws, and each fault in the other encoder if odd")
    options.add_argument("--verbose", action="store_true", help="a line for each fault")
    given = options.parse_args()
    torch.set_num_threads(1)
    start, wrong, kinds = time.perf_counter(), list[str](), Counter[str]()
    bases = {"trained": trained(), "random": random_one()}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "prompts.txt").write_text("a red fox in the snow\na glass of water, soft light\n")
        whole = {name: base.write(root / name) for name, base in bases.items()}
        for name, folder in whole.items():
            assert named(folder, folder, root / "prompts.txt") == [], f"the {name} encoder differs from itself"
        for number in range(given.faults):
            # every other base, and another draw in the next round over the list
            name, what, change = FAULTS[number % len(FAULTS)]
            base = list(bases)[(number + number // len(FAULTS) + given.seed) % 2]
            if "float16" in what and "bfloat16" not in what:
                base = "random"  # the trained one is stored in float16: no fault there
            folder = copy.deepcopy(bases[base])
            change(folder, torch.Generator().manual_seed(1000 * (1 + given.seed) + number))
            found = named(whole[base], folder.write(root / str(number)), root / "prompts.txt")
            right = is_right(name, found)
            kinds[name.split()[0] if name.startswith("lacks") else name] += 1
            if not right:
                wrong.append(f"{number} {base}: {name} ({what}) → {', '.join(found) or 'nothing'}")
            if given.verbose:
                print(f"{number:3} {'right' if right else 'WRONG'} {base:8} {name} ({what}): {found}", flush=True)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, float32, one thread")
    print("seeded: " + ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
    for line in wrong:
        print("wrong:", line)
    share = f"{given.faults - len(wrong)} of {given.faults}"
    print(f"named right: {share} ({time.perf_counter() - start:.0f} s); at least 95 of 100 are wanted")


if __name__ == "__main__":
    main()
