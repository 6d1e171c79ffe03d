"""The models that clipcond loads, as Markdown tables: every architecture of open_clip, the classes of transformers.

Each architecture of open_clip is built as `load_dual` builds it, on the meta device: names and shapes of all weights, no
numbers. Architectures that read their texts alike share a row. Text models of transformers want a config of the hub; the
published ones stand in for it here. OpenAI's nine are counted, parameter by parameter.

    python benchmarks/models.py [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from clipcond.models.folder_models import trains
from clipcond.models.open_clip_build import buildable, builder
from clipcond.models.open_clip_text import CONTEXT, OpenClipTextConfig, read_text_config
from clipcond.models.transformers_families import FAMILIES
from clipcond.runtime.torchvision_repair import repair

OPENAI = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")
_ROBERTA = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_ROBERTA |= {
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_NLLB = {
    "model_type": "m2m_100",
    "d_model": 1024,
    "vocab_size": 256206,
    "encoder_attention_heads": 16,
    "pad_token_id": 1,
}
TEXT_MODELS: Mapping[str, Mapping[str, Any]] = {  # the configs that these names of the hub hold
    "roberta-base": {**_ROBERTA, "model_type": "roberta", "vocab_size": 50265},
    "xlm-roberta-base": {**_ROBERTA, "model_type": "xlm-roberta", "vocab_size": 250002},
    "xlm-roberta-large": {
        **_ROBERTA,
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "google/mt5-base": {
        "model_type": "mt5",
        "vocab_size": 250112,
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 12,
        "num_heads": 12,
    },
    "google/mt5-xl": {
        "model_type": "mt5",
        "vocab_size": 250112,
        "d_model": 2048,
        "d_kv": 64,
        "d_ff": 5120,
        "num_layers": 24,
        "num_heads": 32,
    },
    "facebook/nllb-200-distilled-600M": {**_NLLB, "encoder_layers": 12, "encoder_ffn_dim": 4096},
    "facebook/nllb-200-distilled-1.3B": {**_NLLB, "encoder_layers": 24, "encoder_ffn_dim": 8192},
}


@dataclass(frozen=True)
class Built:
    """An architecture of open_clip as it was built."""

    name: str
    tokens: str
    length: int
    pooled: str
    attention: str
    activation: str
    trains: bool
    parameters: int
    problem: str = ""


def build(name: str, config: dict[str, Any], text: OpenClipTextConfig) -> Built:
    """Build an architecture on the meta device."""
    parameters, problem = 0, ""
    with ExitStack() as stack:
        places = []
        if text.model is not None:
            places = [stack.enter_context(tempfile.TemporaryDirectory())]
            (Path(places[0]) / "config.json").write_text(json.dumps(TEXT_MODELS[text.model]))
        try:
            parts = stack.enter_context(buildable(name, config, places))
            with torch.device("meta"):
                parameters = sum(weight.numel() for weight in builder(parts)().parameters())
        except Exception as error:  # a row of the table either way
            problem = f"{type(error).__name__}: {error}"
    return Built(
        name=name,
        tokens=text.tokenizer or "CLIP's own",
        length=text.length,
        pooled=text.pooled_at,
        attention="causal" if text.causal and text.model is None else "both ways",
        activation="sigmoid" if "init_logit_bias" in config else "softmax",
        trains=trains(config),
        parameters=parameters,
        problem=problem,
    )


def build_all() -> list[Built]:
    """Build every architecture of the open_clip that is installed."""
    repair()
    import open_clip

    configs = {name: open_clip.get_model_config(name) or {} for name in open_clip.list_models()}
    return [build(name, config, read_text_config(name, config)) for name, config in configs.items()]


def text_table(found: list[Built]) -> list[str]:
    """A row for all architectures that read their texts alike."""
    alike: dict[tuple[str, int, str, str, str, bool], list[str]] = {}
    for one in found:
        tokens = "that of the weights' own repository" if one.tokens.startswith("timm/") else one.tokens
        alike.setdefault((tokens, one.length, one.pooled, one.attention, one.activation, one.trains), []).append(
            one.name
        )
    lines = [
        "| tokenizer | positions | text is read off at | attention | logits | trains | architectures |",
        "|---|---|---|---|---|---|---|",
    ]
    for (tokens, length, pooled, attention, activation, can), names in sorted(
        alike.items(), key=lambda row: -len(row[1])
    ):
        said = "yes" if can else "no"
        lines.append(
            f"| {tokens} | {length} | {pooled} | {attention} | {activation} | {said} | {len(names)}: {', '.join(names)} |"
        )
    return lines


def count_table(found: list[Built]) -> list[str]:
    """OpenAI's nine models."""
    by_name = {one.name: one for one in found}
    lines = ["| model | parameters |", "|---|---|"]
    return [*lines, *(f"| `{name}/openai` | {by_name[name].parameters:,} |" for name in OPENAI)]


def family_table() -> list[str]:
    """The families of transformers."""
    lines = [
        "| family | `model_type` | positions | text is read off at | dual | matching | detection |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES.values():
        habit = family.habit
        length = "–" if habit is None else str(CONTEXT if family.clip_tokens else habit.length or "as its config says")
        classes = [" or ".join(family.classes.get(use, ())) or "–" for use in ("dual", "matching", "detection")]
        pooled = "–" if habit is None else habit.pooling
        lines.append(f"| {family.title} | `{family.model_type}` | {length} | {pooled} | {' | '.join(classes)} |")
    return lines


def main() -> None:
    """Print the tables, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print every architecture as a row of JSON")
    given = parser.parse_args()
    found = build_all()
    if given.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    good = [one for one in found if not one.problem]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("open_clip_torch", "transformers", "timm", "torch"))
    print(
        f"`python benchmarks/models.py`, {date.today()}, {libraries}: {len(good)} of {len(found)} architectures are built.\n"
    )
    for title, lines in (
        ("open_clip", text_table(good)),
        ("OpenAI's nine", count_table(good)),
        ("transformers", family_table()),
    ):
        print(f"### {title}\n")
        print("\n".join(lines) + "\n")
    for one in found:
        if one.problem:
            print(f"not built: {one.name}: {one.problem}")


if __name__ == "__main__":
    main()
