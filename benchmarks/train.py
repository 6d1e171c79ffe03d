"""Pairs a second of contrastive training: clipcond beside open_clip's own trainer and transformers' model, in one run.

    python benchmarks/train.py --model ViT-B-32 --batch 32 --steps 8 --rounds 3 --threads 2
    python benchmarks/train.py --model ViT-B-32 --batch 32 --steps 8 --rounds 3 --threads 2 --bf16
    python benchmarks/train.py --model tiny                                               # does it work at all

The same random weights, pictures, captions, batches in the same order, learning rates, decay and clipping for all. Each
trains in a process of its own, all of them in turn, `rounds` times; the first step is left out, and what is printed is the
median of a run and the ratios of each round, with their spread, by the wall and by the processor: on a machine that others
use too the latter says more. What the loaders of open_clip and transformers take in processes of their own is in neither
figure of the processor. The losses are compared step by step.

open_clip: `train_one_epoch` of open_clip_train over its CsvDataset, captions of 77 positions. transformers: `CLIPModel` with
return_loss in a plain loop, captions padded to 77 with their mask, as its example script has it. clipcond: `clipcond.train`;
with stored features `lock_image`, beside which open_clip's --lock-image is the run of the same losses.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from clipcond.mini import world
from clipcond.models.open_clip_folder import read_config, read_open_clip_folder, write_open_clip_folder
from clipcond.models.to_transformers import open_clip_text_to_transformers
from clipcond.models.trainable import load_trainable
from clipcond.prompt.tokenizer import batch_ids
from clipcond.runtime.torchvision_repair import repair
from clipcond.train.batches import Batches
from clipcond.train.config import TrainConfig
from clipcond.train.data import read_pairs
from clipcond.train.loop import train

BETAS, EPS, DECAY, CLIP, SEED = (0.9, 0.98), 1e-8, 0.1, 1.0, 0
CONTESTANTS = ("open_clip", "transformers", "clipcond", "open_clip, image locked", "clipcond, features stored")
TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}


# ── what all train on ────────────────────────────────────────────────────────────────────────────────────────────────


def make_data(folder: Path, given: argparse.Namespace) -> None:
    """Write the model with random weights, pictures of its size, and short captions, all of them different."""
    repair()
    import open_clip

    torch.manual_seed(SEED)
    if given.model == "tiny":
        model = open_clip.CLIP(**TINY)
        described: dict[str, Any] = {"model_cfg": TINY, "preprocess_cfg": {"size": 64}}
        write_open_clip_folder(model, described, folder / "model")
    else:
        trainable = load_trainable(given.model, random_weights=True)
        write_open_clip_folder(trainable.model, trainable.config, folder / "model")
    size = int(read_config(folder / "model")["model_cfg"]["vision_cfg"]["image_size"])
    rng, known = random.Random(SEED), set[str]()
    rows = [("image", "caption")]
    while len(known) < given.batch * given.different:
        scene = world.sample(rng, most=2)
        caption = world.caption(scene, rng, "terse")
        if caption not in known and len(batch_ids([caption])[0]) <= given.longest:
            world.render(scene, rng).resize((size, size)).save(folder / f"{len(known)}.png")
            rows.append((f"{len(known)}.png", caption))
            known.add(caption)
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def orders(folder: Path, given: argparse.Namespace) -> list[int]:
    """The pairs of all steps, one after the other, as clipcond draws them."""
    batches = Batches(read_pairs(folder / "pairs.csv"), None, batch_size=given.batch, seed=SEED)
    return [int(row) for step in range(given.steps) for row in batches.rows(step)]


def loader(folder: Path, given: argparse.Namespace, tokenizer: Callable[[Any], Any]) -> Any:
    """open_clip's data set of the pairs in that order, without augmentation."""
    import open_clip
    from open_clip_train.data import CsvDataset

    config = read_config(folder / "model")
    size = int(config["model_cfg"]["vision_cfg"]["image_size"])
    transform = open_clip.image_transform(size, is_train=False)
    table = folder / "absolute.csv"
    if not table.exists():
        with (folder / "pairs.csv").open() as file:
            lines = [f"{folder / row['image']}\t{row['caption']}" for row in csv.DictReader(file)]
        table.write_text("\n".join(["filepath\ttitle", *lines]))
    data = CsvDataset(str(table), transform, img_key="filepath", caption_key="title", sep="\t", tokenizer=tokenizer)
    return torch.utils.data.DataLoader(
        torch.utils.data.Subset(data, orders(folder, given)), batch_size=given.batch, num_workers=given.workers
    )


