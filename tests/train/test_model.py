import pytest
import torch

from clipcond.errors import ModelError
from clipcond.models.open_clip_folder import read_open_clip_folder
from clipcond.train.model import (
    check_model,
    convolves,
    freeze,
    image_features,
    lay_out_for_convolutions,
    text_features,
    text_state,
    use_plain_attention,
)

EOS = 49407


@pytest.fixture
def model(dual_folder):
    return read_open_clip_folder(dual_folder).train()


def ids(count=9, length=77):
    draw = torch.Generator().manual_seed(0)
    rows = torch.full((count, length), EOS)
    for row in rows:
        size = int(torch.randint(1, length - 1, (), generator=draw))
        row[1 : 1 + size] = torch.randint(300, 5000, (size,), generator=draw)
    rows[:, 0] = 49406
    return rows


@pytest.mark.parametrize("group", [1, 4, 64])
@pytest.mark.parametrize("plain", [True, False])
def test_short_groups_give_what_open_clip_gives_at_77(model, group, plain):
    rows = ids()
    with torch.no_grad():
        expected = model.encode_text(rows)
        if plain:
            use_plain_attention(model)
        assert torch.allclose(text_state(model, rows, group=group) @ model.text_projection, expected, atol=1e-5)
        assert torch.allclose(text_features(model, rows), model.encode_text(rows, normalize=True), atol=1e-5)


@pytest.mark.parametrize("group", [2, 64])
def test_gradients_of_short_groups_are_those_at_77(model, dual_folder, group):
    """The tower is causal and pooled at the end of text: what stands behind it has no part in the loss."""
    other = read_open_clip_folder(dual_folder).train()
    rows, weights = ids(length=20), torch.randn(9, 24, generator=torch.Generator().manual_seed(3))
    whole = torch.cat([rows, torch.full((9, 57), EOS)], dim=1)
    ((text_state(model, rows, group=group) @ model.text_projection) * weights).sum().backward()
    (other.encode_text(whole) * weights).sum().backward()
    own = dict(model.named_parameters())
    compared = [name for name, theirs in other.named_parameters() if theirs.grad is not None]
    assert len(compared) > 20
    for name in compared:
        torch.testing.assert_close(own[name].grad, other.get_parameter(name).grad, atol=2e-5, rtol=1e-4)


def test_images_are_those_of_open_clip_and_so_are_the_gradients(model, dual_folder):
    other = read_open_clip_folder(dual_folder).train()
    use_plain_attention(model)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image_features(model, pixels)[:, 0].sum().backward()
    other.encode_image(pixels, normalize=True)[:, 0].sum().backward()
    for (name, mine), theirs in zip(model.visual.named_parameters(), other.visual.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-6), name


@pytest.mark.parametrize("what", ["image", "text"])
def test_plain_attention_in_bfloat16_is_close_to_float32(model, what):
    use_plain_attention(model)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def run():
        return image_features(model, pixels) if what == "image" else text_features(model, ids())

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        rough = run()
    assert rough.dtype == torch.float32
    assert 0 < float((exact - rough).abs().max().detach()) < 0.03


@pytest.mark.parametrize("parts", [("text",), ("image",), ("text", "image"), ()])
def test_frozen_parts_build_no_graph(model, parts):
    freeze(model, parts)
    assert text_state(model, ids()).requires_grad == ("text" not in parts)
    assert text_features(model, ids()).requires_grad, "the text projection always trains"
    assert image_features(model, torch.zeros(2, 3, 32, 32)).requires_grad == ("image" not in parts)
    assert model.logit_scale.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: setattr(model, "text_projection", None),
            "with CLIP's own text tower; this one has another kind",
        ),
        (lambda model: setattr(model, "text_pool_type", "last"), "pools at the end of text, not at 'last'"),
        (lambda model: setattr(model, "token_embedding", torch.nn.Embedding(9, 16)), "of 49408; this model has 9"),
    ],
)
def test_other_text_towers_are_refused(model, change, message):
    check_model(model)
    change(model)
    with pytest.raises(ModelError, match=message):
        check_model(model)


def test_a_convolutional_tower_is_laid_out_anew_and_computes_the_same():
    from open_clip.modified_resnet import ModifiedResNet

    torch.manual_seed(0)
    tower = torch.nn.Module()
    tower.visual = ModifiedResNet(layers=[1, 1, 1, 1], output_dim=8, heads=2, image_size=32, width=8).eval()
    pixels = torch.randn(3, 3, 32, 32)
    before = torch.nn.functional.normalize(tower.visual(pixels), dim=-1)
    lay_out_for_convolutions(tower)
    weight = tower.visual.layer1[0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert torch.allclose(image_features(tower, pixels), before, atol=1e-5)


def test_the_patches_of_a_vit_stay_as_they_are(model):
    assert not convolves(model.visual)
    lay_out_for_convolutions(model)
    assert model.visual.conv1.weight.is_contiguous()
