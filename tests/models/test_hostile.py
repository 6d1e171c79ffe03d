"""Model folders and files made to do harm: nothing of them runs, and each ends in one line."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import clipcond
from clipcond.errors import ModelError
from clipcond.models import checks
from clipcond.models.checkpoint import read_checkpoint
from clipcond.models.load import load_dual, load_open_clip_folder
from clipcond.models.torchscript import read_torchscript
from clipcond.models.trainable import load_trainable

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
ROOMS = ("models", "encode", "runtime", "rerank", "images", "score")


def changed(source: Path, target: Path, change: Any) -> Path:
    """A copy of an open_clip folder whose config a function has changed."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads((target / CONFIG).read_text())
    change(config)
    (target / CONFIG).write_text(json.dumps(config))
    return target


# ── code ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CODE = """from pathlib import Path
Path({marker!r}).touch()
from transformers import CLIPConfig, CLIPModel, CLIPImageProcessor
class Config(CLIPConfig): pass
class Model(CLIPModel): pass
class Processor(CLIPImageProcessor): pass
"""


def _with_code(folder: Path, marker: Path, model_type: str) -> None:
    folder.mkdir()
    (folder / "code.py").write_text(_CODE.format(marker=str(marker)))
    classes = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoImageProcessor": "code.Processor"}
    config = {"model_type": model_type, "architectures": ["Model"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": classes}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": classes}))


@pytest.mark.parametrize("model_type", ["clip", "of-its-own"])
def test_code_in_a_model_folder_never_runs_and_no_question_is_asked(
    model_type: str, dual_folder: Path, tmp_path: Path
) -> None:
    marker, folder = tmp_path / "it ran", tmp_path / "model"
    _with_code(folder, marker, model_type)
    other = changed(
        dual_folder, tmp_path / "open_clip", lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name=str(folder))
    )
    script = f"""
from clipcond.errors import ModelError
from clipcond.models.load import load_dual, load_open_clip_folder
from clipcond.models.trainable import load_trainable
for load in (load_dual, load_trainable, load_open_clip_folder):
    for spec in ("hf:{folder}", "{folder}", "{other}"):
        try:
            load(spec)
        except ModelError as error:
            assert chr(10) not in str(error), error
        else:
            raise SystemExit(f"{{load}} took {{spec}}")
load_trainable_random = load_trainable
try:
    load_trainable_random("{other}", random_weights=True)
except ModelError:
    print("done")
