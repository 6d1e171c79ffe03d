import json
import tracemalloc

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clipcond.errors import ModelError
from clipcond.models.open_clip_folder import CONFIG, WEIGHTS, read_config, read_open_clip_folder, write_open_clip_folder


def test_a_folder_read_and_written_again_is_the_same_model(dual_folder, tmp_path):
    model = read_open_clip_folder(dual_folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    write_open_clip_folder(model, read_config(dual_folder), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [CONFIG, WEIGHTS]
    again = read_open_clip_folder(tmp_path / "new").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_weights_are_written_without_a_copy_in_memory(dual_folder, tmp_path):
    model, config = read_open_clip_folder(dual_folder), read_config(dual_folder)
    size = sum(value.nbytes for value in model.state_dict().values())
    tracemalloc.start()
    try:
        write_open_clip_folder(model, config, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 8


def test_a_disk_that_refuses_leaves_what_was_there(dual_folder, tmp_path, monkeypatch):
    def full(weights, name):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    model, config = read_open_clip_folder(dual_folder), read_config(dual_folder)
    before = (write_open_clip_folder(model, config, tmp_path) / WEIGHTS).stat().st_ino
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=f"{WEIGHTS} cannot be written: .*No space left on device") as caught:
        write_open_clip_folder(model, config, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / WEIGHTS).stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_random_weights_read_no_file_and_follow_the_generator(dual_folder):
    torch.manual_seed(5)
    one = read_open_clip_folder(dual_folder, random_weights=True).state_dict()
    torch.manual_seed(5)
    other = read_open_clip_folder(dual_folder, random_weights=True).state_dict()
    stored = load_file(dual_folder / WEIGHTS)
    assert torch.equal(one["visual.proj"], other["visual.proj"])
    assert not torch.equal(one["visual.proj"], stored["visual.proj"].float())


def damaged(dual_folder, tmp_path, config=None, weights=None):
    (tmp_path / CONFIG).write_text(config if config is not None else (dual_folder / CONFIG).read_text())
    if weights is not None:
        state = load_file(dual_folder / WEIGHTS)
        weights(state)
        save_file(state, tmp_path / WEIGHTS)
    return tmp_path


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ("{", None, "is not JSON"),
        ("{}", None, 'has no "model_cfg"'),
        (json.dumps({"model_cfg": {"depth": 3}}), None, "does not describe a model that can be built: "),
        (None, None, f"holds a config but no {WEIGHTS}; random weights must be asked for by name"),
        (None, lambda s: s.pop("visual.proj"), r"it lacks visual\.proj \(1 in all\)"),
        (None, lambda s: s.update(new=torch.ones(1)), r"it has the unknown new \(1 in all\)"),
        (None, lambda s: s.update({"visual.proj": torch.ones(1)}), f"does not fit {CONFIG}: size mismatch for visual"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(dual_folder, tmp_path, config, weights, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_open_clip_folder(damaged(dual_folder, tmp_path, config, weights))
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(ModelError, match=f"is not an open_clip folder: there is no {CONFIG} in it"):
        read_open_clip_folder(tmp_path)


def test_a_packed_table_reads_back_in_full(dual_folder, tmp_path):
    model = read_open_clip_folder(dual_folder)
    with torch.no_grad():
        model.token_embedding.weight[1000:] = 0
        model.token_embedding.weight[49406] = 1
    written = write_open_clip_folder(model, read_config(dual_folder), tmp_path / "packed", packed=True)
    plain = write_open_clip_folder(model, read_config(dual_folder), tmp_path / "plain")
    assert (written / WEIGHTS).stat().st_size < 0.3 * (plain / WEIGHTS).stat().st_size
    again = read_open_clip_folder(written).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.safetensors", "of another name.pth"])
def test_weights_under_open_clips_own_names(name, dual_folder, tmp_path):
    state = load_file(dual_folder / WEIGHTS)
    (tmp_path / CONFIG).write_text((dual_folder / CONFIG).read_text())
    save_file(state, tmp_path / name) if name.endswith(".safetensors") else torch.save(state, tmp_path / name)
    found = read_open_clip_folder(tmp_path).state_dict()
    assert all(torch.equal(value, state[key].float()) for key, value in found.items())
    (tmp_path / name).write_bytes(b"short")
    with pytest.raises(ModelError, match=r"describes [0-9,]+ weights: it is smaller"):
        read_open_clip_folder(tmp_path)
    (tmp_path / name).write_bytes(b"damaged" * 1_000_000)
    with pytest.raises(ModelError, match=f"does not fit {CONFIG}: ") as caught:
        read_open_clip_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_several_weights_without_a_known_name_are_not_guessed(dual_folder, tmp_path):
    (tmp_path / CONFIG).write_text((dual_folder / CONFIG).read_text())
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"holds several weights \(a\.pth, b\.pth\); expected open_clip_model"):
        read_open_clip_folder(tmp_path)
