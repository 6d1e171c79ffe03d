"""Pictures as vectors on the device: scores and rankings of the CPU, in each precision and in batches of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from measures import close, within

PROMPT = "a red circle in the center"
ABSOLUTE = {"fp32": 2e-6, "bf16": 8e-3, "fp16": 1.5e-3}  # of a cosine


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def ranked(folder: Path, **how: Any) -> Any:
    from clipcond.rerank.ranking import rerank
    from clipcond.rerank.scorer import Scorer

    batch_size = how.pop("batch_size", 32)
    return rerank(pictures(folder), PROMPT, scorer=Scorer.load("mini", **how), batch_size=batch_size)


def scores(ranking: Any) -> dict[str, float]:
    return {row.path.name: row.score for row in ranking.rows}


def agree(ours: dict[str, float], theirs: dict[str, float], allowed: float, what: str) -> None:
    assert ours.keys() == theirs.keys()
    within(max(abs(ours[name] - theirs[name]) for name in theirs), allowed, f"{what}: a score")


def same_order(ours: dict[str, float], theirs: dict[str, float], allowed: float) -> None:
    """Each pair whose scores on the CPU are further apart than rounding can bring them stands in the CPU's order."""
    names = sorted(theirs, key=theirs.__getitem__)
    wrong = [
        (low, high)
        for at, low in enumerate(names)
        for high in names[at + 1 :]
        if theirs[high] - theirs[low] > 2 * allowed and ours[high] <= ours[low]
    ]
    assert not wrong, f"{len(wrong)} pairs stand in another order, the first {wrong[0]}"


@pytest.mark.torch_defaults
@pytest.mark.parametrize("precision", list(ABSOLUTE))
def test_scores_and_order_are_the_cpu_s(precision: str, device: str, scenes: Path) -> None:
    if precision == "fp16" and device == "cpu":
        pytest.skip("fp16 is for a GPU")
    theirs = scores(ranked(scenes, device="cpu"))
    ours = scores(ranked(scenes, device=device, precision=precision))
    agree(ours, theirs, ABSOLUTE[precision], f"mini {precision}")
    same_order(ours, theirs, ABSOLUTE[precision])


@pytest.mark.torch_defaults
def test_auto_is_half_precision(cuda: str) -> None:
    import torch

    from clipcond.rerank.scorer import Scorer

    assert Scorer.load("mini", device=cuda, precision="auto").dual.image.dtype == torch.float16


