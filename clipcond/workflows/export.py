"""A trained text encoder brought back to the programs that draw with it, each export proved before it has its name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from clipcond.errors import ModelError, OptionsError, OutputExists, ResourceMissing
from clipcond.files import refuse_to_overwrite, writing_folder
from clipcond.models.pipeline_folder import PAIR, is_pair
from clipcond.workflows.events import Events, Note, ignore, task

if TYPE_CHECKING:
    from clipcond.models.export import ReadyText
    from clipcond.models.pipeline_folder import PipelineFolder
    from clipcond.models.text_encoder import TextEncoder

Format = Literal["diffusers", "transformers", "open_clip", "comfyui", "a1111"]
Dtype = Literal["float32", "float16", "bfloat16"]
Encoder = Literal["clip_l", "clip_g", "clip_h"]
_BY_WIDTH: Mapping[int, Encoder] = {1024: "clip_h", 1280: "clip_g"}
_OTHERWISE = "name another with --out, or say --force"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """An encoder, the program that is to read it, and where to write.

    model: a training run, or any spec of a CLIP model or text encoder.   into: `mini` or a diffusers pipeline's folder, of
    which OUT becomes a copy (`diffusers`), a checkpoint of one file (`comfyui`, `a1111`).   encoder: which of the target's
    encoders; None for the only one that fits.   projection: write `text_projection`; None for what the reader expects.
    dtype: None for that of the encoder that is replaced, else float32.   force: replace an export that is at OUT.
    """

    model: str
    to: Format
    out: Path
    into: str | None = None
    encoder: Encoder | None = None
    projection: bool | None = None
    dtype: Dtype | None = None
    force: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("to", self.to, get_args(Format)),
            ("encoder", self.encoder, (None, *get_args(Encoder))),
            ("dtype", self.dtype, (None, *get_args(Dtype))),
        ):
            if value not in known:
                raise OptionsError(f"{name} is {value!r}; expected {', '.join(each for each in known if each)}")
        if self.to == "a1111" and self.into is None:
            raise OptionsError("A1111 reads the text encoder from inside a checkpoint: say --into MODEL.safetensors")
        if self.into is not None and self.to in ("transformers", "open_clip"):
            raise OptionsError(f"--into is for diffusers, comfyui and a1111; {self.to} gets a folder of its own")
        if self.to == "open_clip" and (self.encoder or self.dtype or self.projection is not None):
            raise OptionsError(
                "an open_clip folder holds both towers as they are: leave out encoder, dtype and projection"
            )
        if self.to in ("comfyui", "a1111") and self.out.suffix != ".safetensors":
            raise OptionsError(f"{self.out} is to be one file for {self.to}; name it ….safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A proved export.

    differences: of each output from the source's after reading back, in units of its largest value.   rounding: how far
    the dtype moved each of them, 0 for float32.
    """

    path: Path
    to: Format
    encoder: str
    family: str | None
    layers: int
    dtype: str
    differences: Mapping[str, float]
    rounding: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond export --json`."""
        return {
            "path": str(self.path), "to": self.to, "encoder": self.encoder, "family": self.family,
            "layers": self.layers, "dtype": self.dtype, "differences": dict(self.differences),
            "rounding": dict(self.rounding),
        }  # fmt: skip


def export(
    model: str,
    *,
    to: Format,
    out: str | Path,
    into: str | Path | None = None,
    encoder: Encoder | None = None,
    projection: bool | None = None,
    dtype: Dtype | None = None,
    force: bool = False,
) -> Exported:
    """Write a model's text encoder for another program, and read it back to prove it. The settings are `ExportOptions`'.

    Raises OptionsError, OutputExists, ModelError, ConfigError and ResourceMissing; then nothing was written.
    """
    return run(
        ExportOptions(
            model=model, to=to, out=Path(out), into=None if into is None else str(into), encoder=encoder,
            projection=projection, dtype=dtype, force=force,
        )
    )  # fmt: skip


def run(options: ExportOptions, events: Events = ignore) -> Exported:
    """Export as the options say. Raises OutputExists, ModelError, ConfigError, ResourceMissing; then nothing was written."""
    _check_out(options)
    if is_pair(options.model):
        if options.encoder is None:
            return _pair_into_pipeline(options, events)
        options = _half(options, options.encoder)
    if options.to == "open_clip":
        return _open_clip(options, events)
    from clipcond.models.text_encoder import load_text_encoder

    with task(events, f"loading {options.model}"):
        source = load_text_encoder(options.model, options.encoder)
    for note in source.notes:
        events(Note(note))
    _check_length(options, source)
    with task(events, f"writing {options.out.name}"):
        if options.to == "diffusers" and options.into is not None:
            return _into_pipeline(options, source, events)
        if options.to in ("comfyui", "a1111"):
            return _single_file(options, source, events)
        return _folder(options, source)


def _check_out(options: ExportOptions) -> None:
    out = options.out
    if not options.force:
        refuse_to_overwrite(out, _OTHERWISE)
    if not out.resolve().parent.is_dir():
        raise ResourceMissing(f"there is no folder {out.parent}; make it, or choose another name with --out")
    for name in (options.model, options.into):
        if name is not None and (source := Path(name).expanduser()).exists() and (
            out.resolve() == source.resolve() or source.resolve() in out.resolve().parents
            or out.resolve() in source.resolve().parents
        ):  # fmt: skip
            raise OutputExists(
                f"{out} is or holds, or is in, {name}, from which the export is made; name another place"
            )


def _half(options: ExportOptions, encoder: Encoder) -> ExportOptions:
    """Return the options for one encoder of a pair. Raises OptionsError for one that no pair has."""
    if encoder not in PAIR:
        raise OptionsError(f"{options.model} holds {' and '.join(PAIR)}; encoder is {encoder!r}")
    return replace(options, model=str(Path(options.model, PAIR[encoder])), encoder=encoder)


def _pair_into_pipeline(options: ExportOptions, events: Events) -> Exported:
    """Export both encoders of a pair into one copy of a pipeline, by way of one that holds the first."""
    if options.to != "diffusers" or options.into is None:
        raise OptionsError(
            f"{options.model} holds two encoders: say --to diffusers --into PIPELINE for both, or --encoder for one of them"
        )
    with tempfile.TemporaryDirectory(dir=options.out.resolve().parent, prefix=f".{options.out.name}.") as folder:
        between = Path(folder, "first")
        first = run(replace(_half(options, "clip_l"), out=between), events)
        second = run(replace(_half(options, "clip_g"), into=str(between)), events)
    return replace(
        second, encoder="both", differences=_worst(first.differences, second.differences),
        rounding=_worst(first.rounding, second.rounding),
    )  # fmt: skip


def _worst(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}


def _check_length(options: ExportOptions, source: TextEncoder) -> None:
    """Raise ModelError for more positions than the reader takes."""
    positions = source.tower.context
    if positions > 77 and (options.to in ("diffusers", "a1111") or options.into is not None):
        raise ModelError(
            f"{source.name} has {positions} positions; {options.to} pipelines take 77. ComfyUI and transformers take it "
            "as a file or folder of its own: --to comfyui or --to transformers, without --into"
        )


def _open_clip(options: ExportOptions, events: Events) -> Exported:
    from clipcond.models.export_open_clip import write_open_clip
    from clipcond.models.open_clip_folder import read_config

    with task(events, f"writing {options.out.name}"), _new_folder(options) as folder:
        differences = write_open_clip(folder, options.model)
        layers = int(read_config(folder)["model_cfg"]["text_cfg"].get("layers", 12))
    return Exported(
        path=options.out, to="open_clip", encoder="both", family=None, layers=layers, dtype="float32",
        differences=differences,
    )  # fmt: skip


def _folder(options: ExportOptions, source: TextEncoder) -> Exported:
    """A text encoder and its tokenizer: side by side for transformers, in two folders for diffusers."""
    from clipcond.models.export import make_ready, write_text_folder
    from clipcond.models.export_tokenizer import write_tokenizer

    encoder = options.encoder or _BY_WIDTH.get(source.tower.width, "clip_l")
    wanted = options.to == "transformers" or encoder == "clip_g"
    layers = None
    if options.to == "diffusers":
        layers = 23 if encoder == "clip_h" and source.tower.layers == 24 else source.pipeline_layers
    ready = make_ready(
        source, layers=layers, dtype=options.dtype or "float32",
        projection=wanted if options.projection is None else options.projection,
    )  # fmt: skip
    number = "_2" if encoder == "clip_g" else ""
    with _new_folder(options) as folder:
        places = [folder, folder]
        if options.to == "diffusers":
            places = [folder / f"text_encoder{number}", folder / f"tokenizer{number}"]
            for place in places:
                place.mkdir()
        differences = write_text_folder(places[0], ready)
        pad = "<|endoftext|>" if encoder == "clip_l" else "!"
        write_tokenizer(places[1], pad_token=pad, context=source.tower.context)
    return _exported(options, encoder, None, ready, differences)


def _into_pipeline(options: ExportOptions, source: TextEncoder, events: Events) -> Exported:
    from clipcond.models.export import make_ready
    from clipcond.models.export_pipeline import own_projection, stored_dtype, write_pipeline
    from clipcond.models.json_file import read_json
    from clipcond.models.pipeline_folder import read_pipeline_folder
    from clipcond.resources import embedded

    into = options.into or ""
    path = embedded("pipeline") if into == "mini" else Path(into).expanduser()
    if not (path / "model_index.json").is_file():
        raise ModelError(f"{into} is no diffusers pipeline: there is no model_index.json in it")
    pipeline = read_pipeline_folder(path)
    encoder = _fitting(options, source, pipeline)
    folder = pipeline.text_encoder(encoder)
    config = read_json(folder / "config.json")
    takes = "WithProjection" in str(config.get("architectures"))
    ready = make_ready(
        source, layers=int(config["num_hidden_layers"]), dtype=options.dtype or stored_dtype(folder),
        projection=takes if options.projection is None else options.projection,
        own_projection=own_projection(folder) if (pipeline.family, encoder) == ("sd3", "clip_l") else None,
    )  # fmt: skip
    if config.get("hidden_act", "quick_gelu") != ready.config["hidden_act"]:
        events(Note(
            f"the pipeline's {encoder} has {config.get('hidden_act', 'quick_gelu')} as its activation, the new one "
            f"{ready.config['hidden_act']}, which its config now says"
        ))  # fmt: skip
    with _new_folder(options) as new:
        differences = write_pipeline(new, pipeline, encoder, ready, link=into != "mini")
    return _exported(options, encoder, pipeline.family, ready, differences)


def _fitting(options: ExportOptions, source: TextEncoder, pipeline: PipelineFolder) -> str:
    """Return the encoder of a pipeline that the source can take the place of. Raises ModelError, OptionsError, ConfigError."""
    from clipcond.models.export import fits
    from clipcond.models.json_file import read_json

    names = [options.encoder] if options.encoder else list(pipeline.encoders)
    reasons = {
        name: fits(source, read_json(pipeline.text_encoder(name) / "config.json"), may_drop=pipeline.family == "sd2")
        for name in names
    }
    fitting = [name for name, reason in reasons.items() if reason is None]
    if len(fitting) > 1:
        raise OptionsError(f"{source.name} fits {' and '.join(fitting)} of {pipeline.path}; say which with --encoder")
    if not fitting:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ModelError(f"{source.name} cannot be the text encoder of {pipeline.path} ({pipeline.family}): {told}")
    return fitting[0]


def _single_file(options: ExportOptions, source: TextEncoder, events: Events) -> Exported:
    from clipcond.models.export import make_ready, write_single_file

    if options.into is not None:
        return _into_checkpoint(options, source)
    encoder = options.encoder or _BY_WIDTH.get(source.tower.width, "clip_l")
    state = source.state().get("text_projection.weight")
    square = state is not None and state.shape[0] == state.shape[1]
    if state is not None and not square and options.projection is None:
        events(Note(
            f"text_projection is {state.shape[0]}×{state.shape[1]} and ComfyUI builds a square one: it is left out, which "
            "Stable Diffusion 1, the CLIP-L of SD3 and Flux do not read"
        ))  # fmt: skip
    ready = make_ready(
        source,
        layers=source.pipeline_layers,
        dtype=options.dtype or "float32",
        projection=square if options.projection is None else options.projection,
    )
    differences = write_single_file(options.out, ready, overwrite=options.force)
    return _exported(options, encoder, None, ready, differences)


def _into_checkpoint(options: ExportOptions, source: TextEncoder) -> Exported:
    from clipcond.models.export import make_ready
    from clipcond.models.export_checkpoint import read_checkpoint_file, write_into_checkpoint

    path = Path(options.into or "").expanduser()
    if not path.is_file() or path.suffix != ".safetensors":
        raise ModelError(f"{options.into} is no checkpoint that can be copied; expected a .safetensors file")
    checkpoint = read_checkpoint_file(path)
    if options.encoder is None and len(checkpoint.encoders) > 1:
        raise OptionsError(f"{path} holds {' and '.join(checkpoint.encoders)}; say which with --encoder")
    encoder: str = options.encoder or next(iter(checkpoint.encoders))
    dtype, layers = checkpoint.dtype(encoder), checkpoint.layers(encoder)
    if options.dtype not in (None, dtype):
        raise OptionsError(f"{path} stores {encoder} as {dtype}, and a copy keeps that; leave out --dtype")
    if options.projection is not None:
        raise OptionsError("a copy of a checkpoint holds the weights that the original holds; leave out the projection")
    own_count = layers in (source.tower.layers, source.pipeline_layers)
    if not own_count and (checkpoint.family, source.tower.layers - layers) != ("sd2", 1):
        raise ModelError(f"{source.name} has {source.tower.layers} layers, the {encoder} of {path} {layers}")
    own = (checkpoint.family, encoder) == ("sd3", "clip_l")
    ready = make_ready(source, layers=layers, dtype=dtype, projection=not own)
    differences = write_into_checkpoint(
        options.out, ready, checkpoint, encoder, keep_projection=own, overwrite=options.force
    )
    return _exported(options, encoder, checkpoint.family, ready, differences)


def _new_folder(options: ExportOptions) -> AbstractContextManager[Path]:
    return writing_folder(options.out, overwrite=options.force, otherwise=_OTHERWISE)


def _exported(
    options: ExportOptions, encoder: str, family: str | None, ready: ReadyText, differences: Mapping[str, float]
) -> Exported:
    dtype = str(next(iter(ready.state.values())).dtype).removeprefix("torch.")
    return Exported(
        path=options.out, to=options.to, encoder=encoder, family=family, layers=int(ready.config["num_hidden_layers"]),
        dtype=dtype, differences=differences, rounding=ready.rounding,
    )  # fmt: skip
