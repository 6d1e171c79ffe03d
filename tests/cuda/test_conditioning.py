"""Conditioning on the device: the CPU's tensors, up to the rounding of each dtype, where the pipeline is and in its dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from measures import close

FAMILIES = ("sd15", "sdxl", "sd3", "flux")
LONG = "a red fox in the snow, soft light, a blue bird and a grey photo of the snow, " * 6
PROMPTS = {
    "short": ("a red fox in the snow", "blurry", {}),
    "long": (LONG, "blurry", {}),
    "two lengths": (["a red fox", LONG], "blurry, grey", {}),
    "weights": ("a (red:1.4) fox in the [snow], (soft light:0.6)", "(blurry:1.2)", {"dialect": "a1111"}),
    "masked chunks": ("a (red:1.4) fox in the (snow:0.5)", "grey", {"dialect": "a1111", "weighting": "comfy_pp"}),
    "schedule": ("a [fox:bird:0.5] in the snow", "blurry", {"dialect": "a1111", "steps": 4}),
}
RELATIVE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}


def conditioned(pipe: Any, case: str) -> Any:
    from clipcond.diffusion.conditioner import Conditioner

    prompt, negative, options = PROMPTS[case]
    negative = None if type(pipe).__name__.startswith("Flux") else negative
    return Conditioner.from_pipeline(pipe)(prompt, negative, **options)


@pytest.fixture(scope="module")
def on_cpu(clip_tokenizers: Any, t5_tokenizer: Any) -> Callable[[str, str], Any]:
    """Families on the CPU in float32, and copies of them elsewhere."""
    from clipcond_test_families import build, seeded  # type: ignore[import-not-found]

    made: dict[str, Any] = {}

    def get(family: str, _: str = "") -> Any:
        if family not in made:
            made[family] = seeded(lambda: build(family, clip_tokenizers, t5_tokenizer))
        return made[family]

    return get


@pytest.mark.parametrize("dtype", list(RELATIVE))
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_are_those_of_the_cpu(
    family: str, dtype: str, device: str, fresh: Callable[[str], Any], on_cpu: Any
) -> None:
    import torch

    if dtype == "float16" and device == "cpu":
        pytest.skip("float16 is for a GPU")
    pipe = fresh(family).to(device, getattr(torch, dtype))
    for case in PROMPTS:
        ours, theirs = conditioned(pipe, case), conditioned(on_cpu(family), case)
        assert ours.tensors.keys() == theirs.tensors.keys()
        for name, tensor in ours.tensors.items():
            assert str(tensor.device) == device, f"{case}: {name} is on {tensor.device}"
            if tensor.is_floating_point():
                assert tensor.dtype == getattr(torch, dtype), f"{case}: {name} is {tensor.dtype}"
            close(tensor, theirs.tensors[name], relative=RELATIVE[dtype], what=f"{family} {dtype} {case} {name}")


@pytest.mark.parametrize("dtype", list(RELATIVE))
def test_mini_is_that_of_the_cpu(dtype: str, device: str, mini: Callable[[str], Any]) -> None:
    import torch

    import clipcond

    if dtype == "float16" and device == "cpu":
        pytest.skip("float16 is for a GPU")
    pipe = clipcond.load_pipeline("mini", device=device, dtype=getattr(torch, dtype))
    for case in PROMPTS:
        ours, theirs = conditioned(pipe, case), conditioned(mini("cpu"), case)
        for name, tensor in ours.tensors.items():
            assert str(tensor.device) == device
            close(tensor, theirs.tensors[name], relative=RELATIVE[dtype], what=f"mini {dtype} {case} {name}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_prompt_is_the_pipeline_s_own(family: str, device: str, fresh: Callable[[str], Any]) -> None:
    import torch

    from clipcond.diffusion.conditioner import Conditioner

    pipe = fresh(family).to(device)
    ours = Conditioner.from_pipeline(pipe)("a red fox in the snow").prompt_embeds
    with torch.no_grad():
        own = {"sd15": ("a red fox in the snow", device, 1, False), "sd3": ("a red fox in the snow", None, None)}
        theirs = pipe.encode_prompt(*own.get(family, ("a red fox in the snow",)))[0]
    close(ours, theirs, relative=1e-5, what=f"{family} against encode_prompt")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_implementations_agree(
    implementation: str, device: str, fresh: Callable[[str], Any], on_cpu: Any
) -> None:
    pipe = fresh("sdxl").to(device)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        encoder.set_attn_implementation(implementation)
    for case in PROMPTS:
        ours, theirs = conditioned(pipe, case), conditioned(on_cpu("sdxl"), case)
        for name, tensor in ours.tensors.items():
            close(tensor, theirs.tensors[name], relative=1e-5, what=f"{implementation} {case} {name}")


def test_xformers_blocks_give_the_same_states(
    cuda: str, fresh: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Widths that xformers has kernels for; rows that share beginnings, so that the packed pass is taken."""
    pytest.importorskip("xformers", reason="xformers is not installed")
    import torch
    from clipcond_test_families import clip

    from clipcond.encode.packed import attention
    from clipcond.encode.rows import TokenSequence
    from clipcond.encode.text import TextTower

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = TextTower.from_transformers(clip(64, projection=True).eval().to(cuda, torch.float16))
    if attention.xformers_ops(torch.device(cuda), torch.float16, 16) is None:
        pytest.skip("xformers has no kernel for this GPU or this torch")
    draw = torch.Generator().manual_seed(1)
    start = torch.randint(1000, 40000, (20,), generator=draw).tolist()
    rows = [
        TokenSequence((49406, *start, *torch.randint(1000, 40000, (40,), generator=draw).tolist(), *(49407,) * 16))
        for _ in range(6)
    ]
    ours = tower.encode_rows(rows)
    monkeypatch.setattr(attention, "xformers_ops", lambda *_: None)
    theirs = tower.encode_rows(rows)
    close(ours.hidden, theirs.hidden, relative=5e-3, what="xformers' blocks against groups, float16")
    close(ours.pooled, theirs.pooled, relative=5e-3, what="pooled")