@pytest.mark.torch_defaults
@pytest.mark.parametrize("name", ["ViT-B-32", "RN50"])
def test_a_published_architecture_in_float32_without_tf32(name: str, device: str, scenes: Path) -> None:
    """Random weights; a convolution in TF32 alone would move vectors by 1e-4."""
    import open_clip
    import torch
    from PIL import Image

    from clipcond.encode.image import ImageTower

    if name == "RN50" and device == "cpu":
        pytest.skip("slow on a CPU")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained=None).eval()
    images = [Image.open(path).convert("RGB") for path in pictures(scenes)[:4]]
    config = {"size": 224, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    theirs = ImageTower.from_open_clip(model, config).embed(images)
    before = torch.backends.cudnn.allow_tf32
    ours = ImageTower.from_open_clip(model.to(device), config).embed(images)
    assert torch.backends.cudnn.allow_tf32 == before
    close(ours, theirs, relative=1e-5, what=f"{name}, float32")


@pytest.mark.parametrize("batch_size", [1, 5, 24, 64])
def test_scores_do_not_depend_on_the_batch(batch_size: int, device: str, scenes: Path) -> None:
    """Batches are filled up, so that a picture meets the same kernels whatever it comes with."""
    whole = scores(ranked(scenes, device=device, batch_size=32))
    agree(scores(ranked(scenes, device=device, batch_size=batch_size)), whole, 2e-6, f"batch of {batch_size}")


def test_a_batch_that_does_not_fit_is_one_line(
    cuda: str, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from clipcond.cli import main
    from clipcond.encode.image import ImageTower

    def crowded(self: Any, batch: Any, rows: int) -> Any:
        return torch.empty(1 << 50, dtype=torch.uint8, device=cuda)

    monkeypatch.setattr(ImageTower, "_filled", crowded)
    assert main(["rerank", str(scenes), "--prompt", PROMPT, "--no-cache"]) == 3
    told = capsys.readouterr().err.splitlines()
    errors = [line for line in told if line.startswith("error: ")]
    assert len(errors) == 1, told
    assert "the memory is full" in errors[0]
    assert "--batch-size" in errors[0]
    monkeypatch.undo()
    assert main(["rerank", str(scenes), "--prompt", PROMPT, "--no-cache"]) == 0, "memory was not given back"


def test_the_commands(device: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --device they take the GPU where there is one."""
    from clipcond.cli import main

    theirs = scores(ranked(scenes, device="cpu"))
    capsys.readouterr()
    command = ["rerank", str(scenes), "--prompt", PROMPT, "--json", "--no-cache", "--device", device]
    for precision in ("fp32", "auto"):
        assert main([*command, "--precision", precision]) == 0, capsys.readouterr().err
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        ours = {Path(row["path"]).name: row["score"] for row in rows if "score" in row}
        allowed = ABSOLUTE["fp32"] if precision == "fp32" else ABSOLUTE["bf16"]
        agree(ours, theirs, allowed, f"rerank --precision {precision}")


def test_a_collection_embedded_on_the_device(
    device: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from clipcond.cli import main
    from clipcond.rerank.stored import read_embeddings

    for where, out in ((device, "ours"), ("cpu", "theirs")):
        words = ["embed", str(scenes), "--out", str(tmp_path / out), "--batch-size", "7", "--device", where, "--json"]
        assert main(words) == 0, capsys.readouterr().err
    ours, theirs = (read_embeddings(tmp_path / out)[0].vectors for out in ("ours", "theirs"))
    close(ours, theirs, relative=5e-6, what="embed, float32")


def test_patches_windows_and_search(device: str, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    from clipcond.cli import main
    from clipcond.encode.patch_tower import PatchTower
    from clipcond.find.heat_maps import PatchMaps, WindowMaps
    from clipcond.rerank.scorer import Scorer

    image = Image.open(pictures(scenes)[0]).convert("RGB")
    found: dict[str, list[Any]] = {"patches": [], "windows": []}
    for where in (device, "cpu"):
        scorer = Scorer.load("mini", device=where)
        vectors = scorer.texts([PROMPT])[0].vector[None]
        tower = scorer.dual.image
        found["patches"].append(PatchMaps(PatchTower("mini", tower), tower, vectors).of(image))
        found["windows"].append(WindowMaps(tower, vectors).of(image))
    for name, (ours, theirs) in found.items():
        close(ours, theirs, relative=1e-4, what=f"heat by {name}")
    for command in (
        ["detect", str(scenes), "-l", "a red circle,a blue star"],
        ["search", str(scenes), "a red circle", "--json"],
        ["classify", str(scenes), "-l", "a red circle,a blue star", "--json"],
        ["duplicates", str(scenes), "--json"],
    ):
        assert main(command) == 0, f"{command[0]}: {capsys.readouterr().err}"


def test_evaluate_measures_the_same_on_the_device(device: str, scenes: Path) -> None:
    import clipcond
    from clipcond.models.load import load_dual

    ours, theirs = (
        clipcond.evaluate(load_dual("mini", device=where), scenes / "pairs.csv") for where in (device, "cpu")
    )
    assert ours.image_to_text == pytest.approx(theirs.image_to_text, abs=0.05)
    assert ours.text_to_image == pytest.approx(theirs.text_to_image, abs=0.05)


def test_a_prompt_is_tuned_on_the_device(device: str, scenes: Path) -> None:
    """Learned words go through the text tower and back to the CPU, gradients too."""
    import torch

    from clipcond.encode.context import context_rows
    from clipcond.rerank.scorer import Scorer

    found = []
    for where in (device, "cpu"):
        rows = context_rows(
            Scorer.load("mini", device=where).dual.texts, "a picture of a {}", ["red circle", "blue star"]
        )
        context = rows.start.clone().requires_grad_()
        vectors = rows.encode(context)
        (vectors @ torch.ones(vectors.shape[1])).square().sum().backward()  # type: ignore[no-untyped-call]
        assert context.grad is not None
        found.append((vectors, context.grad))
    close(found[0][0], found[1][0], relative=1e-5, what="vectors of classes")
    close(found[0][1], found[1][1], relative=1e-3, what="gradient of the learned words")
