"""Aesthetic heads: folded exactly, goldens of the published ones, refused on another tower, read without running code."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from clipcond.errors import ConfigError, ModelError, OutputExists, ResourceMissing, ShapeError
from clipcond.models.aesthetic_head import read_head_file, write_head_file
from clipcond.score.aesthetic import AestheticHead, aesthetic_head, folded

GOLDENS = Path(__file__).resolve().parents[3] / "shared" / "data" / "aesthetic"
published = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason="the published heads (../shared/data/aesthetic) are not here"
)


def read(path: Path) -> AestheticHead:
    file = read_head_file(path)
    return aesthetic_head(file.name, file.tensors, file.metadata)


def ratings(tower: str) -> np.ndarray:
    return np.concatenate([np.load(GOLDENS / tower / f"rating{number}.npy") for number in range(10)])


def linear(width: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    return {"weight": noise.normal(size=(1, width)), "bias": noise.normal(size=1)}


def chain(widths: tuple[int, ...], numbers: tuple[int, ...], prefix: str, seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    tensors = {}
    for number, before, after in zip(numbers, widths, widths[1:], strict=False):
        tensors[f"{prefix}.{number}.weight"] = noise.normal(size=(after, before)) / before**0.5
        tensors[f"{prefix}.{number}.bias"] = noise.normal(size=after)
    return tensors


V2 = ((768, 1024, 128, 64, 16, 1), (0, 2, 4, 6, 7), "layers")
V2_5 = ((1152, 1024, 128, 64, 16, 1), (0, 2, 4, 6, 8), "scoring_head")


@published
@pytest.mark.parametrize(
    ("file", "tower", "model", "norm", "bias", "expected"),
    [
        (
            "sa_0_4_vit_b_32_linear.pth",
            "vit_b_32",
            "ViT-B-32/openai",
            27.572,
            3.42147,
            "-1.4700 0.2728 1.9900 3.6114 5.0874 6.3926 7.6682 8.9155 9.9166 11.0056",
        ),
        (
            "sa_0_4_vit_l_14_linear.pth",
            "vit_l_14",
            "hf:openai/clip-vit-large-patch14",
            28.444,
            3.52937,
            "-2.4579 -0.1379 1.8951 3.5849 5.0997 6.4701 7.7870 9.0480 10.2264 11.3044",
        ),
        (
            "sac+logos+ava1-l14-linearMSE.pth",
            "vit_l_14",
            "ViT-L-14/openai",
            17.9956,
            5.236646,
            "1.6555 2.3593 3.0698 3.6725 4.2380 4.7010 5.0731 5.3654 5.5767 5.7468",
        ),
    ],
)
def test_published_heads_give_their_published_scores(
    file: str, tower: str, model: str, norm: float, bias: float, expected: str
) -> None:
    head = read(GOLDENS / file)
    assert np.linalg.norm(head.weight) == pytest.approx(norm, abs=5e-4)
    assert head.bias == pytest.approx(bias, abs=5e-6)
    assert head.scores(ratings(tower), tower=model) == pytest.approx(list(map(float, expected.split())), abs=1e-4)
    assert head.tower_note(model) is None


@published
def test_the_published_v2_folds_without_loss() -> None:
    file = read_head_file(GOLDENS / "sac+logos+ava1-l14-linearMSE.pth")
    images = ratings("vit_l_14").astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    layered = images
    for number in (0, 2, 4, 6, 7):
        layered = layered @ file.tensors[f"layers.{number}.weight"].T + file.tensors[f"layers.{number}.bias"]
    head = read(GOLDENS / "sac+logos+ava1-l14-linearMSE.pth")
    assert np.abs(layered[:, 0] - head.scores(images, tower="ViT-L-14/openai")).max() <= 1e-12
    assert head.weight[:4] == pytest.approx([-0.691593, -0.556994, -0.321169, -0.631484], abs=1e-6)


@published
def test_the_published_b16_head_is_told_from_the_b32_head_of_the_same_width() -> None:
    head = read(GOLDENS / "sa_0_4_vit_b_16_linear.pth")
    assert np.linalg.norm(head.weight) == pytest.approx(28.197, abs=5e-4)
    with pytest.raises(ConfigError, match="does not fit ViT-B-32/openai; it was made for ViT-B-16/openai"):
        head.scores(np.ones((1, 512)), tower="ViT-B-32/openai")


@pytest.mark.parametrize(("layout", "tower"), [(V2, "ViT-L-14/openai"), (V2_5, "hf:google/siglip-so400m-patch14-384")])
def test_activation_free_layers_fold_exactly(layout: tuple, tower: str) -> None:
    tensors = chain(*layout)
    images = np.random.default_rng(1).normal(size=(5, layout[0][0]))
    layered = images / np.linalg.norm(images, axis=1, keepdims=True)
    for number in layout[1]:
        layered = layered @ tensors[f"{layout[2]}.{number}.weight"].T + tensors[f"{layout[2]}.{number}.bias"]
    head = aesthetic_head("head.pth", tensors)
    assert head.towers[0] == tower
    assert np.abs(layered[:, 0] - head.scores(images, tower=tower)).max() <= 1e-12


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_any_chain_folds_to_its_composition(inner: list[int], seed: int) -> None:
    noise = np.random.default_rng(seed)
    widths = [*inner, 1]
    layers = [(noise.normal(size=(b, a)), noise.normal(size=b)) for a, b in pairwise(widths)]
    weight, bias = folded(layers)
    inputs = noise.normal(size=(3, inner[0]))
    outputs = inputs
    for layer_weight, layer_bias in layers:
        outputs = outputs @ layer_weight.T + layer_bias
    assert outputs[:, 0] == pytest.approx(inputs @ weight + bias, abs=1e-12 * max(1.0, np.abs(outputs).max()) * 100)


@pytest.mark.parametrize(
    ("widths", "numbers", "prefix"),
    [
        ((768, 1024, 128, 64, 16, 1), (0, 3, 6, 9, 11), "layers"),  # v2 with ReLU: one more module in each gap
        ((768, 1024, 128, 64, 16, 1), (0, 2, 4, 6, 8), "layers"),  # dropout or ReLU: nobody can tell
        ((768, 1024, 64, 32, 16, 1), (0, 2, 4, 6, 7), "layers"),  # numbered as v2 and of other widths
        ((1152, 1024, 128, 64, 16, 1), (0, 2, 4, 6, 8), "layers"),  # shaped as v2.5 and of another name
        ((8, 4, 1), (0, 2), "net"),
    ],
)
def test_a_head_that_may_hold_activations_is_refused(
    widths: tuple[int, ...], numbers: tuple[int, ...], prefix: str
) -> None:
    with pytest.raises(ModelError, match=r"^relu.pth: activations may lie between its layers, numbered 0, [\d, ]+, so"):
        aesthetic_head("relu.pth", chain(widths, numbers, prefix))


def test_layers_numbered_without_gaps_hold_nothing_between_them() -> None:
    assert aesthetic_head("h", chain((6, 3, 1), (0, 1), "net")).weight.shape == (6,)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "expected one chain of linear layers, found none"),
        ({"weight": np.ones((1, 4))}, "'weight' is neither weight nor bias of a linear layer"),
        ({"a.0.weight": np.ones((1, 4))}, r"layer 0 has \{'weight': \(1, 4\)\}; expected a weight and its bias"),
        ({"a.0.weight": np.ones((1, 4)), "a.0.bias": np.ones(2)}, "layer 0 has"),
        ({"a.0.weight": np.ones(4), "a.0.bias": np.ones(4)}, "layer 0 has"),
        ({"weight": np.ones((3, 4)), "bias": np.ones(3)}, "it gives 3 numbers; expected one"),
        ({**chain((4, 3), (0,), "a"), **chain((4, 1), (1,), "a")}, "layer 1 does not take what 0 gives"),
        (
            {**chain((4, 1), (0,), "a"), **chain((4, 1), (0,), "b")},
            "expected one chain of linear layers, found 2 of them",
        ),
        ({"bn.running_mean": np.ones(4)}, "'bn.running_mean' is neither weight nor bias"),
    ],
)
def test_what_is_no_head_is_refused_in_one_line(tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ModelError, match=f"^some.pth is no aesthetic head: {message}") as caught:
        aesthetic_head("some.pth", tensors)
    assert "\n" not in str(caught.value)


def test_a_head_with_nan_is_refused() -> None:
    with pytest.raises(ModelError, match="h: layer 0 holds NaN or infinity; fetch or fit the head again"):
        aesthetic_head("h", {"weight": np.array([[1.0, np.nan]]), "bias": np.zeros(1)})


def test_a_head_refuses_a_tower_of_another_width_or_name() -> None:
    head = aesthetic_head("v2.pth", chain(*V2))
    with pytest.raises(
        ConfigError, match=r"v2.pth takes vectors of 768 numbers and mini gives 64; it was made for ViT-L-14"
    ):
        head.scores(np.ones((2, 64)), tower="mini")
    with pytest.raises(
        ConfigError, match=r"v2.pth does not fit ViT-L-14/laion2b_s32b_b82k; it was made for ViT-L-14/openai"
    ):
        head.scores(np.ones((2, 768)), tower="ViT-L-14/laion2b_s32b_b82k")
    with pytest.raises(ConfigError, match="it was made for another model"):
        aesthetic_head("own", linear()).scores(np.ones((2, 5)), tower="mini")


@pytest.mark.parametrize("tower", ["ViT-L-14@model.pt", "./clip", "hf:./clip", "/models/clip", "~/clip"])
def test_where_the_name_does_not_tell_the_width_decides_and_a_note_says_so(tower: str) -> None:
    head = aesthetic_head("v2.pth", chain(*V2))
    assert head.scores(np.ones((1, 768)), tower=tower).shape == (1,)
    assert head.tower_note(tower) == (
        f"v2.pth was made for ViT-L-14/openai; if {tower} holds another model, its numbers mean nothing"
    )


def test_a_head_of_unknown_origin_says_so() -> None:
    head = aesthetic_head("own", linear())
    assert head.towers == ()
    assert head.tower_note("mini") == (
        "own does not say which model it was made for; only the width of mini fits for certain"
    )


@given(st.integers(1, 6), st.floats(0.001, 1000), st.integers(0, 1000))
def test_scores_depend_on_the_direction_of_each_row_alone(rows: int, size: float, seed: int) -> None:
    head = aesthetic_head("own", linear())
    images = np.random.default_rng(seed).normal(size=(rows, 4))
    together = head.scores(images, tower="x")
    assert head.scores(images * size, tower="x") == pytest.approx(together, abs=1e-12)
    alone = [head.scores(images[row : row + 1], tower="x")[0] for row in range(rows)]
    assert alone == pytest.approx(together, abs=1e-12)


def test_vectors_that_are_no_rows_are_refused() -> None:
    head = aesthetic_head("own", linear())
    with pytest.raises((ConfigError, ShapeError), match="takes vectors of 4 numbers and x gives 0"):
        head.scores(np.ones(4), tower="x")
    with pytest.raises(ConfigError, match="own: images: number 1 of 4 is nan"):
        head.scores(np.full((1, 4), np.nan), tower="x")


def test_a_head_of_ones_own_is_written_and_read_to_the_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(3)
    head = AestheticHead(
        name="keeps", weight=noise.normal(size=9), bias=0.1, towers=("mini",), metadata=(("accuracy", "0.71"),)
    )
    path = write_head_file(tmp_path / "keeps.safetensors", head.tensors(), head.described())
    again = read(path)
    assert again.weight.tolist() == head.weight.tolist()
    assert (again.bias, again.towers, again.metadata, again.name) == (0.1, ("mini",), head.metadata, path.name)
    with pytest.raises(ValueError, match="read-only"):
        again.weight[0] = 1
    other = write_head_file(tmp_path / "other.safetensors", again.tensors(), again.described())
    assert other.read_bytes() == path.read_bytes()
    broken = {"clipcond.aesthetic_head": "{"}
    with pytest.raises(ModelError, match=r"h: its metadata clipcond.aesthetic_head is not JSON; write the head again"):
        aesthetic_head("h", head.tensors(), broken)
    with pytest.raises(OutputExists, match="is there already"):
        write_head_file(path, head.tensors(), head.described())
    with pytest.raises(ModelError, match=r"give it a name that ends in .safetensors"):
        write_head_file(tmp_path / "keeps.pth", head.tensors(), head.described())


def test_pth_and_safetensors_of_one_head_are_the_same(tmp_path: Path) -> None:
    layer = nn.Linear(5, 1)
    torch.save(layer.state_dict(), tmp_path / "a.pth")
    save_file(layer.half().state_dict(), tmp_path / "half.safetensors")
    images = torch.eye(5)
    first, second = (read(tmp_path / name).scores(images, tower="x") for name in ("a.pth", "half.safetensors"))
    assert first == pytest.approx(second, abs=1e-3)


class Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("touched"),))


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Hostile()}, "hostile.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Hostile()))
    torch.save(nn.Linear(4, 1), "module.pth")
    for name in ("hostile.pth", "plain.pth", "module.pth"):
        with pytest.raises(ModelError, match=f"{name} is no state dict that can be read safely: ") as caught:
            read_head_file(name)
        assert "\n" not in str(caught.value)
    assert not Path("touched").exists()


def test_files_that_are_no_heads_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.safetensors").write_text("no tensors")
    Path("empty.pth").write_bytes(b"")
    torch.save([1], "list.pth")
    torch.save({"weight": torch.ones(1, 4, dtype=torch.int64), "bias": torch.ones(1)}, "whole.pth")
    with Path("large.pth").open("wb") as large:
        large.truncate(65 * 2**20)
    messages = {
        "text.safetensors": "is no safetensors file",
        "empty.pth": "is no state dict that can be read safely",
        "list.pth": "is no state dict: expected tensors by name",
        "whole.pth": "'weight' does not hold floating-point numbers",
        "large.pth": "has 65 MiB; an aesthetic head has a few",
        ".": "is not a file",
    }
    for name, message in messages.items():
        with pytest.raises(ModelError, match=message) as caught:
            read_head_file(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ResourceMissing, match=r"no aesthetic head at gone.pth"):
        read_head_file("gone.pth")
