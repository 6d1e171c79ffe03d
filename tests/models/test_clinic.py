"""A hundred faults seeded into a tiny encoder, each of which the clinic has to name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clipcond.models.clinic import POSITIONS, ClinicEncoder, differences, rows_of
from clipcond.models.export_layouts import nested
from clipcond.runtime.torchvision_repair import repair
from clipcond.train.context import stretched

repair()

from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

WIDTH, LAYERS = 32, 3
Change = Callable[[Any, dict[str, Any], torch.Generator], None]


def healthy() -> Any:
    """A tiny encoder whose biases and norms are learned numbers, as those of a trained one."""
    torch.manual_seed(0)
    model = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407, hidden_act="quick_gelu",
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn_like(weight))
            elif "embedding" in name:
                weight.normal_(std=0.5)
            else:
                weight.normal_(std=0.2)
    return model


def seen(model: Any, settings: dict[str, Any]) -> ClinicEncoder:
    rows, pool = settings["rows"], settings.get("pool")

    def forward(ids: Tensor) -> tuple[Tensor, Tensor]:
        out = model(ids)
        return out.last_hidden_state, out.pooler_output if pool is None else pool(out.last_hidden_state)

    return ClinicEncoder(
        state=nested(model.state_dict()), config=model.config.to_dict(), rows=lambda texts: rows_of(texts, **rows),
        forward=forward,
    )  # fmt: skip


def quantise(bits: int, group: int | None) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        for weight in model.parameters():
            if weight.ndim == 2:
                groups = weight.reshape(-1, group or weight.shape[1])
                scale = groups.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
                weight.copy_(((groups / scale).round() * scale).reshape(weight.shape))

    return change


def round_to(kind: torch.dtype) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        for weight in model.parameters():
            weight.copy_(weight.to(kind).float())

    return change


def half_loaded(share: float, how: str) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        names = [name for name, weight in model.named_parameters() if weight.ndim == 2 or "layers" in name]
        chosen = [name for name in names if float(torch.rand((), generator=draw)) < share] or names[:1]
        for name, weight in model.named_parameters():
            if name in chosen:
                if how == "zeros":
                    weight.zero_()
                elif weight.ndim == 1:
                    weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                else:
                    weight.copy_(0.02 * torch.randn(weight.shape, generator=draw))

    return change


def no_norm(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
    model.final_layer_norm.weight.fill_(1)
    model.final_layer_norm.bias.zero_()


def bypassed_norm(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
    model.final_layer_norm.forward = lambda states: states


def shift(step: int, how: str) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        table = model.embeddings.position_embedding.weight
        moved = table.roll(-step, 0)
        if how == "edge":  # the end repeats, as where a table was cut and filled up
            moved[-1 if step > 0 else 0] = table[-1 if step > 0 else 0]
        table.copy_(moved)

    return change


def rows(**changes: int) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        settings["rows"] |= changes

    return change


def positions(count: int) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        from torch import nn

        old = model.embeddings.position_embedding.weight
        new = nn.Embedding(count, WIDTH)
        new.weight.copy_(torch.cat([old, old[-1:].expand(max(0, count - 77), -1)])[:count])
        model.embeddings.position_embedding = new
        model.embeddings.register_buffer("position_ids", torch.arange(count)[None], persistent=False)

    return change


def pool(how: str) -> Change:
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda s: s.mean(dim=1), "last": lambda s: s[:, -1], "first": lambda s: s[:, 0],
        "max": lambda s: s.amax(dim=1),
    }  # fmt: skip

    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        if how == "wrong id":
            model.config.eos_token_id = model.eos_token_id = 49406
        else:
            settings["pool"] = kinds[how]

    return change


def config(name: str, value: Any) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        setattr(model.config, name, value)

    return change


def drop_layers(count: int) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        del model.encoder.layers[LAYERS - count :]

    return change


def low_rank(rank: int) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "proj" in name:
                up, down = (
                    torch.randn(len(weight), rank, generator=draw),
                    torch.randn(rank, weight.shape[1], generator=draw),
                )
                weight.add_(0.01 * up @ down)

    return change


def retrain(size: float, only: str) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        for name, weight in model.named_parameters():
            if only in name:
                weight.add_(size * torch.randn(weight.shape, generator=draw) * weight.std())

    return change


def swap(first: str, second: str, layer: int) -> Change:
    def change(model: Any, settings: dict[str, Any], draw: torch.Generator) -> None:
        attention = model.encoder.layers[layer].self_attn
        one, two = getattr(attention, first).weight, getattr(attention, second).weight
        if first == second:
            one.copy_(one.T.clone())
        else:
            kept = one.clone()
            one.copy_(two)
            two.copy_(kept)

    return change


FAULTS: list[tuple[str, Change]] = [
    *[("quantised", quantise(bits, group)) for bits in (8, 6, 4) for group in (None, 32, 16)],
    *[("quantised", round_to(kind)) for kind in (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)],
    *[("half loaded", half_loaded(share, how)) for share in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7) for how in ("random", "zeros")],
    ("final norm", no_norm), ("final norm", bypassed_norm),
    *[("positions", shift(step, "ring")) for step in (-4, -3, -2, -1, 1, 2, 3, 4)],
    *[("positions", shift(step, "edge")) for step in (-1, 1)],
    *[("end token", rows(eos_id=number)) for number in (0, 2, 320, 49406, 49405, 1)],
    *[("padding", rows(pad_id=number)) for number in (0, 1, 2, 320, 49406, 259)],
    *[("length", rows(length=number)) for number in (60, 64, 70, 76)],
    *[("length", positions(number)) for number in (40, 64, 154, 225, 248)],
    *[("pooling", pool(how)) for how in ("mean", "last", "first", "max", "wrong id")],
    *[("activation", config("hidden_act", value)) for value in ("gelu", "relu", "gelu_new")],
    *[("heads", config("num_attention_heads", value)) for value in (1, 2, 8)],
    *[("layers", drop_layers(count)) for count in (1, 2)],
    *[("low-rank change", low_rank(rank)) for rank in (1, 2, 3, 4, 6, 8)],
    *[("retrained", retrain(size, only)) for size in (1e-4, 1e-3, 0.01, 0.05, 0.1) for only in ("", "mlp")],
    *[("swapped weights", swap(first, second, layer)) for layer in range(3) for first, second in
      (("q_proj", "k_proj"), ("k_proj", "v_proj"), ("out_proj", "out_proj"))],
]  # fmt: skip


@torch.no_grad()
def test_of_a_hundred_seeded_faults_95_are_named_right() -> None:
    whole = healthy()
    good = seen(whole, {"rows": {"pad_id": 49407}})
    faults = [*FAULTS]
    while len(faults) < 100:  # more of those that draw random numbers
        faults.append(
            [each for each in FAULTS if each[0] in ("half loaded", "low-rank change", "retrained")][len(faults) % 20]
        )
    wrong = []
    for number, (name, change) in enumerate(faults):
        model, settings = copy.deepcopy(whole), {"rows": {"pad_id": 49407}}
        change(model, settings, torch.Generator().manual_seed(number))
        found = [each.name for each in differences(good, seen(model, settings))]
        if found != [name]:
            wrong.append(f"{number}: {name} → {found}")
    assert len(faults) >= 100
    assert len(wrong) <= len(faults) // 20, wrong


@torch.no_grad()
def test_two_blocks_in_each_others_place_are_swapped_weights_alone() -> None:
    """Their norms too, which are nearly those of any other block."""
    whole = healthy()
    model = copy.deepcopy(whole)
    model.encoder.layers[0], model.encoder.layers[2] = model.encoder.layers[2], model.encoder.layers[0]
    rows = {"rows": {"pad_id": 49407}}
    assert [each.name for each in differences(seen(whole, rows), seen(model, rows))] == ["swapped weights"]


@torch.no_grad()
def test_a_matrix_whose_grid_cannot_be_seen_is_quantised_as_the_others_are() -> None:
    whole = healthy()
    model = copy.deepcopy(whole)
    quantise(8, None)(model, {}, torch.Generator())
    odd = model.encoder.layers[1].mlp.fc1.weight
    before = whole.encoder.layers[1].mlp.fc1.weight
    odd.copy_(before + (odd - before).abs().mean() * torch.randn(odd.shape, generator=torch.Generator().manual_seed(0)))
    rows = {"rows": {"pad_id": 49407}}
    assert [each.name for each in differences(seen(whole, rows), seen(model, rows))] == ["quantised"]


@torch.no_grad()
def test_an_encoder_does_not_differ_from_itself() -> None:
    good = seen(healthy(), {"rows": {"pad_id": 49407}})
    assert differences(good, good) == ()


@torch.no_grad()
def test_unrelated_weights_are_another_encoder_and_another_width_ends_the_comparison() -> None:
    good = seen(healthy(), {"rows": {"pad_id": 49407}})
    other = healthy()
    for weight in other.parameters():
        weight.copy_(torch.randn_like(weight))
    assert [each.name for each in differences(good, seen(other, {"rows": {"pad_id": 49407}}))] == ["another encoder"]
    narrow = CLIPTextModel(
        CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    (found,) = differences(good, seen(narrow, {"rows": {"pad_id": 49407}}))
    assert (found.name, found.evidence) == ("shape", "the width is 32 before and 16 after")


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        (shift(2, "ring"), "row i of the position table is row i+2 of that before"),
        (quantise(8, None), "rounded to 8 bits in groups of 32, "),
        (round_to(torch.bfloat16), "rounded to bfloat16, "),
        (pool("mean"), "is that of the first end token before and the mean of all positions after"),
        (rows(pad_id=0), "rows are filled with id 49407 before and 0 after"),
        (low_rank(2), "changed by a matrix of rank 2 at most, as a merged LoRA does"),
        (swap("q_proj", "k_proj", 1), "encoder.layers.1.self_attn.k_proj is encoder.layers.1.self_attn.q_proj of before"),
    ],
)  # fmt: skip
@torch.no_grad()
def test_each_difference_comes_with_its_evidence(change: Change, evidence: str) -> None:
    whole = healthy()
    model, settings = copy.deepcopy(whole), {"rows": {"pad_id": 49407}}
    change(model, settings, torch.Generator().manual_seed(0))
    (found,) = differences(seen(whole, {"rows": {"pad_id": 49407}}), seen(model, settings))
    assert evidence in found.evidence


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda states: states + states.mean(dim=1, keepdim=True), "attention mask"),
        (lambda states: 1.5 * states, "outputs"),
    ],
)
@torch.no_grad()
def test_outputs_that_equal_weights_do_not_explain(spoil: Callable[[Tensor], Tensor], name: str) -> None:
    whole = healthy()
    good = seen(whole, {"rows": {"pad_id": 49407}})

    def forward(ids: Tensor) -> tuple[Tensor, Tensor]:
        states = spoil(whole(ids).last_hidden_state)
        return states, states[torch.arange(len(ids)), (ids == 49407).int().argmax(dim=1)]

    odd = ClinicEncoder(state=good.state, config=good.config, rows=good.rows, forward=forward)
    assert [each.name for each in differences(good, odd)] == [name]


@torch.no_grad()
def test_a_wrong_start_token_is_named() -> None:
    good = seen(healthy(), {"rows": {"pad_id": 49407}})

    def started(texts: Sequence[str]) -> Tensor:
        made = good.rows(texts).clone()
        made[:, 0] = 49407
        return made

    odd = ClinicEncoder(state=good.state, config=good.config, rows=started, forward=good.forward)
    assert [each.name for each in differences(good, odd)] == ["start token"]


@pytest.mark.parametrize(("factor", "length"), [(4, 248), (2, 134)])
@torch.no_grad()
def test_a_stretched_position_table_is_named(factor: int, length: int) -> None:
    good = seen(healthy(), {"rows": {"pad_id": 49407}})
    table = good.state[POSITIONS]
    longer = stretched(table, factor)
    longer[20:] += 0.1 * torch.randn(longer[20:].shape, generator=torch.Generator().manual_seed(0))  # as training does
    filled = torch.cat([table, torch.randn(length - 77, WIDTH, generator=torch.Generator().manual_seed(1))])
    long, other = (replace(good, state={**good.state, POSITIONS: each}) for each in (longer, filled))
    (found,) = differences(good, long)
    said = f"the first 20 rows kept, {factor} for each other one"
    assert (found.name, found.evidence) == (
        "length", f"77 positions before, {length} after; the table after is stretched: {said}",
    )  # fmt: skip
    (back,) = differences(long, good)
    assert back.evidence == f"{length} positions before, 77 after; the table before is stretched: {said}"
    (odd,) = differences(good, other)
    assert odd.evidence == f"77 positions before, {length} after; of the table the first 77 rows are the same"