"""
    run = subprocess.run([sys.executable, "-c", script], input="y\n" * 50, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"
    assert "[y/N]" not in run.stderr
    assert not marker.exists()


def test_every_call_of_from_pretrained_refuses_remote_code() -> None:
    calls = 0
    for room in ROOMS:
        for path in (Path(clipcond.__file__).parent / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                    calls += 1
                    stated = {keyword.arg: keyword.value for keyword in node.keywords}
                    said = stated.get("trust_remote_code")
                    assert isinstance(said, ast.Constant), f"{path}:{node.lineno}"
                    assert said.value is False, f"{path}:{node.lineno}"
    assert calls


class _Runs:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.trace),))


def test_a_torchscript_archive_is_data(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(_Runs(tmp_path / "it ran")))
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(ModelError, match=r"the archive names \w+\.mkdir, which no weights need; nothing of it was run"):
        read_torchscript(tmp_path / "a.pt")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "holds no weights by name"),
        ([torch.ones(1)], "holds no weights by name"),
        ({"state_dict": {"a": "text"}}, "holds 'a', which is no weight"),
        ({"a": torch.ones(1).as_strided((10**12,), (0,))}, "holds 'a', which claims more numbers than it stores"),
    ],
)
def test_checkpoints_of_something_else(document: object, message: str, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=message):
        read_checkpoint(tmp_path / "a.pt")


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["visual.proj", "token_embedding.weight", "logit_scale"])
def test_a_weight_that_is_not_finite_is_refused_by_name(
    value: float, name: str, dual_folder: Path, tmp_path: Path
) -> None:
    folder = changed(dual_folder, tmp_path / "bad", lambda config: None)
    weights = load_file(folder / WEIGHTS)
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / WEIGHTS)
    for load in (load_dual, load_trainable):
        with pytest.raises(ModelError, match=rf"holds values that are not finite: {name} \(1 in all\); load another"):
            load(str(folder))


def test_a_logit_scale_without_a_finite_exponential_is_refused(dual_folder: Path, tmp_path: Path) -> None:
    folder = changed(dual_folder, tmp_path / "bad", lambda config: None)
    save_file({**load_file(folder / WEIGHTS), "logit_scale": torch.tensor(1000.0)}, folder / WEIGHTS)
    with pytest.raises(ModelError, match="has a logit_scale whose exponential is not finite"):
        load_dual(str(folder))


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["text_cfg"].update(layers=10_000_000), "has layers 10000000; expected at most 1,000"),
        (lambda c: c["vision_cfg"].update(layers=[1, 10**9, 1, 1]), "has layers 1000000000; expected at most 1,000"),
        (lambda c: c.update(embed_dim=2**60), "has embed_dim 1152921504606846976; expected at most"),
        (lambda c: c["text_cfg"].update(width=1 << 20, heads=2), "describes a model of .* GiB, more than the"),
        (lambda c: c["text_cfg"].update(mlp_ratio=1e300), "has mlp_ratio 1e\\+300; expected at most"),
        (lambda c: c["vision_cfg"].update(width=64), "does not fit open_clip_config.json: size mismatch for "),
        (lambda c: c["text_cfg"].update(layers=3), "does not fit open_clip_config.json: it lacks "),
        (lambda c: c["text_cfg"].update(width=16.5), "does not describe a model that can be built"),
        (lambda c: c["text_cfg"].update(width="wide"), "does not describe a model that can be built"),
        (lambda c: c["text_cfg"].update(heads=0), "does not describe a model that can be built"),
        (lambda c: c["vision_cfg"].update(patch_size=0), "does not describe a model that can be built"),
        (lambda c: c.update(text_cfg=[1, 2]), "text_cfg and vision_cfg are to be objects of settings"),
        (lambda c: c.update(vision_cfg="ViT"), "text_cfg and vision_cfg are to be objects of settings"),
    ],
)
def test_a_config_that_asks_for_too_much_or_for_nonsense_is_refused_before_it_is_built(
    change: Any, message: str, dual_folder: Path, tmp_path: Path
) -> None:
    folder = changed(dual_folder, tmp_path / "bad", lambda config: change(config["model_cfg"]))
    start = time.perf_counter()
    for load in (load_dual, load_trainable, load_open_clip_folder):
        with pytest.raises(ModelError, match=message) as caught:
            load(str(folder))
        assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 10


def test_a_model_larger_than_the_machine_is_refused(
    dual_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "machine_memory", lambda: 1000)
    with pytest.raises(ModelError, match=r"describes a model of 0\.0 GiB, more than the 0\.0 GiB of this machine"):
        load_dual(str(dual_folder))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"describes a model of 0\.6 GiB, more than"):
        load_dual(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_config": {"num_hidden_layers": 10_000_000}}, "has num_hidden_layers 10000000; expected at most 1,000"),
        ({"text_config": {"hidden_size": 1 << 40}}, "has hidden_size 1099511627776; expected at most"),
        ({"projection_dim": 1 << 22}, "describes [0-9,]+ weights, but its files hold 12 bytes"),
        ({"text_config": "small"}, "."),
        ({"vision_config": {"hidden_size": "wide"}}, "."),
    ],
)
def test_sizes_that_a_transformers_config_claims(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", **config}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345678 {} ")
    with pytest.raises(ModelError, match=message) as caught:
        load_dual(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────────

DOCUMENTS = [
    ("[" * 100_000, "nested too deeply"),
    ('{"model_cfg": ' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    ("[1, 2]", "holds a JSON list; expected an object"),
    ('"text"', "holds a JSON str; expected an object"),
    ("\x00\x01", "is not JSON"),
    ('{"model_cfg": [1]}', "has a model_cfg that is no object of settings"),
    ('{"model_cfg": {}, "preprocess_cfg": 3}', "that is no object of settings"),
]


@pytest.mark.parametrize(("text", "message"), DOCUMENTS)
def test_documents_that_are_no_config(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(text)
    for load in (load_dual, load_trainable, load_open_clip_folder):
        with pytest.raises(ModelError, match=message) as caught:
            load(str(tmp_path))
        assert "\n" not in str(caught.value)
    (tmp_path / CONFIG).unlink()
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        load_dual(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


_STEERING = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J\nsecond line"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["preprocess_cfg"].update(interpolation=_STEERING),
        lambda c: c["preprocess_cfg"].update(resize_mode=_STEERING),
        lambda c: c["preprocess_cfg"].update(mean=_STEERING),
        lambda c: c["preprocess_cfg"].update(fill_color={_STEERING: 1}),
        lambda c: c["model_cfg"]["text_cfg"].update(pool_type=_STEERING),
        lambda c: c["model_cfg"]["text_cfg"].update(vocab_size=_STEERING),
        lambda c: c["model_cfg"].update({_STEERING: 1}),
        lambda c: c["model_cfg"]["vision_cfg"].update({_STEERING: 1}),
    ],
)
def test_no_terminal_is_steered_by_a_config(change: Any, dual_folder: Path, tmp_path: Path) -> None:
    folder = changed(dual_folder, tmp_path / "bad", change)
    for load in (load_dual, load_trainable):
        with pytest.raises(ModelError) as caught:
            load(str(folder))
        assert str(caught.value).isprintable()
    (folder / "config.json").write_text(json.dumps({"model_type": _STEERING, "architectures": [_STEERING]}))
    with pytest.raises(ModelError) as caught:
        load_dual(f"hf:{folder}")
    assert str(caught.value).isprintable()
