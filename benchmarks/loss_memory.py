"""Memory and time of contrastive losses: clipcond's strips, the whole matrix, and open_clip's loss, side by side.

Each figure of memory is from a process of its own: the peak of its resident set during loss and backward, beyond what it
held with features ready. The naive losses are not run where their arithmetic says that they would not fit.

    python benchmarks/loss_memory.py [--batch 32768] [--width 512] [--compare 4096] [--runs 7] [--most-gib 6]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def whole_info_nce(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The formula over the whole matrix, as most code has it."""
    logits = scale.exp() * images @ texts.T
    labels = torch.arange(len(logits), device=logits.device)
    return 0.5 * (cross_entropy(logits, labels) + cross_entropy(logits.T, labels))


def whole_siglip(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The formula over the whole matrix."""
    logits = scale.exp() * images @ texts.T + bias
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -logsigmoid(signs * logits).sum() / len(logits)


def strips_info_nce(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    from clipcond.train.losses.info_nce import info_nce

    return info_nce(images, texts, scale)


def strips_siglip(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    from clipcond.train.losses.siglip import siglip

    return siglip(images, texts, scale, bias)


def open_clip_info_nce(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _open_clip().ClipLoss()(images, texts, scale.exp())  # type: ignore[no-any-return]


def open_clip_siglip(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _open_clip().SigLipLoss()(images, texts, scale.exp(), bias)  # type: ignore[no-any-return]


def _open_clip() -> Any:
    from clipcond.runtime.torchvision_repair import repair

    repair()
    import open_clip.loss

    return open_clip.loss


# name: (loss, matrices of B×B float32 that are alive at the peak, matrix products of 2·B²·D operations)
CONTESTANTS: dict[str, tuple[Loss, int, int]] = {
    "InfoNCE, whole matrix": (whole_info_nce, 4, 3),
    "InfoNCE, open_clip": (open_clip_info_nce, 4, 6),
    "InfoNCE, **clipcond**": (strips_info_nce, 0, 4),
    "SigLIP, whole matrix": (whole_siglip, 5, 3),
    "SigLIP, open_clip": (open_clip_siglip, 5, 3),
    "SigLIP, **clipcond**": (strips_siglip, 0, 3),
}


def inputs(count: int, width: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    features = [normalize(torch.randn(count, width, generator=draw), dim=1).requires_grad_() for _ in range(2)]
    return [*features, torch.tensor(math.log(20.0), requires_grad=True), torch.tensor(-10.0, requires_grad=True)]


def resident() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measured_memory(name: str, count: int, width: int) -> None:
    """Print, in this process, bytes beyond the features at the peak, and the seconds that it took."""
    small = inputs(64, width)
    CONTESTANTS[name][0](*small).backward()  # type: ignore[no-untyped-call]  # imports and buffers
    given = inputs(count, width)
    start, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    CONTESTANTS[name][0](*given).backward()  # type: ignore[no-untyped-call]
    took = time.perf_counter() - began
    done.set()
    watcher.join()
    print(max(peak, resident()) - start, took)


def memory_of(name: str, count: int, width: int) -> tuple[float, float]:
    """Run one loss in a process of its own; return GiB beyond the features and seconds."""
    command = [sys.executable, __file__, "--only", name, "--batch", str(count), "--width", str(width)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(said[-2]) / 2**30, float(said[-1])


def compare(count: int, width: int, runs: int) -> None:
    """Print the seconds of every loss, in turns, with value and gradients held against the whole matrix."""
    print(f"**B = {count:,}, D = {width}: time, {runs} runs in turns**\n")
    print("| loss | products | GFLOP | s, median [fastest, slowest] | times whole matrix | gradient, relative to it |")
    print("|---|---|---|---|---|---|")
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    gradients: dict[str, Tensor] = {}
    for turn in range(runs + 1):
        for name, (loss, _, _) in CONTESTANTS.items():
            given = inputs(count, width)
            began = time.perf_counter()
            loss(*given).backward()  # type: ignore[no-untyped-call]
            if turn:
                seconds[name].append(time.perf_counter() - began)
            grads = [given[n].grad for n in range(3)]
            gradients[name] = torch.cat([grad.flatten() for grad in grads if grad is not None])
    for name, (_, _, products) in CONTESTANTS.items():
        base = name.split(",")[0] + ", whole matrix"
        ratios = sorted(one / other for one, other in zip(seconds[name], seconds[base], strict=True))
        took = seconds[name]
        apart = float((gradients[name] - gradients[base]).norm() / gradients[base].norm())
        print(
            f"| {name} | {products} | {products * 2 * count**2 * width / 1e9:.0f} "
            f"| {statistics.median(took):.2f} [{min(took):.2f}, {max(took):.2f}] "
            f"| {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] | {apart:.0e} |"
        )


def memory_table(counts: list[int], width: int, most_gib: float) -> None:
    """Print the memory beyond the features, measured where the arithmetic says that it fits."""
    print(f"\n**Memory beyond the features, GiB, D = {width}**\n")
    print("| loss | " + " | ".join(f"B = {count:,}" for count in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for name, (_, matrices, _) in CONTESTANTS.items():
        cells = []
        for count in counts:
            gradients = 2 * count * width * 4
            expected = (matrices * count**2 * 4 + gradients) / 2**30
            if expected > most_gib:
                cells.append(f"{expected:.1f} by arithmetic")
            else:
                gib, took = memory_of(name, count, width)
                cells.append(f"{gib:.2f} in {took:.1f} s" + (f" (arithmetic {expected:.2f})" if matrices else ""))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--compare", type=int, default=4_096)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--most-gib", type=float, default=6.0)
    parser.add_argument("--only", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measured_memory(options.only, options.batch, options.width)
        return
    if importlib.util.find_spec("open_clip") is None:
        for name in [name for name in CONTESTANTS if "open_clip" in name]:
            del CONTESTANTS[name]
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n"
    )
    compare(options.compare, options.width, options.runs)
    memory_table([options.compare, 4 * options.compare, options.batch], options.width, options.most_gib)


if __name__ == "__main__":
    main()
