"""T5's tokenizer: where it is found, what it counts, and what a plan says without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt import t5
from clipcond.prompt.families import FAMILIES
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import token_ids

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = {family: DATA / "tokenizers" / family / f"tokenizer_{number}" for family, number in (("sd3", 3), ("flux", 2))}

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")


def write_tokenizer(folder: Path, vocabulary: list[tuple[str, float]] | None = None) -> Path:
    """A T5 tokenizer of a few pieces."""
    pieces = [
        ("▁", -2.0),
        ("▁a", -1.0),
        ("▁fox", -1.0),
        ("fox", -1.5),
        ("<", -3.0),
        ("/", -3.0),
        ("s", -3.0),
        (">", -3.0),
    ]
    document = {
        "version": "1.0",
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [
            {"id": 1, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
        ],
        "normalizer": {"type": "Strip", "strip_left": False, "strip_right": True},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "vocab": vocabulary or [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces],
            "byte_fallback": False,
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache_repository(hub: Path, name: str, folder: str) -> Path:
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123", encoding="utf-8")
    return write_tokenizer(repository / "snapshots" / "abc123" / folder)


@pytest.mark.parametrize(("family", "limit"), [("sd3", 255), ("flux", 511)])
def test_one_sequence_with_one_end_and_padding_of_zeros(family: str, limit: int, tmp_path: Path) -> None:
    encoder = plan("a fox", family=family, t5_tokenizer=write_tokenizer(tmp_path)).encoders["t5"]
    assert encoder.ids() == [[4, 5, 1] + [0] * (limit - 2)]
    assert (encoder.limit, encoder.content_tokens, encoder.truncated, encoder.dropped) == (limit, 2, False, None)
    (chunk,) = encoder.chunks
    assert [(token.text, token.start, token.end) for token in chunk.tokens] == [("a", 0, 1), ("fox", 2, 5)]
    assert chunk.padding == limit - 2


def test_a_stock_pipeline_drops_what_is_beyond_the_limit_and_clipcond_does_not(tmp_path: Path) -> None:
    path, prompt = write_tokenizer(tmp_path), "fox " * 256
    encoder = plan(prompt, family="sd3", t5_tokenizer=path).encoders["t5"]
    assert encoder.truncated
    assert encoder.dropped is not None
    assert (encoder.dropped.text, encoder.dropped.content_tokens) == ("fox", 1)
    assert encoder.ids() == [[5] * 256 + [1]]
    assert plan("fox " * 255, family="sd3", t5_tokenizer=path).encoders["t5"].truncated is False


def test_weights_and_spans_pass_through_brackets(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    prompt = "a (fox:1.3)BREAK[a]"
    planned = plan(prompt, dialect="a1111", family="flux", t5_tokenizer=path)
    (chunk,) = planned.encoders["t5"].chunks
    found = [(token.text, token.start, round(token.weight, 4)) for token in chunk.tokens]
    assert found == [("a", 0, 1.0), ("fox", 3, 1.3), ("a", 17, 0.9091)]
    assert [len(chunk.tokens) for chunk in planned.encoders["clip_l"].chunks] == [2, 1]
    (ignored,) = planned.warnings
    assert (ignored.code, prompt[ignored.start : ignored.end]) == ("break-ignored", "BREAK")
    assert plan(prompt, dialect="a1111", family="sdxl").warnings == ()


def test_a_typed_end_of_text_is_text(tmp_path: Path) -> None:
    (row,) = plan("a</s> fox", family="flux", t5_tokenizer=write_tokenizer(tmp_path)).encoders["t5"].ids()
    assert row.count(1) == 1
    assert row[:7] == [4, 7, 8, 9, 10, 5, 1]


def test_without_a_tokenizer_the_count_is_unknown_and_the_reason_said() -> None:
    planned = plan("a fox", family="flux")
    encoder = planned.encoders["t5"]
    assert (encoder.content_tokens, encoder.truncated, encoder.dropped, encoder.ids()) == (None, None, None, [])
    document = planned.to_json()["encoders"][1]  # type: ignore[index]
    assert document["content_tokens"] is None
    assert document["unknown"].startswith("no T5 tokenizer at hand; name a tokenizer.json")
    assert "unknown" not in planned.to_json()["encoders"][0]  # type: ignore[index]
    assert planned.truncated is False
    assert plan("fox " * 80, family="flux").truncated is True


@pytest.mark.parametrize("folder", ["tokenizer_3", "tokenizer_2", ""])
def test_a_folder_of_a_pipeline_or_of_a_model_will_do(folder: str, tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "model" / folder)
    assert t5.locate(tmp_path / "model") == t5.locate(path) == path


def test_a_hub_name_means_the_local_cache(hub: Path) -> None:
    path = cache_repository(hub, "someone/flux-like", "tokenizer_2")
    assert t5.locate("someone/flux-like") == path


def test_the_usual_names_are_looked_for(hub: Path) -> None:
    cache_repository(hub, "black-forest-labs/FLUX.1-dev", "tokenizer_2")
    assert plan("a fox", family="flux").encoders["t5"].content_tokens == 2
    assert plan("a fox", family="sd3").encoders["t5"].content_tokens is None


def test_the_cache_is_where_the_hub_library_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    path = cache_repository(tmp_path / "home" / "hub", "someone/t5", "")
    assert t5.locate("someone/t5") == path


@pytest.mark.parametrize("named", ["no/such-model", "nowhere", "a\0b"])
def test_what_was_named_and_is_not_there(named: str) -> None:
    with pytest.raises(ResourceMissing, match=r"no T5 tokenizer there; give a tokenizer\.json"):
        plan("a fox", family="flux", t5_tokenizer=named)


@pytest.mark.parametrize("content", ["{}", "no json", '{"model": {"vocab": {"a": 1}}}', "[]"])
def test_a_file_that_is_no_tokenizer(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not the tokenizer\.json of T5"):
        plan("a fox", family="flux", t5_tokenizer=path)


def test_another_unigram_tokenizer_is_not_t5(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path, [("<s>", 0.0), ("<pad>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)])
    with pytest.raises(ConfigError, match="expected <pad> with id 0 and </s> with id 1"):
        t5.load(path)


@needs_data
@pytest.mark.parametrize("family", list(REAL))
def test_ids_are_those_of_the_real_tokenizer(family: str) -> None:
    from tokenizers import Tokenizer

    path = REAL[family] / "tokenizer.json"
    reference = Tokenizer.from_file(str(path))
    prompts = (DATA / "prompts" / "diffusiondb-466.txt").read_text("utf-8").split("\n")
    for prompt in prompts[:200]:
        (row,) = plan(prompt, family=family, t5_tokenizer=path).encoders["t5"].ids()
        expected = reference.encode(prompt).ids
        assert row[: len(expected)] == expected
        assert set(row[len(expected) :]) <= {0}


@needs_data
@pytest.mark.property
@given(text=st.text(max_size=60) | st.sampled_from(["<extra_id_0>", "a </s> b", "<pad>", "\0", "ﬁ  e\u0301", "\ud800"]))
def test_any_text_has_one_end_and_spans_inside_it(text: str) -> None:
    encoder = plan(text, family="flux", t5_tokenizer=REAL["flux"]).encoders["t5"]
    (row,) = encoder.ids()
    assert row.count(1) == 1
    assert row[len(encoder.chunks[0].tokens)] == 1
    assert all(text[token.start : token.end] == token.text != "" for token in encoder.chunks[0].tokens)


def test_clip_is_planned_as_ever(tmp_path: Path) -> None:
    planned = plan("a fox", family="sd3", t5_tokenizer=write_tokenizer(tmp_path))
    assert list(planned.encoders) == ["clip_l", "clip_g", "t5"]
    assert [token.id for token in planned.encoders["clip_g"].chunks[0].tokens] == token_ids("a fox")
    assert planned.encoders["clip_g"].pad_id == 0


def test_a_loaded_tokenizer_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    path = write_tokenizer(tmp_path)
    backend = Tokenizer.from_file(str(path))
    before = backend.to_str()
    loaded = t5.T5Tokenizer.from_backend(backend)
    assert loaded.rows("a</s> fox") == t5.load(path).rows("a</s> fox")
    assert backend.to_str() == before
    planned = plan("a fox", family="flux", t5_tokenizer=loaded).encoders["t5"]
    assert planned.ids() == plan("a fox", family="flux", t5_tokenizer=path).encoders["t5"].ids()


def test_a_loaded_tokenizer_of_another_model_is_refused() -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(ConfigError, match=r"^the pipeline's tokenizer is not the tokenizer\.json of T5"):
        t5.T5Tokenizer.from_backend(Tokenizer(models.BPE()))


def test_a_pipeline_may_give_t5_another_length(tmp_path: Path) -> None:
    from dataclasses import replace

    path, usual = write_tokenizer(tmp_path), FAMILIES["flux"]
    encoders = {**usual, "t5": replace(usual["t5"], limit=3)}
    encoder = plan("fox a fox a fox", family="flux", t5_tokenizer=path, encoders=encoders).encoders["t5"]
    assert encoder.ids() == [[5, 4, 5, 4, 5, 1]]
    assert encoder.dropped is not None
    assert (encoder.limit, encoder.dropped.text) == (3, "a fox")
    (short,) = plan("fox", family="flux", t5_tokenizer=path, encoders=encoders).encoders["t5"].ids()
    assert short == [5, 1, 0, 0]
