"""Examples for the help of each command."""

from __future__ import annotations

_EXAMPLES = {
    "tokens": (
        'clipcond tokens "a red fox in the snow" --family sdxl',
        'clipcond tokens "a (red:1.3) fox" --dialect a1111 --negative "blurry" --html fox.html',
        "clipcond tokens --infotext picture.png",
    ),
    "translate": (
        'clipcond translate "a (red:1.3) fox" --to compel',
        'clipcond translate "a (fox)1.4 there" --from compel --to comfy --json',
        'clipcond translate "a (red:1.3) fox" --to plain --fail-on-loss',
    ),
    "expand": (
        'clipcond expand "a {red|blue} fox" --all',
        'clipcond expand "a __colours__ fox" --count 4 --seed 7',
        'clipcond expand "{a|b} fox" --all | clipcond tokens -',
    ),
    "encode": (
        'clipcond encode "a red fox in the snow" -o fox.safetensors',
        'clipcond encode "a (red:1.3) fox" --dialect a1111 --weighting comfy -o fox.safetensors',
        'clipcond encode "a fox" --negative-prompt "blurry" --model ./sdxl -o fox.safetensors',
    ),
    "generate": (
        'clipcond generate "a red circle in the center" -n 4 --out pictures',
        'clipcond generate "a red fox" --pipeline ./sdxl -n 8 --keep 2 --out best',
        "clipcond generate --infotext picture.png --out again",
    ),
    "rerank": (
        "clipcond rerank pictures --top 2",
        'clipcond rerank "pictures/*.png" --prompt "a red fox" --json',
        'clipcond rerank pictures --prompt "a red fox" --paths | xargs ls',
    ),
    "train": (
        "clipcond train --data pairs.csv --model mini --out runs/mine --steps 200",
        "clipcond train settings.toml --batch-size 64",
        "clipcond train --data pairs.csv --model mini --out runs/mine --lock-image --target sd15 --retention 3",
    ),
    "evaluate": (
        "clipcond evaluate --model mini --data pairs.csv",
        "clipcond evaluate --model runs/mine --data pairs.csv --json",
        "clipcond evaluate --model ViT-B-32/openai --data 'shards/*.tar'",
    ),
    "export": (
        "clipcond export runs/mine --to diffusers --into ./sd15 --out ./sd15-mine",
        "clipcond export runs/mine --to comfyui --out mine.safetensors",
        "clipcond export mini --to transformers --out ./mini-text",
    ),
    "drift": (
        "clipcond drift --before mini --after runs/mine --target sd15",
        "clipcond drift --before ./sd15 --after ./sd15-mine --target sd15 --json",
        "clipcond drift --before mini --after runs/mine --target sd15 --pipeline mini",
    ),
    "lora-info": (
        "clipcond lora-info ink.safetensors",
        "clipcond lora-info ink.safetensors --json",
        "clipcond lora-info loras/style.safetensors",
    ),
    "cache": (
        "clipcond cache",
        "clipcond cache prune --to 500MB",
        "clipcond cache clear",
    ),
    "models": (
        "clipcond models",
        "clipcond models bigG",
        "clipcond models --all --json",
    ),
    "doctor": (
        "clipcond doctor",
        "clipcond doctor --json",
        "clipcond doctor --fail-on-problem",
    ),
    "demo": (
        "clipcond demo",
        "clipcond demo --out story --seed 3",
        "clipcond demo -n 4",
    ),
}


def examples(command: str) -> str:
    """Return the examples of a command as the text under its help; empty for one without."""
    lines = _EXAMPLES.get(command, ())
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)]) if lines else ""