# ── the contestants: seconds and loss of each step ───────────────────────────────────────────────────────────────────


def with_open_clip(folder: Path, given: argparse.Namespace, *, locked: bool) -> dict[str, list[float]]:
    repair()
    import open_clip
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    model = read_open_clip_folder(folder / "model").float()
    if locked:
        model.lock_image_tower()
    model.output_dict = True
    excluded = ("bn", "ln", "bias", "logit_scale")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim < 2 or any(part in name for part in excluded)]
    rest = [p for name, p in named if not (p.ndim < 2 or any(part in name for part in excluded))]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=given.learning_rate, betas=BETAS, eps=EPS)
    adjust, clock, losses = (
        cosine_lr(optimizer, given.learning_rate, given.warmup, given.steps),
        list[Instant](),
        list[Any](),
    )

    def scheduler(step: int) -> None:
        clock.append(_now())
        adjust(step)

    class Recording(open_clip.ClipLoss):  # type: ignore[misc, name-defined]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            losses.append(found["contrastive_loss"].detach())
            return found

    data = loader(folder, given, lambda text: open_clip.tokenize(text))
    data.num_batches, data.num_samples = len(data), len(data.dataset)
    precision = "amp_bf16" if given.bf16 else "fp32"
    args = SimpleNamespace(
        device="cpu", precision=precision, distill=False, accum_freq=1, skip_scheduler=False, grad_clip_norm=CLIP, rank=0,
        local_rank=0, world_size=1, log_every_n_steps=10**6, batch_size=given.batch, wandb=False, log_local=False,
    )  # fmt: skip
    shard = SimpleNamespace(set_epoch=lambda epoch: None, dataloader=data)
    train_one_epoch(model, {"train": shard}, Recording(), 0, optimizer, None, scheduler, None, args)
    clock.append(_now())
    return _result(clock, [float(each) for each in losses])


def with_transformers(folder: Path, given: argparse.Namespace) -> dict[str, list[float]]:
    repair()
    import open_clip

    model = transformers_model(folder)
    parameters = [p for p in model.parameters() if p.requires_grad]
    plain = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": DECAY},
    ]
    optimizer = torch.optim.AdamW(groups, lr=given.learning_rate, betas=BETAS, eps=EPS, fused=True)
    from clipcond.train.optimizer import learning_rate_at

    clock, losses = list[Instant](), list[Any]()
    for step, (pixels, ids) in enumerate(loader(folder, given, lambda text: open_clip.tokenize(text))):
        clock.append(_now())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, given.steps, given.learning_rate, given.warmup)
        ends = (ids == 49407).int().argmax(dim=1, keepdim=True)
        mask = (torch.arange(77) <= ends).long()
        ids = torch.where(mask.bool(), ids, 49407)
        with torch.autocast("cpu", torch.bfloat16, enabled=given.bf16):
            out = model(input_ids=ids, attention_mask=mask, pixel_values=pixels, return_loss=True)
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        losses.append(out.loss.detach())
    clock.append(_now())
    return _result(clock, [float(each) for each in losses])


