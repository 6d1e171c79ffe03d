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
    "explain": (
        'clipcond explain "a red circle at the top left, a blue star in the center"',
        'clipcond explain "a red fox, golden hour" --by word --html fox.html --png fox.png',
        'clipcond explain picture.png --phrases "red, fox" --json',
    ),
    "rerank": (
        "clipcond rerank pictures --top 2",
        'clipcond rerank "pictures/*.png" --prompt "a red fox" --json',
        "clipcond rerank pictures --top 9 --print0 | clipcond rerank --files-from - --score iqa",
    ),
    "search": (
        'clipcond search pictures "a red circle - blue star"',
        "clipcond search pictures like.png --top 20 --html found.html",
        'clipcond search pictures "2:cat + red scarf" -r --since 2026-01-01 --min-score 0.2 --print0',
    ),
    "duplicates": (
        "clipcond duplicates pictures -r",
        "clipcond duplicates pictures --threshold 0.98 --move-to copies --dry-run",
        "clipcond duplicates pictures --move-to copies && clipcond rerank --undo copies",
    ),
    "caption-rank": (
        "clipcond caption-rank fox.png --captions captions.txt",
        "clipcond caption-rank pictures --captions captions.txt --top 1 --json",
        "clipcond caption-rank pictures -r -c captions.txt -k 3",
    ),
    "interrogate": (
        "clipcond interrogate fox.png",
        "clipcond interrogate pictures --phrases mine.txt --most 5",
        "clipcond interrogate pictures -r --model hf:./florence-2 --style detailed --csv captions.csv",
    ),
    "probe": (
        "clipcond probe train test",
        "clipcond probe train.csv test.csv --shots 1,4,16 --draws 5 --plot probe.svg",
        "clipcond probe train test --model ViT-B-32/openai --templates photo --json",
    ),
    "tune": (
        "clipcond tune train --out tuned.safetensors",
        "clipcond tune train.csv --test test.csv --learn templates,shared --templates imagenet7 --seed 1 --json",
        'clipcond tune train --model ViT-L-14/openai --sentence "a photo of a {}." --embedding embeddings/look.safetensors',
    ),
    "classify": (
        'clipcond classify pictures --labels "a red circle,a blue star,a green ring"',
        "clipcond classify pictures --labels-file labels.txt --templates photo --top 3 --json",
        "clipcond classify sorted -r --labels red,blue --truth folders --try-templates --templates art",
    ),
    "ask": (
        'clipcond ask car.png --question "what colour is the car?" --answers red,blue,green',
        'clipcond ask pictures --statement "a {} circle" --answers red,blue --json',
        'clipcond ask pictures -q "is there a star?" -a yes,no --csv stars.csv',
    ),
    "detect": (
        'clipcond detect pictures --labels "a red circle,a blue star" --html where.html',
        "clipcond detect photo.jpg --labels cat,dog --model ViT-B-16/openai --templates photo --json",
        "clipcond detect pictures -r --labels-file labels.txt --model hf:./owlv2 --csv boxes.csv",
    ),
    "screen": (
        "clipcond screen pictures --rules rules.toml",
        "clipcond screen pictures --rules rules.toml --fail-on-match --json",
        "clipcond screen examples --rules rules.toml --calibrate right.csv --precision 0.95 -o calibrated.toml",
    ),
    "compare": (
        "clipcond compare before after",
        "clipcond compare run-a run-b --model ViT-L-14/openai --score clipscore --json",
        "clipcond compare a.csv b.csv --score hpsv3",
    ),
    "embed": (
        "clipcond embed pictures --out embeddings",
        "clipcond embed 'shards/*.tar' --out embeddings --model ViT-L-14/openai --precision auto --store float16",
        "clipcond embed s3://bucket/pictures --out embeddings --engine ray --workers 8",
    ),
    "train": (
        "clipcond train --data pairs.csv --model mini --out runs/mine --steps 200",
        "clipcond train settings.toml --batch-size 64",
        "clipcond train --data pairs.csv --model mini --out runs/mine --lock-image --target sd15 --retention 3",
    ),
    "evaluate": (
        "clipcond evaluate --model mini --data pairs.csv",
        "clipcond evaluate --model runs/mine --before mini --data pairs.csv --retention photos.csv",
        "clipcond evaluate --model ViT-B-32/openai --data 'shards/*.tar'",
    ),
    "report": (
        "clipcond report runs/mine",
        "clipcond report runs/mine --out mine.html",
        "clipcond report runs/mine --out mine.html --force",
    ),
    "export": (
        "clipcond export runs/mine --to diffusers --into ./sd15 --out ./sd15-mine",
        "clipcond export runs/mine --to comfyui --out mine.safetensors",
        "clipcond export mini --to transformers --out ./mini-text",
    ),
    "drift": (
        "clipcond drift --before mini --after runs/mine --target sd15",
        "clipcond drift --before ./sd15 --after ./sd15-mine --target sd15 --html drift.html",
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
        "clipcond models SigLIP2",
        "clipcond models --kind dual --all --json",
    ),
    "doctor": (
        "clipcond doctor",
        "clipcond doctor --json",
        "clipcond doctor --fail-on-problem",
    ),
    "conformance": (
        "clipcond conformance --tool compel",
        "clipcond conformance --tool sd_embed --json",
        "clipcond conformance --tool lpw --path ./community --fail-on-difference",
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
