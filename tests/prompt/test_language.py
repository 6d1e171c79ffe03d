"""What language models get of a prompt: counted within the chat of the family, in a tokenizer of whole words."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt.families import FAMILIES
from clipcond.prompt.language import Chat, LanguageTokenizer, load, places_in
from clipcond.prompt.local_tokenizers import USUAL_LANGUAGE, USUAL_T5
from clipcond.prompt.plan import plan

WORDS = ["a", "red", "fox", "in", "the", "snow", "very"]


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each word is a token, each mark too, and every other word is unknown."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **{word: at for at, word in enumerate(WORDS, 1)}}, "<unk>"))
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")])
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_tokens_are_counted_from_where_the_chat_is_cut_off(tokenizer_file: Path) -> None:
    tokenizer = load(tokenizer_file)
    chat = Chat(before="Describe: ", after=" end", crop=2)
    assert tokenizer.rows("a red fox", chat) == [
        (0, (1, "a", 0, 1)),
        (1, (2, "red", 2, 5)),
        (2, (3, "fox", 6, 9)),
    ]
    assert [at for at, _ in tokenizer.rows("a", Chat(before="one two three ", after="", crop=1))] == [2]
    assert [at for at, _ in tokenizer.rows("a", Chat(before="one two three ", after="", crop=None))] == [0]
    assert tokenizer.rows("", chat) == []


def test_a_plan_tells_what_is_lost(tokenizer_file: Path) -> None:
    prompt = "a red fox " + "very " * 515
    found = plan(prompt, family="z-image", language_tokenizer=tokenizer_file).encoders["qwen"]
    before = len(load(tokenizer_file).rows("", FAMILIES["z-image"]["qwen"].chat or Chat(before="", after="", crop=0)))
    assert before == 0
    assert (found.limit, found.content_tokens, found.truncated) == (512, 518, True)
    in_front = 6  # < | im_start | > user
    assert found.dropped is not None
    assert found.dropped.content_tokens == 518 - (512 - in_front)
    assert prompt[found.dropped.start : found.dropped.end] == ("very " * found.dropped.content_tokens).strip()
    assert [token.text for token in found.chunks[0].tokens[:3]] == ["a", "red", "fox"]


def test_marks_of_a_dialect_are_no_words(tokenizer_file: Path) -> None:
    plain = plan("a red fox in the snow", family="qwen-image", language_tokenizer=tokenizer_file).encoders["qwen"]
    prompt = "a (red fox:1.3) in [the] snow"
    marked = plan(prompt, family="qwen-image", dialect="a1111", language_tokenizer=load(tokenizer_file)).encoders[
        "qwen"
    ]
    assert marked.content_tokens == plain.content_tokens == 6
    assert [token.text for token in marked.chunks[0].tokens] == ["a", "red", "fox", "in", "the", "snow"]


def test_places_of_words_in_a_marked_prompt() -> None:
    prompt, words = "a (red fox:1.3) cat", "a red fox cat"
    assert "".join(prompt[at] for at in places_in(prompt, words)) == words
    assert places_in(prompt, words)[2] == 3


def test_without_a_tokenizer_nothing_is_guessed() -> None:
    found = plan("a red fox", family="sana").encoders["gemma"]
    assert (found.content_tokens, found.truncated, found.chunks) == (None, None, ())
    assert found.unknown is not None
    assert found.unknown.startswith("no tokenizer of gemma at hand; name a tokenizer.json, its folder, or a hub name")


def test_the_local_cache_has_the_tokenizer_of_a_family(hub: Path, tokenizer_file: Path) -> None:
    for name, place in (("Qwen/Qwen-Image", "tokenizer"), ("meta-llama/Meta-Llama-3.1-8B-Instruct", "")):
        repository = hub / f"models--{name.replace('/', '--')}"
        folder = repository / "snapshots" / "abc123" / place
        folder.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc123", encoding="utf-8")
        (folder / "tokenizer.json").write_text(tokenizer_file.read_text(encoding="utf-8"), encoding="utf-8")
    assert plan("a red fox", family="qwen-image").encoders["qwen"].content_tokens == 3
    assert plan("a red fox", family="hidream").encoders["llama"].content_tokens == 3
    assert plan("a red fox", family="z-image").encoders["qwen"].content_tokens is None
    assert (
        plan("a red fox", family="z-image", language_tokenizer="Qwen/Qwen-Image").encoders["qwen"].content_tokens == 3
    )


def test_the_tokenizer_of_clip_is_none_of_a_language_model(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    clip = Tokenizer(models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>"))
    (tmp_path / "tokenizer").mkdir()
    clip.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    with pytest.raises(ConfigError, match="is CLIP's tokenizer, not that of a language model; name"):
        load(tmp_path)
    Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_4").mkdir()
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer_4" / "tokenizer.json")
    assert isinstance(load(str(tmp_path)), LanguageTokenizer)


@pytest.mark.parametrize(("named", "encoder"), [(USUAL_T5, "t5"), (USUAL_LANGUAGE, "language")])
def test_the_usual_names_are_those_of_diffusers(named: Mapping[str, tuple[str, ...]], encoder: str) -> None:
    kinds = {family: {each.kind for each in encoders.values()} for family, encoders in FAMILIES.items()}
    assert {family for family, found in kinds.items() if encoder in found} == set(named)
    for family, names in named.items():
        spec = importlib.util.find_spec("diffusers")
        assert spec is not None
        text = (Path(spec.origin or "").parent / "pipelines" / LIMITS[family][0]).read_text(encoding="utf-8")
        assert any(f'"{name}"' in text for name in names), family


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceMissing, match="no tokenizer there; give a tokenizer"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no tokenizer\.json"):
        load(tmp_path)


CHATS = {  # the family's chat, the file in diffusers' pipelines, and what it is called there
    ("hunyuan-video", "llama"): ("hunyuan_video/pipeline_hunyuan_video.py", "DEFAULT_PROMPT_TEMPLATE"),
    ("kandinsky5", "qwen"): ("kandinsky5/pipeline_kandinsky_t2i.py", "self.prompt_template"),
    ("kandinsky5-video", "qwen"): ("kandinsky5/pipeline_kandinsky.py", "self.prompt_template"),
    ("kandinsky6", "qwen"): ("kandinsky6/pipeline_kandinsky6_ti2va.py", "_PROMPT_TEMPLATE"),
    ("qwen-image", "qwen"): ("qwenimage/pipeline_qwenimage.py", "self.prompt_template_encode"),
    ("lumina2", "gemma"): ("lumina2/pipeline_lumina2.py", "self.system_prompt"),
    ("sana", "gemma"): ("sana/pipeline_sana.py", "complex_human_instruction"),
    ("flux2", "mistral"): ("flux2/system_messages.py", "SYSTEM_MESSAGE"),
}
CROPS = {
    ("kandinsky5", "qwen"): ("kandinsky5/pipeline_kandinsky_t2i.py", "self.prompt_template_encode_start_idx"),
    ("kandinsky5-video", "qwen"): ("kandinsky5/pipeline_kandinsky.py", "self.prompt_template_encode_start_idx"),
    ("kandinsky6", "qwen"): ("kandinsky6/pipeline_kandinsky6_ti2va.py", "_QWEN_CROP_START"),
    ("qwen-image", "qwen"): ("qwenimage/pipeline_qwenimage.py", "self.prompt_template_encode_start_idx"),
}


def said(file: str, name: str) -> object:
    """A constant, an attribute or an argument's default in a file of diffusers' pipelines."""
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    tree = ast.parse((Path(spec.origin or "").parent / "pipelines" / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
            return eval(compile(ast.Expression(node.value), file, "eval"))
        if isinstance(node, ast.FunctionDef) and node.name == "__call__":
            arguments = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            for argument, default in zip(arguments, node.args.defaults, strict=True):
                if argument.arg == name:
                    return ast.literal_eval(default)
    raise AssertionError(f"{file} has no {name}")


@pytest.mark.parametrize(("family", "encoder"), CHATS)
def test_chats_are_those_of_diffusers(family: str, encoder: str) -> None:
    chat, found = FAMILIES[family][encoder].chat, said(*CHATS[family, encoder])
    assert chat is not None
    if isinstance(found, dict):
        assert (chat.before + "{}" + chat.after, chat.crop) == (found["template"], found["crop_start"])
    elif isinstance(found, list):
        assert chat.before == "\n".join(found)
    elif family == "flux2":
        assert chat.before == f"<s>[SYSTEM_PROMPT]{found}[/SYSTEM_PROMPT][INST]"
    elif family == "lumina2":
        assert chat.before == f"{found} <Prompt Start> "
    else:
        assert chat.before + "{}" + chat.after == found
    if (family, encoder) in CROPS:
        assert chat.crop == said(*CROPS[family, encoder])


LIMITS = {  # the file of the family's pipeline, and what its max_sequence_length counts besides the positions for a prompt
    "sd3": ("stable_diffusion_3/pipeline_stable_diffusion_3.py", {"t5": 1}),
    "flux": ("flux/pipeline_flux.py", {"t5": 1}),
    "hidream": ("hidream_image/pipeline_hidream_image.py", {"clip_l": 2, "clip_g": 2, "t5": 1, "llama": 0}),
    "hunyuan-video": ("hunyuan_video/pipeline_hunyuan_video.py", {"llama": 0}),
    "kandinsky5": ("kandinsky5/pipeline_kandinsky_t2i.py", {"qwen": 2}),
    "kandinsky5-video": ("kandinsky5/pipeline_kandinsky.py", {"qwen": 2}),
    "kandinsky6": ("kandinsky6/pipeline_kandinsky6_ti2va.py", {"qwen": 0}),
    "pixart-alpha": ("pixart_alpha/pipeline_pixart_alpha.py", {"t5": 1}),
    "pixart-sigma": ("pixart_alpha/pipeline_pixart_sigma.py", {"t5": 1}),
    "chroma": ("chroma/pipeline_chroma.py", {"t5": 1}),
    "wan": ("wan/pipeline_wan.py", {"umt5": 1}),
    "auraflow": ("aura_flow/pipeline_aura_flow.py", {"pile-t5": 1}),
    "sana": ("sana/pipeline_sana.py", {"gemma": 2}),
    "lumina2": ("lumina2/pipeline_lumina2.py", {"gemma": 0}),
    "qwen-image": ("qwenimage/pipeline_qwenimage.py", {"qwen": 0}),
    "z-image": ("z_image/pipeline_z_image.py", {"qwen": 0}),
    "flux2": ("flux2/pipeline_flux2.py", {"mistral": 0}),
    "flux2-klein": ("flux2/pipeline_flux2_klein.py", {"qwen": 0}),
}


@pytest.mark.parametrize("family", LIMITS)
def test_limits_are_those_of_diffusers(family: str) -> None:
    file, besides = LIMITS[family]
    positions = said(file, "max_sequence_length")
    assert isinstance(positions, int)
    assert {name: FAMILIES[family][name].limit + count for name, count in besides.items()} == dict.fromkeys(
        besides, positions
    )


def test_every_limit_of_a_call_is_looked_up() -> None:
    own = {family for family, encoders in FAMILIES.items() if any(each.limit != 75 for each in encoders.values())}
    assert own == set(LIMITS)


def test_the_chat_of_mistral_has_its_marks_as_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    marks = ["<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"]
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **{word: at for at, word in enumerate(WORDS, 1)}}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(marks)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    chat = FAMILIES["flux2"]["mistral"].chat
    assert chat is not None
    before = len(tokenizer.encode(chat.before).ids)
    found = plan("a red fox", family="flux2", language_tokenizer=tmp_path).encoders["mistral"]
    assert (found.content_tokens, found.dropped) == (3, None)
    fits = 512 - before
    assert not plan("very " * fits, family="flux2", language_tokenizer=tmp_path).truncated
    assert plan("very " * (fits + 1), family="flux2", language_tokenizer=tmp_path).truncated


def test_a_loaded_tokenizer_is_taken_as_it_is(tokenizer_file: Path) -> None:
    assert isinstance(load(tokenizer_file.parent), LanguageTokenizer)
