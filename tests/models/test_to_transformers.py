"""The open_clip to transformers export: equal hidden states, and clear refusals."""

from __future__ import annotations

import pytest
import torch

from clipcond.errors import ModelError
from clipcond.models.to_transformers import clip_text_config, open_clip_text_to_transformers
from clipcond.runtime.torchvision_repair import repair

repair()

import open_clip  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # noqa: E402

VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}


def tower(kind: type = open_clip.CLIP, **options: object) -> torch.nn.Module:
    torch.manual_seed(3)
    return kind(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT, **options).eval()


def some_ids() -> torch.Tensor:
    torch.manual_seed(0)
    ids = torch.full((3, 77), 49407)
    ids[:, 0] = 49406
    for row, count in enumerate((0, 7, 75)):
        ids[row, 1 : 1 + count] = torch.randint(0, 49406, (count,))
    return ids


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
@torch.no_grad()
def test_the_export_equals_the_original(kind: type, quick_gelu: bool) -> None:
    model = tower(kind, quick_gelu=quick_gelu)
    config = clip_text_config(model)
    assert config["hidden_act"] == ("quick_gelu" if quick_gelu else "gelu")
    state = open_clip_text_to_transformers(model.state_dict(), config["num_attention_heads"])
    exported = CLIPTextModelWithProjection(CLIPTextConfig(**config)).eval()
    assert not exported.load_state_dict(state, strict=False).unexpected_keys
    ids = some_ids()
    torch.testing.assert_close(exported(ids).text_embeds, model.encode_text(ids), rtol=0, atol=1e-5)


def test_the_export_shares_no_memory_with_the_model() -> None:
    model = tower()
    state = open_clip_text_to_transformers(model.state_dict(), 4)
    state["text_model.final_layer_norm.bias"].fill_(7.0)
    assert not (model.ln_final.bias == 7.0).any()


def test_a_tower_without_projection_has_its_own_width() -> None:
    model = tower()
    model.text_projection = None
    assert clip_text_config(model)["projection_dim"] == 32
    assert "text_projection.weight" not in open_clip_text_to_transformers(model.state_dict(), 4)


def test_what_does_not_convert_is_refused() -> None:
    model = tower()
    state = model.state_dict()
    with pytest.raises(ModelError, match="5 heads do not divide the text tower's width of 32"):
        open_clip_text_to_transformers(state, 5)
    with pytest.raises(ModelError, match=r"no token_embedding\.weight"):
        open_clip_text_to_transformers({"logit_scale": torch.ones(())}, 4)
    with pytest.raises(ModelError, match="ls_1"):
        open_clip_text_to_transformers({**state, "transformer.resblocks.0.ls_1.gamma": torch.ones(32)}, 4)
    with pytest.raises(ModelError, match="cls_emb has no place"):
        open_clip_text_to_transformers({**state, "cls_emb": torch.ones(32)}, 4)
    with pytest.raises(ModelError, match="text block 1 has 15 of the 16"):
        open_clip_text_to_transformers({k: v for k, v in state.items() if k != "transformer.resblocks.1.ln_1.bias"}, 4)
    with pytest.raises(ModelError, match="blocks are numbered"):
        open_clip_text_to_transformers({k: v for k, v in state.items() if ".resblocks.0." not in k or k[0] == "v"}, 4)


def test_a_model_without_a_text_tower_is_named() -> None:
    with pytest.raises(ModelError, match="Linear holds no CLIP text tower"):
        clip_text_config(torch.nn.Linear(2, 2))
    model = tower()
    model.transformer.resblocks[0].mlp[1] = torch.nn.SiLU()
    with pytest.raises(ModelError, match="activation is SiLU"):
        clip_text_config(model)
