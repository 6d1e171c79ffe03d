import json
import shutil

import pytest
import torch

from clipcond.errors import ClipCondError, ModelError
from clipcond.models.open_clip_folder import CONFIG, read_open_clip_folder, write_open_clip_folder
from clipcond.models.trainable import load_trainable


@pytest.fixture
def tiny_name(dual_folder, tmp_path):
    """The name of a tiny architecture, made known to open_clip for the test."""
    from clipcond.runtime.torchvision_repair import repair

    repair()
    import open_clip
    from open_clip import factory

    name = "clipcond-tiny"
    config = {**json.loads((dual_folder / CONFIG).read_text())["model_cfg"], "quick_gelu": True}
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    paths = list(factory._MODEL_CONFIG_PATHS)
    open_clip.add_model_config(tmp_path / f"{name}.json")
    yield name
    factory._MODEL_CONFIG_PATHS[:] = paths
    factory._rescan_model_configs()


def test_a_folder_and_a_run_are_ready_to_train(dual_folder, tmp_path):
    shutil.copytree(dual_folder, tmp_path / "run" / "model")
    for spec in (dual_folder, tmp_path / "run"):
        found = load_trainable(str(spec))
        assert all(parameter.requires_grad for parameter in found.model.parameters())
        assert found.config == json.loads((dual_folder / CONFIG).read_text())
        assert (found.preprocess.height, found.preprocess.mean) == (32, (0.5, 0.5, 0.5))


def test_a_named_architecture_with_a_checkpoint_survives_being_written(tiny_name, dual_folder, tmp_path):
    torch.save(read_open_clip_folder(dual_folder).state_dict(), tmp_path / "weights.pt")
    found = load_trainable(f"{tiny_name}@{tmp_path / 'weights.pt'}")
    again = read_open_clip_folder(write_open_clip_folder(found.model, found.config, tmp_path / "out"))
    pixels, ids = torch.randn(2, 3, 32, 32), torch.tensor([[49406, 320, 49407] + [0] * 74])
    with torch.no_grad():
        assert torch.equal(again.eval().encode_image(pixels), found.model.eval().encode_image(pixels))
        assert torch.equal(again.encode_text(ids), found.model.encode_text(ids))
        plain = read_open_clip_folder(dual_folder).eval()
        assert not torch.allclose(again.encode_image(pixels), plain.encode_image(pixels)), "quick GELU is kept"
    assert found.config["preprocess_cfg"]["size"] in (32, [32, 32], (32, 32))
    json.dumps(found.config)


def test_random_weights_by_name(tiny_name):
    torch.manual_seed(1)
    one = load_trainable(tiny_name, random_weights=True).model
    torch.manual_seed(2)
    other = load_trainable(tiny_name, random_weights=True).model
    assert not torch.equal(one.visual.proj, other.visual.proj)


@pytest.mark.parametrize(
    ("spec", "random_weights", "message"),
    [
        ("ViT-Z-99", True, "cannot train 'ViT-Z-99': no such folder, and open_clip knows no architecture 'ViT-Z-99'"),
        ("hf:some/model", False, "cannot train 'hf:some/model': it is no open_clip model"),
        ("ViT-Z-99/openai", False, "ViT-Z-99"),
    ],
)
def test_what_cannot_be_trained_is_an_error(spec, random_weights, message):
    with pytest.raises(ModelError, match=message):
        load_trainable(spec, random_weights=random_weights)


def test_a_folder_without_an_open_clip_model(tmp_path):
    with pytest.raises(ClipCondError, match=r"it is no open_clip model; expected a folder with open_clip_config\.json"):
        load_trainable(str(tmp_path))
