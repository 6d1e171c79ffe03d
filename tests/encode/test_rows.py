"""Rows through both libraries' own forwards: masks, vectors of textual inversions, splits, and every refusal."""

from __future__ import annotations

import pytest
import torch
from encoders import EOS, clip_model, close, open_clip_model, row_of

from clipcond.encode.rows import TokenSequence, override_embeddings
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, ShapeError

WIDTH = 32


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return clip_model()


@pytest.fixture(scope="module", params=["transformers", "open_clip"])
def tower(request: pytest.FixtureRequest, model: torch.nn.Module) -> TextTower:
    if request.param == "transformers":
        return TextTower.from_transformers(model)
    return TextTower.from_open_clip(open_clip_model())


@torch.no_grad()
def test_plain_rows_call_the_model_as_a_pipeline_does(model: torch.nn.Module) -> None:
    rows = [row_of(5), row_of(0), row_of(75)]
    theirs = model(torch.tensor([row.ids for row in rows]), output_hidden_states=True)
    out = TextTower.from_transformers(model).encode_rows(rows)
    assert torch.equal(out.hidden, theirs.last_hidden_state)
    earlier = TextTower.from_transformers(model).encode_rows(rows, clip_skip=1, final_norm=False)
    assert torch.equal(earlier.hidden, theirs.hidden_states[-2])


@torch.no_grad()
def test_masked_positions_are_the_attention_mask_of_the_model(model: torch.nn.Module) -> None:
    row = row_of(8)
    mask = torch.ones(1, 77, dtype=torch.long)
    mask[0, 2:5] = 0
    theirs = model(torch.tensor([row.ids]), attention_mask=mask)
    out = TextTower.from_transformers(model).encode_rows([TokenSequence(row.ids, masked=(2, 3, 4)), row])
    close(out.hidden[:1], theirs.last_hidden_state)
    assert (out.hidden[0, 5:] - out.hidden[1, 5:]).abs().max() > 1e-3
    close(out.hidden[0, :2], out.hidden[1, :2])


def test_a_vector_stands_where_the_token_s_own_would(tower: TextTower, model: torch.nn.Module) -> None:
    row = row_of(8)
    table = tower._backend.table.weight.detach()
    same = TokenSequence(row.ids, vectors=((3, "own"),))
    other = TokenSequence((*row.ids[:3], 60000, *row.ids[4:]), vectors=((3, "other"),))  # an id beyond the table
    out = tower.encode_rows([row, same, other], vectors={"own": table[row.ids[3]], "other": table[999]})
    close(out.hidden[1], out.hidden[0])
    replaced = TokenSequence((*row.ids[:3], 999, *row.ids[4:]))
    close(out.hidden[2:], tower.encode_rows([replaced]).hidden)
    assert not tower._backend.table._forward_hooks


def test_a_placeholder_is_no_end(tower: TextTower) -> None:
    row = row_of(8)
    taken = TokenSequence((*row.ids[:3], EOS, *row.ids[4:]), vectors=((3, "v"),))
    out = tower.encode_rows([taken], vectors={"v": torch.ones(WIDTH)})
    assert out.pooled is not None
    close(out.pooled, out.hidden[:, 9])


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_takes_vectors_too(in_place: bool) -> None:
    model, row = clip_model(), row_of(8)
    vectors = {"v": torch.linspace(-1, 1, WIDTH)}
    replaced = TokenSequence(row.ids, vectors=((3, "v"),))
    plain, expected = (TextTower.from_transformers(model).encode_rows([r], vectors=vectors) for r in (row, replaced))
    if in_place:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")  # type: ignore[assignment]
    compiled = TextTower.from_transformers(model)
    for each, states in ((row, plain), (replaced, expected), (row, plain)):
        close(compiled.encode_rows([each], vectors=vectors).hidden, states.hidden)
    assert not torch.allclose(plain.hidden, expected.hidden)


def test_other_threads_see_the_table_as_it_is() -> None:
    from threading import Thread

    table, found = torch.nn.Embedding(10, 4), []
    ids = torch.tensor([[1, 2]])
    with override_embeddings(table, [TokenSequence((1, 2), vectors=((0, "v"),))], {"v": torch.zeros(4)}):
        thread = Thread(target=lambda: found.append(table(ids)))
        thread.start()
        thread.join()
        assert not table(ids)[0, 0].any()
    assert torch.equal(found[0], table.weight[ids])


def test_splits_change_nothing(tower: TextTower) -> None:
    rows = [
        row_of(4),
        TokenSequence(row_of(9).ids, masked=(3,)),
        row_of(70),
        TokenSequence(row_of(5).ids, vectors=((2, "v"),)),
    ]
    vectors = {"v": torch.ones(WIDTH)}
    whole = tower.encode_rows(rows, vectors=vectors)
    for limit in (1, 77, 160, 10_000):
        out = tower.encode_rows(rows, vectors=vectors, max_tokens=limit)
        close(out.hidden, whole.hidden)
        close(out.projected, whole.projected)


def test_keeps_no_graph(tower: TextTower) -> None:
    assert not tower.encode_rows([row_of(3)]).hidden.requires_grad


def test_refuses_misfits(tower: TextTower) -> None:
    row = row_of(3)
    with pytest.raises(ShapeError, match="rows: none, expected one or more"):
        tower.encode_rows([])
    with pytest.raises(ShapeError, match="rows: 78 positions, expected 1 to 77"):
        tower.encode_rows([TokenSequence((*row.ids, EOS))])
    with pytest.raises(ShapeError, match="row 1 has 76 positions, expected 77 as in row 0"):
        tower.encode_rows([row, TokenSequence(row.ids[:-1])])
    with pytest.raises(ShapeError, match=r"row 0 masks \(0, 2\), expected positions 1 to 76"):
        tower.encode_rows([TokenSequence(row.ids, masked=(0, 2))])
    with pytest.raises(ShapeError, match="row 0 has a vector outside its positions 0 to 76"):
        tower.encode_rows([TokenSequence(row.ids, vectors=((77, "v"),))], vectors={"v": torch.ones(WIDTH)})
    with pytest.raises(ConfigError, match="they name the vector v, which was not given"):
        tower.encode_rows([TokenSequence(row.ids, vectors=((1, "v"),))])
    with pytest.raises(ShapeError, match=r"vectors: v is of shape \(7,\), expected \(32,\)"):
        tower.encode_rows([TokenSequence(row.ids, vectors=((1, "v"),))], vectors={"v": torch.ones(7)})
    with pytest.raises(ShapeError, match=r"rows: row 0 holds no EOS \(49407\)"):
        tower.encode_rows([TokenSequence((49406, 320))])
    with pytest.raises(ConfigError, match="clip_skip is 4, expected 0"):
        tower.encode_rows([row], clip_skip=4)