def test_states_of_a_file_come_back_to_the_device(device: str, fresh: Callable[[str], Any], tmp_path: Any) -> None:
    """A cache on disk holds the CPU's bytes; a conditioning that was saved is loaded to where its pipeline is."""
    import clipcond
    from clipcond.diffusion.conditioner import Conditioner

    pipe = fresh("sdxl").to(device)
    first = Conditioner.from_pipeline(pipe, cache=clipcond.Cache(folder=tmp_path / "states"))(LONG, "blurry")
    again = Conditioner.from_pipeline(pipe, cache=clipcond.Cache(folder=tmp_path / "states"))(LONG, "blurry")
    first.save(tmp_path / "fox.safetensors")
    loaded = clipcond.Conditioning.load(tmp_path / "fox.safetensors", pipe)
    for name, tensor in first.tensors.items():
        for other in (again, loaded):
            assert str(other.tensors[name].device) == device
            close(other.tensors[name], tensor, relative=0.0, what=f"{name} from a file")


def test_no_tensor_of_a_conditioning_passes_through_the_cpu(
    cuda: str, fresh: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of states; the few numbers by which changed weights are noticed go there."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Copies(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.large: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default and args[0].is_cuda and not out.is_cuda and out.numel() > 4096:
                self.large.append(str(tuple(out.shape)))
            return out

    from clipcond.diffusion.conditioner import Conditioner

    pipe = fresh("sdxl").to(cuda)
    conditioner = Conditioner.from_pipeline(pipe)
    conditioner("a fox")  # reads the weights once
    with Copies() as copies:
        conditioner(LONG + "(red:1.3) bird", "blurry", dialect="a1111")
    assert copies.large == [], f"copied to the CPU: {copies.large}"


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3"])
def test_a_picture_of_and_is_that_of_the_cpu(
    family: str, device: str, fresh: Callable[[str], Any], on_cpu: Any
) -> None:
    import torch

    from clipcond.diffusion.compose_denoiser import composed
    from clipcond.diffusion.conditioner import Conditioner

    pictures = []
    for pipe in (fresh(family).to(device), on_cpu(family)):
        parts = Conditioner.from_pipeline(pipe).compose("a red fox AND a blue bird :0.8 AND snow :-0.3", "grey")
        with composed(pipe, parts):
            made = pipe(
                **parts.kwargs, num_inference_steps=3, generator=torch.Generator().manual_seed(3), output_type="pt",
                height=16, width=16,
            )  # fmt: skip
        pictures.append(made.images)
    close(pictures[0], pictures[1], relative=2e-3, what=f"{family}: a picture of AND")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_schedule_runs_through_a_picture(family: str, device: str, fresh: Callable[[str], Any], on_cpu: Any) -> None:
    import torch

    pictures = []
    for pipe in (fresh(family).to(device), on_cpu(family)):
        made = conditioned(pipe, "schedule")
        inputs = getattr(made.callback, "tensor_inputs", None)
        more = {} if inputs is None else {"callback_on_step_end_tensor_inputs": inputs}
        out = pipe(
            **made.kwargs, **more, num_inference_steps=4, generator=torch.Generator().manual_seed(3), output_type="pt",
            height=16, width=16,
        )  # fmt: skip
        pictures.append(out.images)
    close(pictures[0], pictures[1], relative=2e-3, what=f"{family}: a scheduled picture")
