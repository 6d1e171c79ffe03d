"""The page of an explanation: the picture, the phrases as chips, and each phrase's map over the picture; one HTML file.

`explain` is `clipcond.explain`: an explanation that shows itself in a notebook and writes its page.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from clipcond.diffusion.explain.explain import explain_prompt
from clipcond.diffusion.explain.explanation import ExplainedPicture, Explanation
from clipcond.diffusion.explain.settings import AT, ExplainSettings
from clipcond.diffusion.explain.spans import By
from clipcond.files import write_file
from clipcond.pages.heat import RAMP, levels
from clipcond.pages.inline import picture_uri, safe_json
from clipcond.wording import visible

if TYPE_CHECKING:
    from PIL import Image

_FINEST = 64  # numbers of the longer side of a map
_FRAME = 860  # pixels of the page's height in a notebook


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownExplanation(Explanation):
    """An explanation that shows itself in a notebook, and writes its page and its grid of maps."""

    def to_html(self) -> str:
        """The page, which loads nothing from anywhere."""
        return explanation_page(self)

    def save_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page. Raises OutputExists when the file is there, unless `overwrite`."""
        return write_file(path, self.to_html(), overwrite=overwrite)

    def save_png(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the grid of maps. Raises OutputExists when the file is there, unless `overwrite`."""
        from clipcond.pages.map_grid import map_grid_png

        return write_file(path, map_grid_png(self), overwrite=overwrite)

    def _repr_html_(self) -> str:
        """The page in a frame of its own."""
        document = escape(self.to_html(), quote=True)
        return (
            f'<iframe srcdoc="{document}" style="width:100%;height:{_FRAME}px;border:0" title="explanation"></iframe>'
        )


def explain(
    pipe: Any,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    picture: Image.Image | None = None,
    by: By = "phrase",
    phrases: Sequence[str] | None = None,
    at: Sequence[float] = AT,
    count: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    stock: bool = False,
    through: bool | None = None,
    **reading: Any,
) -> ShownExplanation:
    """Explain what each phrase of a prompt does in the picture: a map of where, and a strength of how much.

    pipe: a text-to-image pipeline of Stable Diffusion 1, 2, XL, 3 or Flux.   picture: one that is there; None draws
    `count` from `seed`.   by: `phrase` or `word`.   phrases: your own in their place.   at: the shares of the steps that
    are looked at.   steps, guidance_scale: None is what the pipeline's folder advises.   stock: leave the prompt to the
    pipeline, which reads 75 tokens.   through: look for phrases that act only through another one.   reading: `dialect`,
    `weighting`, `clip_skip` and the other settings of a Conditioner's call, and `dead_below`.
    Costs one row of the denoiser for each phrase and step, two where a pooled vector is told apart.
    Raises ConfigError for settings that do not fit, ModelError for a pipeline that cannot be explained.
    """
    settings = ExplainSettings(
        by=by,
        phrases=None if phrases is None else tuple(phrases),
        at=tuple(at),
        count=count,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        stock=stock,
        through=through,
        **reading,
    )
    made = explain_prompt(pipe, prompt, negative_prompt, picture=picture, settings=settings)
    return ShownExplanation(**{each.name: getattr(made, each.name) for each in fields(made)})


def explanation_page(explanation: Explanation) -> str:
    """Return the HTML document. It loads nothing from anywhere."""
    template = Template(files("clipcond.pages").joinpath("templates/explain.html").read_text(encoding="utf-8"))
    at = ", ".join(map(str, explanation.at_steps))
    return template.substitute(
        title=escape(visible(" ".join(explanation.prompt.split()))[:80]),
        prompt=escape(visible(explanation.prompt)),
        cost=escape(
            f"{explanation.family}, steps {at} of {explanation.steps}, {explanation.rows} rows of the denoiser"
            + (", read by the stock pipeline" if explanation.stock else "")
        ),
        findings="".join(f"<li>{escape(visible(each.message))}</li>" for each in explanation.findings),
        findings_hidden="" if explanation.findings else "hidden",
        data=safe_json(
            {
                "ramp": RAMP,
                "phrases": [each.to_json() | {"text": visible(each.text)} for each in explanation.phrases],
                "pictures": [_picture(each) for each in explanation.pictures],
            }
        ),
    )


def _picture(picture: ExplainedPicture) -> dict[str, object]:
    """A picture with its maps as bytes, all on one scale, whose end is `most`."""
    maps = picture.maps
    if max(maps.shape[-2:]) > _FINEST:
        from torch.nn.functional import interpolate

        ratio = _FINEST / max(maps.shape[-2:])
        size = [max(1, round(side * ratio)) for side in maps.shape[-2:]]
        maps = interpolate(maps[:, None], size=size, mode="area")[:, 0]
    most = float(maps.max())
    numbers = b"".join(levels(one, most).tobytes() for one in maps)
    return {
        "src": picture_uri(picture.image),
        "seed": picture.seed,
        "width": picture.image.width,
        "height": picture.image.height,
        "rows": int(maps.shape[-2]),
        "columns": int(maps.shape[-1]),
        "most": most,
        "maps": base64.b64encode(numbers).decode(),
        "where": picture.places,
    }
