"""The explanation of a prompt or a picture: each phrase's effect, from a prompt that is drawn or a picture that is there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipcond.errors import ConfigError, ImageError, OptionsError, ResourceMissing
from clipcond.files import check_output
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.prompt_options import PromptOptions, check_folders, with_dialect

if TYPE_CHECKING:
    from PIL import Image

    from clipcond.diffusion.explain.explanation import Explanation

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
_OURS = ("phrase-dead", "phrase-cut", "acts-elsewhere", "acts-through")  # shown with the phrases, and no notes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """A prompt or a picture, the pipeline to explain it with, and the files to write.

    target: a prompt, or the name of a picture file, whose prompt is that of its metadata unless `prompt` holds one.
    by: `phrase` or `word`.   phrases: the user's own in their place.   count: of the pictures that are drawn.
    steps, guidance_scale: None is what the pipeline advises.   stock: the pipeline reads the prompt, 75 tokens of it.
    through: look for phrases that act only through another; None does so by `word`.   html, png: files to write.
    Raises OptionsError for options that contradict one another.
    """

    target: str
    prompt: PromptOptions = field(default_factory=PromptOptions)
    pipeline: str = "mini"
    by: Literal["phrase", "word"] = "phrase"
    phrases: tuple[str, ...] | None = None
    count: int = 1
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    stock: bool = False
    through: bool | None = None
    html: Path | None = None
    png: Path | None = None
    overwrite: bool = False
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str | None = None

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise OptionsError(problem)

    @property
    def picture(self) -> Path | None:
        """The picture's file, None where the target is a prompt."""
        path = Path(self.target)
        return path if path.suffix.lower() in _PICTURES and "\n" not in self.target else None


def _problem(options: ExplainOptions) -> str | None:
    """Say which options contradict one another; None when all is well."""
    if options.picture is None and options.prompt.prompt is not None:
        return "--prompt is for a PICTURE; give the prompt alone"
    if options.picture is not None and options.count > 1:
        return f"--count {options.count} is for a prompt that is drawn; leave it out with a PICTURE"
    if options.stock and (unused := options.prompt.first_given(apart_from=("negative_prompt",))):
        return f"--stock leaves the prompt to the pipeline; leave out {unused}"
    if options.prompt.is_counterfactual:
        return "--weighting counterfactual acts while a picture is drawn; it is for clipcond generate"
    if options.phrases is not None and options.by == "word":
        return "--phrases names what --by word would; leave one of them out"
    if options.phrases is not None and not options.phrases:
        return "--phrases holds none; name phrases of the prompt, with commas between them"
    if options.html is not None and options.html == options.png:
        return "--html and --png name the same file"
    return None


def run(options: ExplainOptions, events: Events = ignore) -> Explanation:
    """Explain a prompt or a picture; the files of `html` and `png` are left to the caller, and checked for here.

    Events: notes about the prompt, the loading and the explaining as tasks. Everything that is wrong with the options is
    said before a model is loaded.
    Raises ResourceMissing for a file that is not there, OutputExists for one that is, ImageError for a picture without a
    prompt, ConfigError for a phrase that the prompt has not, ModelError for a pipeline that cannot be loaded or explained.
    """
    picture = options.picture
    for file in (options.html, options.png):
        if file is not None:
            check_output(file, overwrite=options.overwrite)
    prompt, scale = _prompt_of(options, picture, events)
    _check(options, prompt)
    from clipcond.runtime.quiet import quiet_calls

    pipe = _pipeline(options, events)
    with quiet_calls():
        explanation = _explain(pipe, options, prompt, scale, _opened(picture), events)
    _note(explanation, events)
    return explanation


def _prompt_of(options: ExplainOptions, picture: Path | None, events: Events) -> tuple[PromptOptions, float | None]:
    """The prompts with their dialect decided, and the guidance; of a picture without --prompt from its metadata."""
    given, scale = options.prompt, options.guidance_scale
    if picture is None:
        return with_dialect(replace(given, prompt=options.target), events), scale
    if not picture.is_file():
        raise ResourceMissing(f"{picture}: no such file; give a picture that is there, or a prompt")
    if given.prompt is None:
        from clipcond.workflows.generate_inputs import prompt_with_infotext
        from clipcond.workflows.infotexts import drawing_settings, read_infotext, taken_apart

        try:
            infotext = read_infotext(str(picture))
        except ImageError as error:
            raise ImageError(str(error).replace("pass a prompt", "give its prompt with --prompt TEXT")) from None
        events(Note(taken_apart(infotext)))
        found = drawing_settings(infotext)
        given = prompt_with_infotext(given, infotext, found.clip_skip)
        scale = found.guidance_scale if scale is None else scale
    return with_dialect(given, events), scale


def _check(options: ExplainOptions, prompt: PromptOptions) -> None:
    """Check, without a model library, what can be checked: the pipeline's name, folders, phrases."""
    from clipcond.diffusion.explain.spans import check_asked, phrase_spans
    from clipcond.diffusion.pipeline_names import find_pipeline
    from clipcond.prompt.plan import plan

    check_folders(prompt)
    find_pipeline(options.pipeline)
    plans = [plan(text, dialect=prompt.dialect) for text in (prompt.text, prompt.negative_prompt) if text]
    if not any(phrase_spans(each) for each in plans):
        raise ConfigError("the prompt has no phrase in it; give one of some words")
    if options.phrases is not None:
        check_asked(plans, options.phrases)


def _opened(picture: Path | None) -> Image.Image | None:
    if picture is None:
        return None
    from clipcond.images.decode import open_image

    with open_image(picture) as image:
        return image.convert("RGB")


def _pipeline(options: ExplainOptions, events: Events) -> Any:
    with task(events, f"loading {options.pipeline}"):
        import torch

        from clipcond.diffusion.pipelines import load_pipeline

        dtype = getattr(torch, options.dtype)
        pipe = load_pipeline(
            options.pipeline, dtype=dtype, device=options.device, on_note=lambda text: events(Note(text))
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _explain(
    pipe: Any,
    options: ExplainOptions,
    prompt: PromptOptions,
    guidance_scale: float | None,
    picture: Image.Image | None,
    events: Events,
) -> Explanation:
    from clipcond.diffusion.explain.explain import explain_prompt
    from clipcond.diffusion.explain.settings import ExplainSettings
    from clipcond.workflows.conditioning import conditioner_for, note_unseen

    reading = {name: value for name, value in prompt.arguments.items() if name != "negative_prompt"}
    settings = ExplainSettings(
        by=options.by,
        phrases=options.phrases,
        count=options.count,
        seed=options.seed,
        steps=options.steps,
        guidance_scale=guidance_scale,
        stock=options.stock,
        through=options.through,
        **reading,
    )
    conditioner = conditioner_for(pipe, prompt, events)
    note_unseen(pipe, prompt, options.pipeline, events)
    with task(events, "explaining", None, "rows") as on_rows:
        return explain_prompt(
            pipe, prompt.text, prompt.negative_prompt, picture=picture, settings=settings, conditioner=conditioner,
            on_rows=on_rows,
        )  # fmt: skip


def _note(explanation: Explanation, events: Events) -> None:
    """Note the findings about the prompts themselves."""
    for text in dict.fromkeys(
        f"{each.argument.replace('_', ' ')}: {each.message}" for each in explanation.findings if each.code not in _OURS
    ):
        events(Note(text))