def transformers_model(folder: Path) -> Any:
    """The model's weights as transformers' CLIPModel."""
    from transformers import CLIPConfig, CLIPModel

    settings = read_config(folder / "model")["model_cfg"]
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    heads = vision["width"] // vision.get("head_width", 64)
    act = "quick_gelu" if settings.get("quick_gelu") else "gelu"
    config = CLIPConfig(
        text_config={
            "hidden_size": text["width"], "intermediate_size": 4 * text["width"], "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"], "hidden_act": act, "projection_dim": settings["embed_dim"],
            "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407,
        },
        vision_config={
            "hidden_size": vision["width"], "intermediate_size": 4 * vision["width"], "num_attention_heads": heads,
            "num_hidden_layers": vision["layers"], "image_size": vision["image_size"],
            "patch_size": vision["patch_size"], "hidden_act": act, "projection_dim": settings["embed_dim"],
        },
        projection_dim=settings["embed_dim"],
    )  # fmt: skip
    model = CLIPModel(config)
    own = read_open_clip_folder(folder / "model").float()
    state = own.state_dict()
    converted = open_clip_text_to_transformers(state, text["heads"])
    converted |= {"logit_scale": state["logit_scale"], **_vision(state, vision["layers"])}
    missing, unexpected = model.load_state_dict(converted, strict=False)
    assert not unexpected, unexpected
    assert not [name for name in missing if "position_ids" not in name], missing
    return model.train()


