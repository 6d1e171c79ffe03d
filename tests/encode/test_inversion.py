"""Textual inversions: every file format, every refusal, and the states that an extended token table would give."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import clip_model, close

from clipcond.condition.encoder_input import read
from clipcond.encode.inversion import Inversion, Inversions, digest, gather, load_folder, load_inversion
from clipcond.encode.rows import TokenSequence
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, DataError, ModelError, ResourceMissing, ShapeError
from clipcond.prompt.chunking import POLICIES
from clipcond.prompt.plan import plan

REAL = Path(__file__).parents[3] / "shared" / "data" / "adapters"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real adapters (../shared/data/adapters) are not here")


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def save_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


def save_torch(path: Path, document: Any, **options: Any) -> Path:
    torch.save(document, path, **options)
    return path


def a1111(vectors: torch.Tensor) -> dict[str, Any]:
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "other", "step": 500}


def test_the_formats(tmp_path: Path) -> None:
    two, wide, one = some(2, 768), some(3, 1024), some(768)
    pair = {"clip_l": some(2, 768), "clip_g": some(2, 1280)}
    files = {
        save_torch(tmp_path / "owl.pt", a1111(two)): {"owl": {"clip_l": two}},
        save_torch(tmp_path / "sd2.pt", a1111(wide)): {"sd2": {"clip_h": wide}},
        save_torch(tmp_path / "learned.bin", {"<owl>": one}): {
            "<owl>": {"clip_l": one[None]},
            "learned": {"clip_l": one[None]},
        },
        save_safetensors(tmp_path / "emb.safetensors", {"emb_params": two}): {"emb": {"clip_l": two}},
        save_safetensors(tmp_path / "xl.safetensors", pair): {"xl": pair},
        save_torch(tmp_path / "xl2.pt", pair): {"xl2": pair},
    }
    for path, expected in files.items():
        found = {inversion.name: inversion for inversion in load_inversion(path)}
        assert {name: dict(each.vectors).keys() for name, each in found.items()} == {
            name: each.keys() for name, each in expected.items()
        }
        for name, vectors in expected.items():
            for encoder, rows in vectors.items():
                assert torch.equal(found[name].vectors[encoder], rows)
                assert found[name].digests[encoder] == tuple(digest(row) for row in rows)
            assert found[name].path == path
    assert set(load_folder(tmp_path)) == {"owl", "sd2", "<owl>", "learned", "emb", "xl", "xl2"}


def test_the_parameters_of_the_first_textual_inversions(tmp_path: Path) -> None:
    form = a1111(some(4, 768)) | {"string_to_param": torch.nn.ParameterDict({"*": some(4, 768)})}
    (inversion,) = load_inversion(save_torch(tmp_path / "ldm.pt", form))
    assert torch.equal(inversion.vectors["clip_l"], some(4, 768))
    assert not inversion.vectors["clip_l"].requires_grad
    old = save_torch(tmp_path / "older.pt", form, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"older\.pt cannot be loaded without running code: Weights only load failed"):
        load_inversion(old)


def test_equal_vectors_have_one_digest_in_any_dtype_and_file(tmp_path: Path) -> None:
    half = some(2, 768).half()
    (first,) = load_inversion(save_torch(tmp_path / "a.pt", a1111(half)))
    (second,) = load_inversion(save_safetensors(tmp_path / "b.safetensors", {"emb_params": half.float()}))
    assert first.digests == second.digests
    assert len(set(first.digests["clip_l"])) == 2


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "run"
    torch.save({"<owl>": some(768), "more": Evil(mark)}, path)
    with pytest.raises(DataError, match=r"evil\.pt cannot be loaded without running code"):
        load_inversion(path)
    assert not mark.exists()
    with zipfile.ZipFile(path) as archive:
        name = next(each for each in archive.namelist() if each.endswith("data.pkl"))
        assert b"mkdir" in archive.read(name)  # it would have been


def test_one_bad_file_costs_one_row_of_a_folder(tmp_path: Path) -> None:
    save_torch(tmp_path / "owl.pt", a1111(some(2, 768)))
    cut = save_torch(tmp_path / "cut.pt", a1111(some(2, 768)))
    content = cut.read_bytes()
    cut.write_bytes(content.replace(b"data/0", b"data/9"))  # the numbers of its tensor are not there
    nan = save_torch(tmp_path / "nan.pt", a1111(some(2, 768).index_fill(0, torch.tensor(1), float("nan"))))
    no_data = tmp_path / "short.safetensors"
    header = b'{"emb_params":{"dtype":"F32","shape":[2,768],"data_offsets":[0,6144]}}'
    no_data.write_bytes(len(header).to_bytes(8, "little") + header)
    found = load_folder(tmp_path)
    assert list(found) == ["owl"]
    reasons = {path.name: reason for path, reason in found.unreadable}
    assert list(reasons) == ["cut.pt", "nan.pt", "short.safetensors"]
    assert reasons["nan.pt"] == "has a tensor '*' with a number that is not finite (NaN or infinity)"
    assert gather([tmp_path], {"clip_l": 768}).unreadable == found.unreadable
    with pytest.raises(DataError, match=r"nan\.pt has a tensor '\*' with a number that is not finite"):
        gather(nan, {"clip_l": 768})


@pytest.mark.parametrize("document", [{"string_to_param": 3}, {"string_to_param": {"*": 3}}, {"string_to_param": [1]}])
def test_a_file_of_a1111s_form_without_tensors_says_so(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.pt holds no textual inversion: no tensors"):
        load_inversion(save_torch(tmp_path / "a.pt", document))


def test_tensors_that_hold_no_numbers_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.pt has a tensor 'owl' that holds no vectors"):
        load_inversion(save_torch(tmp_path / "a.pt", {"owl": torch.empty(2, 768, device="meta")}))


def test_what_is_no_textual_inversion_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match=r"owl\.pt: no such file; give a textual inversion"):
        load_inversion(tmp_path / "owl.pt")
    path = save_safetensors(tmp_path / "w.safetensors", {"emb_params": some(2, 32)})
    with pytest.raises(DataError, match=r"w\.safetensors holds no textual .*width 32, expected 768, 1024, 1280"):
        load_inversion(path)
    (inversion,) = load_inversion(path, widths={32: "clip_l"})
    assert inversion.vectors["clip_l"].shape == (2, 32)
    with pytest.raises(DataError, match="holds no textual inversion: no tensors, expected"):
        load_inversion(save_torch(tmp_path / "e.bin", {"a": 1}))
    with pytest.raises(DataError, match=r"l\.bin holds no dictionary of tensors, but list"):
        load_inversion(save_torch(tmp_path / "l.bin", [1]))
    (tmp_path / "p.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match=r"p\.pt cannot be loaded"):
        load_inversion(tmp_path / "p.pt")
    with pytest.raises(ResourceMissing, match="no such folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(ShapeError, match="vectors of owl: 3 axes"):
        Inversion(name="owl", vectors={"clip_l": some(1, 2, 3)})


def test_a_width_that_does_not_fit_names_both(tmp_path: Path) -> None:
    file = save_torch(tmp_path / "sd2.pt", a1111(some(3, 1024)))
    with pytest.raises(ModelError, match=r"'sd2' has vectors of 1024 \(clip_h\) numbers, expected 768 \(clip_l\)"):
        gather(file, {"clip_l": 768})
    wrong = Inversion(name="owl", vectors={"clip_l": some(2, 32)})
    with pytest.raises(ModelError, match=r"'owl' has vectors of 32 numbers for clip_l, whose token table is 768 wide"):
        gather(wrong, {"clip_l": 768})
    kept = gather(tmp_path, {"clip_l": 768})  # a folder may hold what is for other models
    assert kept.digests("clip_l") == {}
    (finding,) = plan("a sd2", embeddings=kept.files).warnings
    assert (
        finding.message
        == "sd2 has no vectors for clip_l of width 768, only of 1024 (clip_h), which reads the name as text"
    )


def test_every_kind_of_source(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    first = save_safetensors(folder / "a.safetensors", {"emb_params": some(2, 32)})
    made = Inversion(name="b", vectors={"clip_l": some(32)})
    encoders = {"clip_l": 32}
    assert set(gather(folder, encoders)) == set(gather(str(first), encoders)) == {"a"}
    both = gather([folder, made], encoders)
    assert set(both) == {"a", "b"}
    assert set(gather(both, encoders)) == {"a", "b"}
    assert not gather(None, encoders)
    assert both.files["b"].vectors == {"clip_l": 1}
    again = Inversion(name="b", vectors={"clip_l": some(5, 32)})
    assert gather([made, again], encoders)["b"] is made
    with pytest.raises(ConfigError, match="embeddings is a int, expected a folder, files or Inversions"):
        gather(3, encoders)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return some(4, 32, seed=5) / 2


@pytest.fixture(scope="module")
def extended(vectors: torch.Tensor) -> torch.nn.Module:
    """The encoder with its token table made longer, as `pipe.load_textual_inversion` does."""
    model = clip_model()
    with torch.no_grad():
        model.resize_token_embeddings(49408 + len(vectors), mean_resizing=False)
        model.get_input_embeddings().weight[49408:] = vectors
    return model


@pytest.mark.parametrize("chunking", POLICIES)
@pytest.mark.parametrize("words", [0, 40, 73, 140])
def test_states_are_those_of_an_extended_token_table(
    chunking: str, words: int, vectors: torch.Tensor, extended: torch.nn.Module
) -> None:
    known = Inversions([Inversion(name="my owl", vectors={"clip_l": vectors})])
    prompt = " ".join(["fox,"] * (words // 2)) + " a My Owl on a hill, my owl"
    planned = plan(prompt, chunking=chunking, embeddings=known.files).encoders["clip_l"]
    rows = read(planned, inversions=known.digests("clip_l")).rows
    assert sum(len(row.vectors) for row in rows) == 8
    ours = TextTower.from_transformers(clip_model()).encode_rows(rows, vectors=known.vectors("clip_l"))
    ids = [list(row.ids) for row in rows]
    number = {key: 49408 + at for at, key in enumerate(known["my owl"].digests["clip_l"])}
    for at, row in enumerate(rows):
        for position, key in row.vectors:
            ids[at][position] = number[key]
    theirs = TextTower.from_transformers(extended).encode(torch.tensor(ids))
    close(ours.hidden, theirs.hidden)
    close(ours.pooled, theirs.pooled)  # at the first EOS, which an added id would win over in transformers
    close(ours.projected, theirs.projected)


def test_a_vector_is_not_the_end_of_the_text(vectors: torch.Tensor) -> None:
    tower = TextTower.from_transformers(clip_model())
    key = digest(vectors[0])
    placed = TokenSequence((49406, 49407, 320, 49407, *[0] * 73), vectors=((1, key),))
    cut = TokenSequence(placed.ids[:4], vectors=placed.vectors)
    out, short = (tower.encode_rows([row], vectors={key: vectors[0]}) for row in (placed, cut))
    close(out.pooled, short.hidden[:, 3])


@needs_real
def test_a_real_file() -> None:
    known = load_folder(REAL)
    assert {"<birb-style>", "learned_embeds", "<s1>", "<s2>"} <= set(known)
    stored = torch.load(REAL / "learned_embeds.bin", weights_only=True)["<birb-style>"]
    assert torch.equal(known["<birb-style>"].vectors["clip_l"], stored[None])
    planned = plan("a fox in <birb-style>", embeddings=known.files).encoders["clip_l"]
    (row,) = read(planned, inversions=known.digests("clip_l")).rows
    assert row.vectors == ((4, digest(stored)),)
    model = clip_model(hidden_size=768, intermediate_size=64, num_attention_heads=12, num_hidden_layers=1)
    tower = TextTower.from_transformers(model)
    ours = tower.encode_rows([row], vectors=known.vectors("clip_l"))
    with torch.no_grad():
        model.resize_token_embeddings(49409, mean_resizing=False)
        model.get_input_embeddings().weight[49408] = stored
    ids = [49408 if at == 4 else token for at, token in enumerate(row.ids)]
    close(ours.hidden, TextTower.from_transformers(model).encode(torch.tensor([ids])).hidden)
