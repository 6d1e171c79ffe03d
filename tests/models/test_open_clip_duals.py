"""open_clip's other text encoders, random and tiny: texts, pictures and logits equal those of open_clip's own code."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizer_folders import SIZE, Kind, write_tokenizer

from clipcond.errors import ModelError
from clipcond.models.load import load_dual
from clipcond.models.text_encoder import load_text_encoder
from clipcond.models.trainable import load_trainable
from clipcond.rerank.pairing import Pairing
from clipcond.rerank.ranking import rank_pictures
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.settings import Scoring, parse_scores
from clipcond.runtime.torchvision_repair import repair

TEXTS = ["a red fox", "", "A Fox, (red) on-the sea!", "the sea at night " * 12]
_VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8, "mlp_ratio": 2.0}
_TEXT = {"width": 16, "heads": 2, "layers": 2}
_NAMED = {"hf_tokenizer_name": "the/tokenizer", "vocab_size": SIZE}
_HF = {
    "roberta": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1},
    "xlm-roberta": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1},
    "mt5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "pad_token_id": 0},
    "m2m_100": {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_layers": 1,
        "decoder_ffn_dim": 32,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 100,
    },
}


@dataclass(frozen=True)
class Case:
    """An architecture in small. content: the most content tokens of a pass.   hf: the model type of its text model."""

    text: dict[str, Any]
    content: int
    tokenizer: Kind | None = None
    hf: str | None = None
    model: dict[str, Any] | None = None
    vision: dict[str, Any] | None = None
    activation: str = "softmax"


CASES = {
    "PE-Core": Case({"context_length": 32, "vocab_size": 49408}, 30, model={"custom_text": True}),
    "MobileCLIP2": Case({"no_causal_mask": True}, 75, model={"custom_text": True}),
    "CoCa": Case(
        {"context_length": 76, "vocab_size": 49408, "embed_cls": True, "output_tokens": True},
        74,
        vision={"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        model={
            "custom_text": True,
            "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        },
    ),
    "SigLIP": Case(
        {
            **_NAMED,
            "context_length": 64,
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
        63,
        tokenizer="t5",
        model={"custom_text": True, "init_logit_bias": -10},
        activation="sigmoid",
    ),
    "CLIPA": Case(
        {
            **_NAMED,
            "context_length": 32,
            "tokenizer_kwargs": {"strip_sep_token": True},
            "pool_type": "last",
            "no_causal_mask": True,
        },
        30,
        tokenizer="bert",
    ),
    "MetaCLIP 2": Case({**_NAMED, "pool_type": "eos", "eos_id": 2}, 75, tokenizer="xlm-roberta"),
    "CLIPS": Case(
        {
            **_NAMED,
            "context_length": 40,
            "tokenizer_mode": "clips",
            "pool_type": "last",
            "no_causal_mask": True,
        },
        37,
        tokenizer="xlm-roberta",
    ),
    "XLM-R": Case({**_NAMED, "hf_pooler_type": "mean_pooler"}, 75, tokenizer="xlm-roberta", hf="xlm-roberta"),
    "RoBERTa": Case({**_NAMED, "hf_pooler_type": "mean_pooler"}, 75, tokenizer="xlm-roberta", hf="roberta"),
    "mT5": Case({**_NAMED, "hf_pooler_type": "mean_pooler"}, 76, tokenizer="t5", hf="mt5"),
    "NLLB": Case(
        {**_NAMED, "hf_pooler_type": "cls_pooler", "hf_proj_type": "linear"}, 75, tokenizer="nllb", hf="m2m_100"
    ),
}


def write_folder(folder: Path, case: Case) -> Path:
    """An open_clip folder of the case with random weights, its tokenizer inside, its text model's config beside."""
    repair()
    import open_clip

    text = dict(case.text)
    if case.tokenizer is not None:
        write_tokenizer(folder, case.tokenizer)
    if case.hf is None:
        text = {**_TEXT, **text}
    else:
        place = folder.parent / f"{folder.name}-text"
        place.mkdir(parents=True)
        config = {"model_type": case.hf, "vocab_size": SIZE, "pad_token_id": 1, "scale_embedding": True, **_HF[case.hf]}
        (place / "config.json").write_text(json.dumps(config))
        text["hf_model_name"] = str(place)
    folder.mkdir(parents=True, exist_ok=True)
    vision = {**_VISION, **(case.vision or {})}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text, **(case.model or {})}
    document = {"model_cfg": config, "preprocess_cfg": {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
        for name, weight in model.named_parameters():
            if (
                "token_embedding" in name
                or "word_embeddings" in name
                or name.endswith(("shared.weight", "tokens.weight"))
            ):
                torch.nn.init.normal_(weight, std=0.5)  # as initialised, short texts hardly differ
        weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    chosen = CASES[request.param]
    return chosen, write_folder(tmp_path_factory.mktemp("duals") / "model", chosen)


def test_equal_to_open_clip(case: tuple[Case, Path]) -> None:
    import open_clip

    dual = load_dual(str(case[1]))
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{case[1]}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{case[1]}")
    pictures = [Image.effect_mandelbrot((24, 20), (n, -2, 2, 1), 40).convert("RGB") for n in range(-3, 0)]
    with torch.inference_mode():
        model.eval()
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
        seen = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
        logits = model.logit_scale.exp() * seen @ texts.T + (0 if model.logit_bias is None else model.logit_bias)
        each = logits.sigmoid() if case[0].activation == "sigmoid" else logits.softmax(dim=1)
    ours, theirs = dual.texts.embed(TEXTS), dual.image.embed(pictures)
    assert (ours - texts).abs().max() < 1e-5
    assert (theirs - seen).abs().max() < 1e-5
    assert (texts[0] - texts[2]).abs().max() > 1e-4
    cosine = (theirs.double() @ ours.double().T).numpy()
    assert np.abs(dual.head.logits(cosine) - logits.numpy()).max() < 1e-4  # of numbers to 100
    assert np.abs(dual.head.probabilities(cosine) - each.numpy()).max() < 1e-5
    assert dual.head.activation == case[0].activation


def test_what_is_read_in_one_pass_and_in_several(case: tuple[Case, Path]) -> None:
    scorer = Scorer.load(str(case[1]), device="cpu")
    texts = scorer.dual.texts
    assert texts.content == case[0].content
    (tokens,) = texts.count([TEXTS[3]])
    encoded = scorer.texts([TEXTS[3], TEXTS[0]])
    assert (encoded[0].content_tokens, encoded[0].chunks) == (tokens, -(-tokens // texts.content))
    assert texts.beyond(TEXTS[0]) == ""
    cut = texts.beyond(TEXTS[3])
    assert bool(cut) is (tokens > texts.content)
    assert TEXTS[3].strip().endswith(cut)
    first = texts.embed([TEXTS[3]]).double().numpy()[0]
    assert np.abs(encoded[0].parts[0] - first).max() < 1e-6
    alone = torch.cat([texts.embed([text]) for text in TEXTS])
    assert (texts.embed(TEXTS, batch_size=2) - alone).abs().max() < 1e-6


def test_typed_special_tokens_are_text(case: tuple[Case, Path]) -> None:
    if case[0].tokenizer is None:
        pytest.skip("CLIP's own tokenizer has tests of its own")
    texts = load_dual(str(case[1])).texts
    special = {*texts.layout.before, *texts.layout.after, *texts.layout.last}
    assert not special & set(texts.tokenizer.ids(["a </s> <pad> <eos> [SEP] fox"])[0])


def test_only_clips_own_kind_trains(case: tuple[Case, Path]) -> None:
    dual = load_dual(str(case[1]))
    with pytest.raises(ModelError, match="does not read prompts as CLIP does"):
        load_trainable(str(case[1]))
    if dual.reads_clip_tokens:
        assert dual.text.context == dual.texts.layout.length
        with pytest.raises(ModelError, match="reads 32 positions; a pipeline's text encoder has 77"):
            load_text_encoder(str(case[1]))
        return
    with pytest.raises(ModelError, match="does not read prompts as CLIP does"):
        load_text_encoder(str(case[1]))
    with pytest.raises(ModelError, match=r"does not read prompts as CLIP does \(tokens of .*it scores and ranks"):
        dual.text  # noqa: B018


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("siglip") / "model", CASES["SigLIP"])


def test_a_tokenizer_that_is_not_at_hand_is_one_line(siglip: Path, tmp_path: Path) -> None:
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / name).write_bytes((siglip / name).read_bytes())
    with pytest.raises(ModelError) as caught:
        load_dual(str(tmp_path))
    said = str(caught.value)
    assert "\n" not in said
    assert f"the tokenizer of {tmp_path} is not at hand: tried {tmp_path} (none of tokenizer.json, vocab.txt" in said
    assert "the/tokenizer (not in the local cache, and the hub cannot be reached)" in said
    assert said.endswith("state a folder that holds it as ,tokenizer=FOLDER")
    assert load_dual(f"{tmp_path},tokenizer={siglip}").texts.content == 63
    with pytest.raises(ModelError, match="tokenizer=/nowhere in the model name: there is no such folder"):
        load_dual(f"{tmp_path},tokenizer=/nowhere")


def test_a_model_of_the_cache_in_open_clips_format(
    siglip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--siglip"
    shutil.copytree(siglip, folder / "snapshots" / "0123")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    dual = load_dual("hf:some/siglip")
    assert torch.equal(dual.texts.embed(TEXTS), load_dual(str(siglip)).texts.embed(TEXTS))
    (folder / "snapshots" / "0123" / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="the files of hf:some/siglip are not in the local cache"):
        load_dual("hf:some/siglip")


def test_code_beside_a_tokenizer_is_not_run(siglip: Path, tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "it ran"
    shutil.copytree(siglip, folder)
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with suppress(ModelError):
        load_dual(str(folder))
    assert not marker.exists()


def test_a_text_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", CASES["XLM-R"])
    (tmp_path / "model-text" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(
        ModelError, match=r"the config of the text model .* tried .*\(a gpt2; open_clip builds on roberta,"
    ):
        load_dual(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer_kwargs": {"trust_remote_code": True}}, "has tokenizer_kwargs .*; expected an object with clean, "),
        ({"tokenizer_kwargs": {"clean": "rot13"}}, "cleans its texts by 'rot13'; expected one of whitespace, lower,"),
        ({"tokenizer_mode": "other"}, "has the tokenizer_mode 'other'; expected clips or none"),
        ({"pool_type": "middle"}, "pools its texts by 'middle'; expected one of argmax, eos, last, first"),
        ({"context_length": "long"}, "has context_length 'long'; expected a number from 1 on"),
        ({"context_length": 1}, "a text encoder of 1 positions, 1 of them special; expected room for content"),
        ({"tokenizer_kwargs": {"language": "eng_Latn"}}, "states the language 'eng_Latn', which its tokenizer"),
        ({"hf_tokenizer_name": ["a"]}, "has hf_tokenizer_name \\['a'\\]; expected a name"),
        ({"hf_tokenizer_name": None}, "has tokenizer_kwargs, but no hf_tokenizer_name that they could be for"),
    ],
)
def test_configs_that_say_what_no_model_does(
    change: dict[str, Any], message: str, siglip: Path, tmp_path: Path
) -> None:
    config = json.loads((siglip / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"].update(change)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    weights = load_file(siglip / "open_clip_model.safetensors")
    if change == {"context_length": 1}:
        weights["text.positional_embedding"] = weights["text.positional_embedding"][:1].clone()
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    write_tokenizer(tmp_path, "t5")
    with pytest.raises(ModelError, match=message):
        load_dual(str(tmp_path))


def test_a_model_of_sigmoids_ranks_on_its_own_scale(siglip: Path, tmp_path: Path) -> None:
    for number in (-3, -2):
        Image.effect_mandelbrot((24, 20), (number, -2, 2, 1), 40).convert("RGB").save(tmp_path / f"{number}.png")
    scorer = Scorer.load(str(siglip), device="cpu")
    pairs = [Pairing(path=path, prompt="a red fox") for path in sorted(tmp_path.glob("*.png"))]
    scoring = Scoring(scores=parse_scores("cosine, logit, probability"), distractors=("a cat",))
    ranking = rank_pictures(pairs, scorer=scorer, scoring=scoring)
    head = scorer.dual.head
    assert (head.activation, head.bias) == ("sigmoid", -10)
    for row in ranking.rows:
        logit = head.scale * row.scores["cosine"] - 10
        assert row.scores["logit"] == pytest.approx(logit, abs=1e-4)
        assert row.scores["probability"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
    assert any("judges each text by itself (sigmoid of its logit)" in note for note in ranking.notes)
