"""The drift of a text encoder as one target family sees it, and the differences of the two encoders by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from clipcond.errors import ConfigError, ModelError, OptionsError
from clipcond.files import check_output
from clipcond.models.pipeline_folder import is_pair
from clipcond.prompt.families import FAMILIES, Family
from clipcond.prompt.general import read_prompts
from clipcond.prompt.tokenizer import CONTEXT
from clipcond.workflows.events import Events, Note, ignore, task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clipcond.diffusion.denoiser_change import DenoiserChange
    from clipcond.models.clinic import Difference
    from clipcond.models.text_encoder import TextEncoder
    from clipcond.score.drift import Drift
    from clipcond.score.drift_detail import DriftDetail

DENOISER = "denoiser"
KIND_NAMES: Mapping[str, str] = {
    "bos": "BOS", "words": "words", "eos": "EOS", "padding": "padding", "empty": 'the empty prompt ""',
    "pooled": "pooled vector",
}  # fmt: skip
MEASURES = (*KIND_NAMES, *(f"{kind}_norm" for kind in KIND_NAMES), "spread", "gram", DENOISER)
_PICTURES = 4  # prompts that the denoiser is tried on


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftOptions:
    """Two encoders and the family whose layer of them counts.

    before, after: any spec of a CLIP model or text encoder.   encoder: of a family with two; None for both where before
    and after each hold both, as a pipeline or a run of `--encoder both` does, else for the first.   prompts: a file, one a
    line; None for general ones that ship.   pipeline: `mini` or a diffusers pipeline, whose denoiser is tried with both.
    limits: measures by name, each 0 for equal encoders; beyond one the report has failed.   html: a page that will be
    written.   overwrite: in place of one.
    """

    before: str
    after: str
    target: Family
    encoder: str | None = None
    prompts: Path | None = None
    pipeline: str | None = None
    limits: Mapping[str, float]
    html: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.target not in get_args(Family):
            raise OptionsError(f"target is {self.target!r}; expected {', '.join(get_args(Family))}")
        if self.encoder is not None and self.encoder not in _clip_encoders(self.target):
            raise OptionsError(
                f"{self.target} has no {self.encoder}; expected {' or '.join(_clip_encoders(self.target))}"
            )
        unknown = [name for name in self.limits if name not in MEASURES]
        if unknown:
            raise OptionsError(f"there is no measure {unknown[0]!r}; expected one of {', '.join(MEASURES)}")
        if DENOISER in self.limits and self.pipeline is None:
            raise OptionsError("a limit for denoiser needs a pipeline to try: say --pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDrift:
    """Drift of one encoder.

    differences: by name, with their evidence; none for equal encoders.   detail: place by place and, in the order of
    `texts`, prompt by prompt.   texts: the prompts with the texts of their tokens.
    """

    drift: Drift
    layer: str
    differences: tuple[Difference, ...]
    detail: DriftDetail
    texts: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """Drift of all encoders that were compared, by name. failed: measures beyond their limits, as (value, limit).

    limits: all that were given.
    """

    before: str
    after: str
    target: str
    prompts: int
    encoders: Mapping[str, EncoderDrift]
    denoiser: tuple[DenoiserChange, ...]
    failed: Mapping[str, tuple[float, float]]
    limits: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond drift --json`."""
        return {
            "target": self.target,
            "prompts": self.prompts,
            "encoders": {
                name: {
                    "layer": each.layer,
                    "positions": {kind: found.to_json() for kind, found in each.drift.kinds.items()},
                    "spread_ratio": each.drift.spread_ratio,
                    "gram": each.drift.gram,
                    "measures": each.drift.measures(),
                    "differences": [{"name": d.name, "evidence": d.evidence} for d in each.differences],
                }
                for name, each in self.encoders.items()
            },
            "denoiser": [
                {"timestep": each.timestep, "change": each.change, "text": each.text, "pooled": each.pooled}
                for each in self.denoiser
            ],
            "failed": {name: {"value": value, "limit": limit} for name, (value, limit) in self.failed.items()},
        }


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """Read `NAME=VALUE` limits. Raises OptionsError for one that is not of this form or below 0."""
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            limits[name.strip()] = float(value)
        except ValueError:
            raise OptionsError(f"{text!r} is no limit; expected NAME=VALUE, such as words=0.05") from None
        if not limits[name.strip()] >= 0:
            raise OptionsError(f"{text!r} is below 0, which every measure would be beyond; expected 0 or more")
    return limits


