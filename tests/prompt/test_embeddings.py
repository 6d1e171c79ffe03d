"""Textual-inversion files: names and sizes are read, and nothing in them is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import DataError, ResourceMissing
from clipcond.prompt.embeddings import Embeddings, read, scan
from clipcond.prompt.plan import EmbeddingToken, plan

ADAPTERS = Path(__file__).parents[3] / "shared" / "data" / "adapters"


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> Path:
    header = {"__metadata__": {"name": "x"}} | {
        key: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for key, shape in shapes.items()
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def write_zip(path: Path, document: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", document)
    return path


def found(path: Path) -> dict[str, dict[str, int]]:
    return {embedding.name: dict(embedding.vectors) for embedding in read(path)}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"emb_params": [5, 768]}, {"owl": {"clip_l": 5}}),
        ({"emb_params": [2, 1024]}, {"owl": {"clip_h": 2}}),
        ({"clip_l": [3, 768], "clip_g": [3, 1280]}, {"owl": {"clip_l": 3, "clip_g": 3}}),
        ({"<owl-style>": [768]}, {"<owl-style>": {"clip_l": 1}, "owl": {"clip_l": 1}}),
        (
            {"<a>": [768], "<b>": [2, 768], "text_encoder:0:down": [4, 768]},
            {"<a>": {"clip_l": 1}, "<b>": {"clip_l": 2}},
        ),
    ],
)
def test_the_forms_of_safetensors(shapes: dict[str, list[int]], expected: dict, tmp_path: Path) -> None:
    assert found(write_safetensors(tmp_path / "owl.safetensors", shapes)) == expected


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves(legacy: bool, tmp_path: Path) -> None:
    import torch

    form = {
        "string_to_token": {"*": 265},
        "string_to_param": torch.nn.ParameterDict({"*": torch.zeros(4, 768)}),
        "name": "other",
        "step": 500,
    }
    torch.save(form, tmp_path / "style.pt", _use_new_zipfile_serialization=not legacy)
    assert found(tmp_path / "style.pt") == {"style": {"clip_l": 4}}
    torch.save({"string_to_param": {"*": torch.zeros(2, 1024)}}, tmp_path / "b.pt")
    assert found(tmp_path / "b.pt") == {"b": {"clip_h": 2}}
    torch.save({"<tok>": torch.nn.Parameter(torch.zeros(1280))}, tmp_path / "c.bin")
    assert found(tmp_path / "c.bin") == {"<tok>": {"clip_g": 1}, "c": {"clip_g": 1}}


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    evil = pickle.dumps({"<owl>": Evil(mark)})
    for number, path in enumerate([write_zip(tmp_path / "a.pt", evil), tmp_path / "b.bin"]):
        if number:
            path.write_bytes(evil)
        with pytest.raises(DataError, match=r"holds no textual inversion|neither a zip file nor"):
            read(path)
    assert not mark.exists()
    pickle.loads(evil)
    assert mark.exists()  # it would have been


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", b"", "not readable as safetensors"),
        ("a.safetensors", struct.pack("<Q", 1 << 60) + b"{}", "a header of 1152921504606846976 bytes in a file of 10"),
        ("a.safetensors", struct.pack("<Q", 1 << 24) + b"{}", "a header of 16777216 bytes in a file of 10"),
        ("a.safetensors", struct.pack("<Q", 4) + b"[1, ", "not readable as safetensors"),
        ("a.pt", b"", "not readable as pt"),
        ("a.pt", b"no pickle at all", "not readable as pt"),
        ("a.bin", pickle.dumps([1, 2]), "neither a zip file nor a file of an old torch"),
        ("a.bin", b"\x80\x02(K\x01.", "neither a zip file nor|not readable as bin"),
        ("a.bin", b"t.", "without its mark|not readable as bin"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read(path)


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({"lora_te_down.weight": [4, 768]}, "a weight of a network"),
        ({"<owl>": [4, 555]}, "a width of no encoder"),
        ({"<owl>": [9000, 768]}, "too many rows"),
        ({"<owl>": [2, 3, 768]}, "too many axes"),
        ({"<owl>": []}, "no axis"),
    ],
)
def test_what_is_no_embedding(shapes: dict[str, list[int]], why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no textual inversion"):
        read(write_safetensors(tmp_path / "x.safetensors", shapes))


def test_zip_files_without_a_pickle_or_with_a_strange_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(DataError, match=r"no data\.pkl of a fit size"):
        read(tmp_path / "a.pt")
    with pytest.raises(DataError, match="no dictionary of tensors"):
        read(write_zip(tmp_path / "b.pt", pickle.dumps("text")))
    with pytest.raises(DataError, match="a pickle with EXT1"):
        read(write_zip(tmp_path / "c.pt", b"\x80\x02\x82\x01."))


def test_a_folder_is_scanned_and_what_is_left_out_is_reported(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    first = write_safetensors(tmp_path / "deep" / "owl.safetensors", {"emb_params": [2, 768]})
    second = write_safetensors(tmp_path / "owl.safetensors", {"emb_params": [3, 768]})
    (tmp_path / "broken.pt").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no embedding", encoding="utf-8")
    embeddings = scan(tmp_path)
    assert {name: embedding.path for name, embedding in embeddings.items()} == {"owl": first}
    assert [path.name for path, _ in embeddings.unreadable] == ["broken.pt", "owl.safetensors"]
    assert embeddings.unreadable[1] == (second, f"the name owl is taken by {first}")
    assert len(embeddings) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match="no such folder; give one with"):
        scan(tmp_path / "none")


def test_scanning_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_safetensors(tmp_path / "owl.safetensors", {"emb_params": [2, 768]})
    code = "import sys; from clipcond.prompt.embeddings import scan; print(*scan(sys.argv[1]), 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout == "owl False\n"


def test_each_encoder_counts_its_own_vectors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "owl.safetensors", {"clip_l": [2, 768], "clip_g": [3, 1280]})
    write_safetensors(tmp_path / "old.safetensors", {"emb_params": [4, 768]})
    prompt = "an owl, (old:1.2)"
    planned = plan(prompt, dialect="a1111", family="sdxl", embeddings=scan(tmp_path))
    left, right = planned.encoders["clip_l"].chunks[0].tokens, planned.encoders["clip_g"].chunks[0].tokens
    assert [token.piece for token in left] == ["an</w>", "owl", "owl", ",</w>", "old", "old", "old", "old"]
    assert [token.piece for token in right] == ["an</w>", "owl", "owl", "owl", ",</w>", "old</w>"]
    assert [token.vector for token in left if isinstance(token, EmbeddingToken)] == [0, 1, 0, 1, 2, 3]
    assert {(token.text, token.weight) for token in (*left[4:], *right[5:])} == {("old", 1.2)}
    (unfit,) = planned.warnings
    assert (unfit.code, prompt[unfit.start : unfit.end]) == ("embedding-unfit", "old")
    assert "clip_g" in unfit.message
    document = planned.to_json()["encoders"][0]["chunks"][0]["tokens"]  # type: ignore[index]
    assert list(document[0]) == ["id", "piece", "text", "start", "end", "weight"]
    assert document[2] == {"id": 0, "piece": "owl", "text": "owl", "start": 3, "end": 6, "weight": 1.0, "vector": 1}


def test_names_with_counts_will_do() -> None:
    (chunk,) = plan("an owl", embeddings={"owl": 3}).encoders["clip_l"].chunks
    assert [token.text for token in chunk.tokens] == ["an", "owl", "owl", "owl"]
    assert [token.text for token in plan("an owl", embeddings={}).encoders["clip_l"].chunks[0].tokens] == ["an", "owl"]


@pytest.mark.skipif(not ADAPTERS.is_dir(), reason=f"no test data at {ADAPTERS}")
def test_real_files() -> None:
    embeddings = scan(ADAPTERS)
    assert {name: (dict(each.vectors), each.path.name) for name, each in embeddings.items()} == {
        "<birb-style>": ({"clip_l": 1}, "learned_embeds.bin"),
        "learned_embeds": ({"clip_l": 1}, "learned_embeds.bin"),
        "<s1>": ({"clip_l": 1}, "lora_disney.safetensors"),
        "<s2>": ({"clip_l": 1}, "lora_disney.safetensors"),
    }
    assert [path.name for path, _ in embeddings.unreadable] == ["t2i-compbench-color.text_encoder.pt"]


@given(content=st.binary(max_size=60), change=st.integers(0, 500))
def test_no_file_raises_anything_else(content: bytes, change: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    sound = pickle.dumps({"a": [1, (2, "x")], "b": {}}, protocol=2)
    (folder / "a.safetensors").write_bytes(content)
    (folder / "b.pt").write_bytes(content)
    write_zip(folder / "c.bin", content)
    broken = bytearray(sound)
    broken[change % len(sound)] = change % 256
    write_zip(folder / "d.bin", bytes(broken))
    assert isinstance(scan(folder), Embeddings)


def test_a_pickle_of_a_million_marks_is_followed_in_time(tmp_path: Path) -> None:
    stream = io.BytesIO()
    stream.write(b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".")
    with pytest.raises(DataError, match="no dictionary"):
        read(write_zip(tmp_path / "a.pt", stream.getvalue()))


def headed(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("null", "its header is no object with tensors"),
        ("[1]", "its header is no object with tensors"),
        ("3", "its header is no object with tensors"),
        ('{"a": null}', "the shape of 'a' is no list of sizes"),
        ('{"a": {"shape": null}}', "the shape of 'a' is no list of sizes"),
        ('{"a": {"shape": [Infinity, 768]}}', "the shape of 'a' is no list of sizes"),
        ('{"a": {"shape": [1e999, 768]}}', "the shape of 'a' is no list of sizes"),
        ('{"a": {"shape": [-1, 768]}}', "the shape of 'a' is no list of sizes"),
        ('{"a": {"shape": [true, 768]}}', "the shape of 'a' is no list of sizes"),
        ('{"a": {"shape": "768"}}', "the shape of 'a' is no list of sizes"),
        ("[" * 100_000, "not readable as safetensors"),
        ('{"a": {"shape": [1000000000000000000000, 768]}}', "holds no textual inversion"),
    ],
)
def test_a_strange_safetensors_header_is_one_line(header: str, reason: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "owl.safetensors", {"emb_params": [2, 768]})
    (tmp_path / "bad.safetensors").write_bytes(headed(header))
    embeddings = scan(tmp_path)
    assert list(embeddings) == ["owl"]
    ((path, said),) = embeddings.unreadable
    assert path.name == "bad.safetensors"
    assert reason in said
    assert len(said) < 200


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("damage", [0, 4, 20, 60])
def test_a_damaged_archive_is_one_line_and_spoils_no_folder(method: int, damage: int, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "owl.safetensors", {"emb_params": [2, 768]})
    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({f"name {number}": number for number in range(50)}))
    content = bytearray(path.read_bytes())
    start = 30 + len("archive/data.pkl") + damage
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    embeddings = scan(tmp_path)
    assert list(embeddings) == ["owl"]
    ((listed, reason),) = embeddings.unreadable
    assert listed == path
    assert reason


def nested(depth: int, width: int) -> dict[str, object]:
    """A dict that holds another `width` times, and so on; each of them once in the pickle."""
    inner: object = 1
    for _ in range(depth):
        inner = {f"k{number}": inner for number in range(width)}
    return {"string_to_param": inner}


def test_a_dict_that_is_nested_300_times_four_deep_is_looked_into_once(tmp_path: Path) -> None:
    started = time.process_time()
    with pytest.raises(DataError, match="holds no textual inversion"):
        read(write_zip(tmp_path / "a.pt", pickle.dumps(nested(4, 300), protocol=2)))
    with pytest.raises(DataError, match="holds no textual inversion"):
        read(write_zip(tmp_path / "b.pt", pickle.dumps(nested(300, 20), protocol=2)))
    assert time.process_time() - started < 5


def test_a_pickle_of_too_many_instructions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 500,000 instructions"):
        read(write_zip(tmp_path / "a.pt", b"\x80\x02" + b"N0" * 300_000 + b"."))
