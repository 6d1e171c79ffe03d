"""The settings of a training run: one frozen record, from TOML, from flags or from Python."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.errors import ConfigError
from clipcond.train.config_checks import FREEZABLE, LORA_TARGETS, check_settings
from clipcond.train.presets import with_preset

# What may change between a run and its resumption: it does not touch the weights.
RESUME_MAY_CHANGE = (
    "out",
    "threads",
    "log_every",
    "eval_every",
    "save_every",
    "keep",
    "keep_best",
    "patience",
    "log_to",
    "device",
    "cache_gib",
    "val_data",
    "max_drift",
    "grad_checkpointing",  # the same bits
    "max_bad_rows",  # what is left out decides the data, which is compared by itself
)
RENAMED = {"rate": "learning_rate"}  # old names of settings, which work for one version more


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run. Paths are relative to the working directory, those inside data files to the file.

    data, val_data: a CSV, TSV, JSONL or Parquet file, a WebDataset tar, a glob or brace pattern of tars, or a folder
        of tars or with a `metadata.csv`.
    val_count: hold out this many images of `data` instead of naming `val_data`; 0 holds out none.
    steps, epochs: one of the two; an epoch drops its last incomplete batch.
    warmup: steps of linear warm-up before the cosine; left out, a tenth of the run, 500 at the most.
    precision: `float32`; `bf16` or, on a GPU, `fp16` for products of 16 bits with float32 weights.
    grad_checkpointing: keep the inputs of the towers' blocks alone and compute the rest again in the backward pass.
    fsdp: divide the towers' blocks among the processes of `torchrun`, for models that one device cannot hold.
    compile: let torch compile the towers' blocks; the first steps take minutes, and the last bits may differ.
    freeze: `text` keeps the text trunk (embeddings, transformer, final norm) as it is while the text projection, the
        temperature and the image tower train; `image` keeps the whole image tower; `temperature` the scale of the logits.
    lora_rank: train low-rank adapters on the text tower, and the temperature, in place of weights; the image tower is
        locked. The result has them merged, and `out/lora.safetensors` is the adapter apart.
    lora_alpha: an adapter's change counts lora_alpha / lora_rank; None for the rank, which is 1.
    lora_targets: the layers of a block that have one: `attn` (query, key, value, output) and `mlp` (both).
    train_blocks: of the text trunk, train the last so many blocks and the final norm alone; adapters, on those blocks.
    layer_decay: factor of the learning rate from each block of a tower to the one below it; embeddings come last.
    lock_image: freeze the image tower, and embed every picture once: each step then takes the text tower alone.
    context_length: positions of the text tower, 134, 191 or 248, stretched from its 77 before the first step, of which the
        first 20 stay as they are; captions are then cut later. None: those of the model.
    ema: share that a moving average of the weights keeps at each step, such as 0.999; the averages are what is evaluated
        and written. None: the weights of the last step.
    alpha: the result's place between the start (0) and what was trained (1): weights (1 - alpha)·before + alpha·after.
        `auto` measures eleven places on the held-out pairs and on general prompts, and takes the one of least drift whose
        R@1 is within a point of the best. None: what was trained.
    unseen_rate: peak learning rate of token rows that are zero in the model, words that no training has ever reached,
        as in towers trained on a small vocabulary; they train even where `text` is frozen. None: as all rows.
    init: `weights` loads the model's weights; `random` starts from random ones and must be asked for by name.
    max_bad_rows: leave out so many rows of a source that will not do (no caption, no picture) before one is an error.
    contrastive: weight of the contrastive loss in the objective; 0 leaves it out.
    loss: of the contrastive kind: `infonce`, a softmax over the batch, or `siglip`, a sigmoid for each pair.
    label_smoothing: the share of InfoNCE's target that goes evenly to all candidates.
    positives: what images and captions are that belong together without being a pair (the same caption, the same group):
        `mask` leaves them out of the loss, `count` makes them positives.
    teacher: a model whose embeddings of the pairs are to be followed, or a file of such embeddings that a run stored.
    teacher_weight: weight of that loss in the objective.
    chunk_size: rows of the similarity matrix that the loss holds at a time; None chooses by the batch.
    random_crop: the smallest share of a picture's area that a random part of it has, in which it is shown; 1 for none.
    colour_jitter: by how much brightness, contrast and saturation of a picture change at the most; 0 for none.
    random_turn: by how many degrees a picture is turned at the most; 0 for none.
    random_grey: the share of pictures that are shown without colour.
    grad_cache: pairs that are encoded at once, where the whole batch would not fit into memory: gradients stay those of
        the whole batch, at the cost of a second forward pass.
    denoise_weight: weight of the loss of a frozen denoiser that reads the captions' states; it needs `pipeline`.
    pipeline: the pipeline of that denoiser: `mini`, a diffusers folder or a hub id of Stable Diffusion 1 or 2.
    denoise_batch: pairs of each batch that it is computed on.
    target: the family and encoder that the text tower is for: it says which layer, which pooled vector and which
        padding count. With it the drift on general prompts is measured at each evaluation, trained on or not.
    retention: weight of the loss that holds what the target reads of general prompts to what it was; 0 leaves it out.
    retention_prompts: a file of such prompts, one a line, of which no picture is needed; None for those that ship.
    retention_weights: `NAME=VALUE` of its parts, 1 where not named: bos, words, eos, padding, empty, gram, pooled.
    retention_batch: prompts a step, the empty one apart.
    max_drift: the run ends when, at an evaluation, 1 - cosine of the words (of the pooled vector, where the target reads
        that alone) is beyond it, or the prompts have moved together by that share.
    keep_best: write the model of the evaluation with the highest score, R@1 on the held-out pairs times what general
        prompts kept, in place of the last step's.
    patience: end the run after so many evaluations without a higher score.
    log_to: dashboards that watch the run beside `log.jsonl`: `tensorboard`, `wandb`.
    captions: which of several captions an image trains with: a `random` one each time, or the `first`.
    """

    data: str
    model: str
    out: str
    val_data: str | None = None
    val_count: int = 0
    max_bad_rows: int = 0
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 256
    learning_rate: float = 1e-5
    weight_decay: float = 0.1
    warmup: int | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    grad_clip: float = 1.0
    seed: int = 0
    precision: str = "float32"
    grad_checkpointing: bool = False
    compile: bool = False
    fsdp: bool = False
    freeze: tuple[str, ...] = ()
    train_blocks: int | None = None
    layer_decay: float = 1.0
    lock_image: bool = False
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] = LORA_TARGETS
    context_length: int | None = None
    ema: float | None = None
    alpha: str | None = None
    unseen_rate: float | None = None
    init: str = "weights"
    captions: str = "random"
    contrastive: float = 1.0
    loss: str = "infonce"
    label_smoothing: float = 0.0
    positives: str = "mask"
    teacher: str | None = None
    teacher_weight: float = 1.0
    chunk_size: int | None = None
    grad_cache: int | None = None
    random_crop: float = 1.0
    colour_jitter: float = 0.0
    random_turn: float = 0.0
    random_grey: float = 0.0
    denoise_weight: float = 0.0
    pipeline: str | None = None
    denoise_batch: int = 32
    target: str | None = None
    retention: float = 0.0
    retention_prompts: str | None = None
    retention_weights: tuple[str, ...] = ()
    retention_batch: int = 32
    max_drift: float = 0.5
    device: str = "auto"
    threads: int | None = None
    cache_gib: float = 4.0
    log_every: int = 50
    eval_every: int = 500
    save_every: int = 500
    keep: int = 2
    keep_best: bool = False
    patience: int | None = None
    log_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def measures_best(self) -> bool:
        """True where measurements are held against the best one."""
        return self.keep_best or self.patience is not None

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts that stay as they are, of `freeze` and `lock_image`; beside an adapter the image tower does, too."""
        locked = self.lock_image or self.lora_rank is not None
        return tuple(part for part in FREEZABLE if part in self.freeze or (part == "image" and locked))

    @property
    def rate(self) -> float:
        """The old name of `learning_rate`."""
        _warn_of("rate")
        return self.learning_rate

    def to_dict(self) -> dict[str, Any]:
        """Return the complete record, JSON-able."""
        record = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}


def _taking_old_names(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def __init__(self: TrainConfig, **settings: Any) -> None:
        for old in RENAMED.keys() & settings.keys():
            _warn_of(old)
            settings[RENAMED[old]] = settings.pop(old)  # wins: dataclasses.replace gives both
        init(self, **settings)

    return __init__


TrainConfig.__init__ = _taking_old_names(TrainConfig.__init__)  # type: ignore[method-assign]


def _warn_of(old: str) -> None:
    text = f"the setting {old} is now {RENAMED[old]}; the old name goes with the next version"
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def renamed(given: Mapping[str, Any], *, source: str | None = None) -> dict[str, Any]:
    """Return settings under their names of today.

    source: where they stand; with it an old name is a DeprecationWarning, and both names at once a ConfigError.
    """
    settings = dict(given)
    for old in RENAMED.keys() & settings.keys():
        value = settings.pop(old)
        if source is not None:
            _warn_of(old)
            if RENAMED[old] in settings:
                raise ConfigError(f"{old} and {RENAMED[old]} are both given in {source}; {RENAMED[old]} is the name")
        settings.setdefault(RENAMED[old], value)
    return settings


def from_mapping(given: Mapping[str, Any], *, source: str = "the settings") -> TrainConfig:
    """Build the config from names and values; lists become tuples, a `preset` the settings that it stands for.

    Raises ConfigError for an unknown name (naming the nearest), a missing or wrongly typed one, or one out of range.
    """
    given = with_preset(renamed(given, source=source))
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for name in given:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(fields)}"
            raise ConfigError(f"unknown setting {name!r} in {source}{hint}")
    missing = [name for name in ("data", "model", "out") if not given.get(name)]
    if missing:
        raise ConfigError(f"{source} must name {' and '.join(missing)}")
    values = {name: _typed(name, str(fields[name].type), value, source) for name, value in given.items()}
    return TrainConfig(**values)


def from_toml(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a flat TOML file; `overrides` (command-line flags) win. Raises ConfigError."""
    return from_mapping(read_settings(path, overrides), source=str(path))


def read_settings(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a flat TOML file under their names of today; `overrides` win. Raises ConfigError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover
        import tomli as tomllib
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; expected a TOML file of training settings") from None
    except ValueError as error:  # also of bytes that are no UTF-8, and of numbers of thousands of digits
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is not TOML of settings: it is nested too deeply") from None
    return {**renamed(given, source=str(path)), **renamed(overrides or {}, source="the command line")}


def _typed(name: str, kind: str, value: Any, source: str) -> Any:
    """Return the value in its field's type: whole numbers pass for floats, lists for tuples, nothing else is converted."""
    if value is None and "None" in kind:
        return None
    base = kind.replace(" | None", "")
    if base.startswith("tuple"):
        if name in ("freeze", "retention_weights", "lora_targets", "log_to") and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if isinstance(value, (list, tuple)):
            return tuple(value)
    elif base == "bool" and isinstance(value, bool):
        return value
    elif base == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif base == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif base == "str" and (isinstance(value, (str, Path)) or (name == "alpha" and type(value) in (int, float))):
        return str(value)
    raise ConfigError(f"{name} is {value!r} in {source}, expected {base}")
