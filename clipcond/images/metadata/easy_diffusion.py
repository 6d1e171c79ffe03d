"""Easy Diffusion: PNG text `prompt` and `negative_prompt`, or `Prompt` and `Negative Prompt`; JSON in UserComment.

`prompt` is ComfyUI's name for its graph too, which is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping

from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import image_prompt, json_object, plain_text

_NAMES = (("prompt", "negative_prompt"), ("Prompt", "Negative Prompt"))
_SETTINGS = (
    "seed", "num_inference_steps", "guidance_scale", "sampler_name", "use_stable_diffusion_model", "width", "height",
    "Seed", "Steps", "Guidance Scale", "Sampler", "Stable Diffusion model",
)  # fmt: skip


def read_easy_diffusion(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return Easy Diffusion's prompt, or None."""
    for positive, negative in _NAMES:
        if positive in fields and not fields[positive][:64].lstrip().startswith('{"'):  # `{red|blue} fox` is a prompt
            return _found(positive, fields, positive, negative)
    values = json_object(fields.get("UserComment"))
    for positive, negative in _NAMES:
        if values is not None and isinstance(values.get(positive), str):
            return _found("UserComment", values, positive, negative)
    return None


def _found(field: str, values: Mapping[str, object], positive: str, negative: str) -> ImagePrompt:
    return image_prompt(
        tool="Easy Diffusion",
        field=field,
        prompt=plain_text(values[positive]),
        negative_prompt=plain_text(values.get(negative)),
        dialect="a1111",
        settings={name: values[name] for name in _SETTINGS if name in values},
    )