def run(options: DriftOptions, events: Events = ignore) -> DriftReport:
    """Measure. Raises ModelError for encoders of different widths, DataError for a file of prompts that will not do,
    OutputExists and ResourceMissing, before the work, for a page that cannot be written."""
    if options.html is not None:
        check_output(options.html, "name another with --html, or say --overwrite", overwrite=options.overwrite)
    prompts = read_prompts(options.prompts)
    encoders: dict[str, EncoderDrift] = {}
    changes: tuple[DenoiserChange, ...] = ()
    for name in _wanted(options):
        with task(events, f"comparing {name}"):
            pair = [_load(spec, name, events) for spec in (options.before, options.after)]
            encoders[name] = _compare(options, name, pair, prompts, events)
        if options.pipeline is not None:
            with task(events, "trying the denoiser"):
                tried = _denoiser(options, name, pair, prompts)
            changes = tried if not changes or _most(tried) > _most(changes) else changes
    return DriftReport(
        before=options.before, after=options.after, target=options.target, prompts=len(prompts), encoders=encoders,
        denoiser=changes, failed=_failed(options.limits, encoders, changes), limits=options.limits,
    )  # fmt: skip


def _clip_encoders(target: str) -> tuple[str, ...]:
    return tuple(name for name in FAMILIES[target] if name != "t5")


def _wanted(options: DriftOptions) -> tuple[str, ...]:
    """The encoders to compare."""
    known = _clip_encoders(options.target)
    if options.encoder is not None:
        return (options.encoder,)
    return known if all(map(_has_both, (options.before, options.after))) else known[:1]


def _has_both(spec: str) -> bool:
    """True for a pipeline's folder, and that of a run which trained both of its encoders."""
    path = Path(spec).expanduser()
    return (path / "model_index.json").is_file() or is_pair(path)


def _load(spec: str, name: str, events: Events) -> TextEncoder:
    from clipcond.models.text_encoder import load_text_encoder

    loaded = load_text_encoder(spec, name)
    for note in loaded.notes:
        events(Note(note))
    return loaded


def _compare(
    options: DriftOptions, name: str, pair: Sequence[TextEncoder], prompts: Sequence[str], events: Events
) -> EncoderDrift:
    from clipcond.models.clinic import differences
    from clipcond.models.clinic_encoder import clinic_encoder
    from clipcond.score.drift import measure_drift
    from clipcond.score.drift_detail import drift_detail

    if pair[0].tower.width != pair[1].tower.width:
        raise ModelError(
            f"{options.before} gives states of width {pair[0].tower.width}, {options.after} of {pair[1].tower.width}: "
            "they are no encoders of one pipeline, and no cosine compares them"
        )
    length = min(CONTEXT, *(each.tower.context for each in pair))
    rows, ends, cut = _rows(prompts, FAMILIES[options.target][name].pad_id, length)
    if length < CONTEXT:
        short = next(each for each in pair if each.tower.context == length)
        events(Note(f"{short.name} has {length} positions and no place in a pipeline, which reads {CONTEXT}"))
    if cut:
        events(Note(f"{cut} of {len(prompts)} prompts are cut at {length - 2} tokens, as a stock pipeline cuts them"))
    outputs = [_states(options.target, name, each, rows, pair) for each in pair]
    (before, before_pooled, layer), (after, after_pooled, _) = outputs
    pooled = None if before_pooled is None or after_pooled is None else (before_pooled, after_pooled)
    pad = FAMILIES[options.target][name].pad_id
    tokenizers = [_tokenizer(spec, name) for spec in (options.before, options.after)]
    if None in tokenizers:  # an encoder without a tokenizer is read as the target's
        tokenizers = [None, None]
    seen = [
        clinic_encoder(each, tokenizer=tokenizer, pad_id=pad) for each, tokenizer in zip(pair, tokenizers, strict=True)
    ]
    return EncoderDrift(
        drift=measure_drift(before, after, ends, pooled=pooled), layer=layer, differences=differences(*seen),
        detail=drift_detail(before, after, ends, pooled=pooled), texts=_texts(prompts),
    )  # fmt: skip


def _rows(prompts: Sequence[str], pad_id: int, length: int) -> tuple[Tensor, Tensor, int]:
    """(N, length) ids with the empty prompt first, the places of EOS (N), and the number of prompts that were cut."""
    import torch

    from clipcond.models.clinic import rows_of
    from clipcond.prompt.tokenizer import EOS, batch_ids

    texts = ["", *(text for text in prompts if text)]
    rows = rows_of(texts, pad_id=pad_id, length=length)
    cut = sum(len(ids) > length - 2 for ids in batch_ids(texts))
    return rows, (rows == EOS).to(torch.int).argmax(dim=1), cut