def _vision(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The image tower under transformers' names."""
    own = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    top = "vision_model."
    found = {
        f"{top}embeddings.class_embedding": own["class_embedding"],
        f"{top}embeddings.patch_embedding.weight": own["conv1.weight"],
        f"{top}embeddings.position_embedding.weight": own["positional_embedding"],
        "visual_projection.weight": own["proj"].T.contiguous(),
    }
    for theirs, ours in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        found |= {f"{top}{theirs}.{kind}": own[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    for n in range(layers):
        block, layer = f"transformer.resblocks.{n}.", f"{top}encoder.layers.{n}."
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", own[f"{block}attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{layer}self_attn.{name}_proj.{kind}"] = part
            for theirs, ours in (
                ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                found[f"{layer}{theirs}.{kind}"] = own[f"{block}{ours}.{kind}"]
    return found


def with_clipcond(folder: Path, given: argparse.Namespace, *, stored: bool) -> dict[str, list[float]]:
    clock, losses = [_now()], list[float]()

    def report(line: dict[str, Any]) -> None:
        if "loss" in line:
            losses.append(line["loss"])
            clock.append(_now())
        elif line.get("event") in ("start", "note"):
            clock[0] = _now()  # storing features ends with a note

    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            data=str(folder / "pairs.csv"), model=str(folder / "model"), out=f"{out}/run", steps=given.steps,
            batch_size=given.batch, learning_rate=given.learning_rate, warmup=given.warmup, betas=BETAS,
            weight_decay=DECAY, grad_clip=CLIP, seed=SEED, lock_image=stored, log_every=1, eval_every=10**6,
            save_every=10**6, threads=given.threads, device="cpu",
            precision="bf16" if given.bf16 else "float32",
        )  # fmt: skip
        train(config, report=report)
    return _result(clock, losses)


Instant = tuple[float, float]


def _now() -> Instant:
    """Seconds on the wall, and of the processor in this process with all its threads."""
    return time.perf_counter(), time.process_time()


def _result(clock: list[Instant], losses: list[float]) -> dict[str, list[float]]:
    wall, processor = zip(*clock, strict=True)
    return {
        "seconds": [after - before for before, after in pairwise(wall)],
        "processor": [after - before for before, after in pairwise(processor)],
        "losses": losses,
    }


def contestant(name: str, folder: Path, given: argparse.Namespace) -> dict[str, list[float]]:
    logging.disable(logging.WARNING)
    torch.set_num_threads(given.threads)
    if name.startswith("open_clip"):
        return with_open_clip(folder, given, locked="locked" in name)
    if name == "transformers":
        return with_transformers(folder, given)
    return with_clipcond(folder, given, stored="stored" in name)


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def operations(folder: Path) -> Iterator[str]:
    """Multiplications of a pair, forward: of each tower, and of the text tower cut to the captions."""
    settings = read_config(folder / "model")["model_cfg"]
    vision, text = settings["vision_cfg"], settings["text_cfg"]

    def tower(width: int, layers: int, length: float) -> float:
        return layers * length * (12 * width**2 + 2 * length * width)

    lengths = [len(ids) + 2 for ids in batch_ids([said[0] for said in read_pairs(folder / "pairs.csv").captions])]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    image = (
        tower(vision["width"], vision["layers"], patches + 1)
        + patches * 3 * vision["patch_size"] ** 2 * vision["width"]
    )
    whole, cut = (tower(text["width"], text["layers"], length) for length in (77, max(lengths)))
    yield f"captions of {statistics.mean(lengths):.1f} positions, {max(lengths)} at most"
    yield (
        f"multiplications a pair, forward: image tower {image / 1e9:.2f}e9, text tower {whole / 1e9:.2f}e9 at 77 positions and "
        f"{cut / 1e9:.2f}e9 at {max(lengths)}: all {(image + whole) / (image + cut):.2f} times less, text alone "
        f"{(image + whole) / cut:.1f} times"
    )


def table(results: dict[str, list[dict[str, list[float]]]], given: argparse.Namespace) -> Iterator[str]:
    """Markdown: pairs a second, ratios to open_clip in the same round, and how far the losses are apart."""
    yield (
        "| trained with | pairs/s | to open_clip | spread | pairs a processor second, to open_clip | spread | "
        "largest difference of the loss | last loss |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, runs in results.items():
        shown = [f"{statistics.median(_speeds(runs, 'seconds', given)):.2f}"]
        for clock in ("seconds", "processor"):
            both = (_speeds(results[each], clock, given) for each in (name, "open_clip"))
            ratios = [mine / theirs for mine, theirs in zip(*both, strict=True)]
            shown += [f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"]
        losses = runs[0]["losses"]
        same = "open_clip, image locked" if "stored" in name or "locked" in name else "open_clip"
        others = results[same][0]["losses"] if same in results else losses
        apart = max(abs(a - b) for a, b in zip(losses, others, strict=True))
        yield f"| {name} | {' | '.join(shown)} | {apart:.4f} | {losses[-1]:.4f} |"
    base = results["open_clip"][0]["losses"]
    steps = [abs(after - before) for before, after in pairwise(base)]
    yield f"\nopen_clip's loss: {base[0]:.4f} at the first step, {base[-1]:.4f} at the last"
    yield f"noise: it changes by {statistics.median(steps):.4f} from a batch to the next (median)"


def _speeds(runs: list[dict[str, list[float]]], clock: str, given: argparse.Namespace) -> list[float]:
    """Pairs a second of each round, the first step left out."""
    return [given.batch / statistics.median(run[clock][1:]) for run in runs]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="ViT-B-32", help="an architecture of open_clip with a ViT, or tiny")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--different", type=int, default=8, help="batches of different pairs")
    options.add_argument("--longest", type=int, default=20, help="tokens of a caption")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--workers", type=int, default=1, help="processes that load for open_clip and transformers")
    options.add_argument("--bf16", action="store_true", help="bfloat16 products (autocast) for all")
    options.add_argument("--learning-rate", type=float, default=2e-5)
    options.add_argument("--warmup", type=int, default=2)
    options.add_argument("--only", choices=CONTESTANTS, nargs="*", default=list(CONTESTANTS))
    options.add_argument("--run", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    given.only = list(dict.fromkeys(["open_clip", *given.only]))
    if given.run:
        print("RESULT" + json.dumps(contestant(given.run, given.folder, given)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_data(folder, given)
        results: dict[str, list[dict[str, list[float]]]] = {name: [] for name in given.only}
        for number in range(given.rounds):
            for name in given.only:
                results[name].append(_in_a_process(name, folder))
                print(
                    f"round {number}: {name} {[f'{each:.2f}' for each in results[name][-1]['seconds']]} s",
                    file=sys.stderr,
                    flush=True,
                )
        import open_clip
        import transformers

        precision = "bfloat16 products" if given.bf16 else "float32"
        print(f"{platform.processor() or platform.machine()}, {given.threads} threads, {precision}; torch {torch.__version__}, "
              f"open_clip {open_clip.__version__}, transformers {transformers.__version__}")  # fmt: skip
        print(f"{given.model}, batches of {given.batch}, {given.steps} steps, {given.rounds} rounds")
        for line in (*operations(folder), "", *table(results, given)):
            print(line)


def _in_a_process(name: str, folder: Path) -> dict[str, list[float]]:
    command = [sys.executable, *sys.argv, "--run", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, list[float]] = json.loads(lines[0].removeprefix("RESULT"))
    return found


if __name__ == "__main__":
    main()