def _texts(prompts: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The texts of `_rows` with those of their tokens, cut where rows are."""
    from clipcond.prompt.tokenizer import CONTENT, tokenize

    texts = ["", *(text for text in prompts if text)]
    return tuple((text, tuple(token.text for token in tokenize(text)[:CONTENT])) for text in texts)


def _states(
    target: str, name: str, encoder: TextEncoder, rows: Tensor, pair: Sequence[TextEncoder]
) -> tuple[Tensor | None, Tensor | None, str]:
    """The states and the pooled vectors that the target reads of an encoder, None where it reads none; the layer in words."""
    from clipcond.condition.targets import reading

    fewest = min(each.tower.layers for each in pair)
    own = encoder.tower.layers
    if encoder.pipeline_layers is not None:
        read = reading(target, name, layers=own, pipeline_layers=encoder.pipeline_layers)
        skip = read.skip
    else:
        read = reading(target, name, layers=fewest)
        skip = read.skip + (own - fewest if target == "sd2" else 0)  # whose pipelines hold 23 of the 24 layers
    norm = read.final_norm
    out = encoder.tower.encode(rows, clip_skip=skip, final_norm=norm)
    pooled = getattr(out, read.pooled) if read.pooled else None
    if read.pooled and pooled is None:
        raise ModelError(f"{encoder.name} has no text_projection, whose vector {target} reads of {name}")
    states = f"hidden_states[-{skip + 1}]" + (" with the final norm" if norm else "")
    words = states if read.states else "none, the pooled vector alone"
    return (out.hidden if read.states else None), pooled, words


def _tokenizer(spec: str, name: str) -> Path | None:
    """The folder of the tokenizer that lies beside an encoder, None where there is none."""
    path = Path(spec.removeprefix("hf:")).expanduser()
    number = "_2" if name == "clip_g" else ""
    places = (path / f"tokenizer{number}", path, path.parent / path.name.replace("text_encoder", "tokenizer"))
    return next((each for each in places if (each / "tokenizer_config.json").is_file()), None)


def _denoiser(
    options: DriftOptions, name: str, pair: Sequence[TextEncoder], prompts: Sequence[str]
) -> tuple[DenoiserChange, ...]:
    from clipcond.diffusion.denoiser_change import denoiser_changes
    from clipcond.diffusion.pipeline_view import view_pipeline
    from clipcond.diffusion.pipelines import load_pipeline

    pipe = load_pipeline(options.pipeline or "", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    view = view_pipeline(pipe)
    if view.family != options.target:
        raise ConfigError(
            f"{options.pipeline} is {view.family}, the target {options.target}; name a pipeline of the target"
        )
    own = view.encoders[name]
    modules = [_in_place_of(own.module, each) for each in pair]
    return denoiser_changes(
        pipe, ["", *prompts[: _PICTURES - 1]], part=own.slot.module, before=modules[0], after=modules[1]
    )


def _in_place_of(own: Any, encoder: TextEncoder) -> nn.Module:
    """An encoder as a module of the class that a pipeline has in its place. Raises ModelError if it does not fit."""
    from clipcond.models.export import fits
    from clipcond.models.export_layouts import PROJECTION, layer_count, without_last_layers
    from clipcond.models.text_encoder import build_text_model

    config = own.config.to_dict()
    state = encoder.state()
    extra = layer_count(state) - int(config["num_hidden_layers"])
    if reason := fits(encoder, config, may_drop=extra == 1):
        raise ModelError(f"{encoder.name} cannot be the pipeline's text encoder: {reason}")
    state = without_last_layers(state, extra)
    if type(own).__name__ == "CLIPTextModel":
        state.pop(PROJECTION, None)
    return build_text_model(encoder.name, {**config, "hidden_act": encoder.config["hidden_act"]}, state)


def _most(changes: Sequence[DenoiserChange]) -> float:
    return max((each.change for each in changes), default=0.0)


def _failed(
    limits: Mapping[str, float], encoders: Mapping[str, EncoderDrift], changes: Sequence[DenoiserChange]
) -> dict[str, tuple[float, float]]:
    """The measures beyond their limits, of several encoders the worst. Raises OptionsError for one that was not taken."""
    failed = {}
    for name, limit in limits.items():
        values = [each.drift.measures()[name] for each in encoders.values() if name in each.drift.measures()]
        values += [_most(changes)] if name == DENOISER else []
        if not values:
            known = sorted({measure for each in encoders.values() for measure in each.drift.measures()})
            raise OptionsError(f"the target reads no {name}; its measures are {', '.join(known)}")
        if not max(values) <= limit:
            failed[name] = (max(values), limit)
    return failed
