"""`clipcond train`: retrain a dual encoder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import INTERRUPTED
from clipcond.cli.render import print_json
from clipcond.cli.report import write_report
from clipcond.cli.train_check import check_data
from clipcond.cli.train_lines import training_lines
from clipcond.cli.train_pair import show_pair
from clipcond.cli.train_plan import show_plan
from clipcond.errors import OptionsError
from clipcond.wording import visible
from clipcond.workflows import train_pair
from clipcond.workflows.preflight import SAMPLE, PreflightOptions
from clipcond.workflows.train import TrainOptions, run
from clipcond.workflows.train_plan import PlanOptions

if TYPE_CHECKING:
    from clipcond.train.loop import TrainResult

_INSTEAD = ("check", "decode", "plan", "gpus", "gpu_memory", "images")  # of a look before a run
_OWN = (
    "config",
    "config_file",
    "allow_changes",
    "as_json",
    *_INSTEAD,
)  # parameters of the command that are no settings of a run


@command
def train(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="A TOML file of settings; flags win over it.")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="The same, as an option.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="CSV, TSV, JSONL, Parquet, WebDataset tars, a folder of pictures with texts."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings to start from: small, medium or scratch.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Look at data and settings, say what would go wrong, and train nothing.")
    ] = False,
    decode: Annotated[
        str | None, typer.Option(metavar="N", help="Pictures that --check decodes: all, none, or so many (500).")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what memory and how many steps it takes, and train nothing.")
    ] = False,
    gpus: Annotated[int | None, typer.Option(metavar="N", help="GPUs that --plan divides the batch among.")] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(metavar="GIB", help="Memory of each; --plan says what fits, and exits with 1 if not."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Pictures, where --plan has no --data to count.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="TEXT", help="mini, or an open_clip folder.")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The run's folder; an unfinished run in it goes on.")
    ] = None,
    val_data: Annotated[str | None, typer.Option(metavar="TEXT", help="Held-out pairs for retrieval.")] = None,
    val_count: Annotated[
        int | None, typer.Option(metavar="N", help="Hold out this many images of --data instead.")
    ] = None,
    max_bad_rows: Annotated[
        int | None, typer.Option(metavar="N", help="Leave out so many rows that will not do (0).")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Length of the run in steps.")] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="X", help="Length of the run in passes over the data (5).")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Pairs a step (256).")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="Peak learning rate (1e-5).")] = None,
    rate: Annotated[float | None, typer.Option(hidden=True)] = None,
    weight_decay: Annotated[float | None, typer.Option(metavar="X", help="Decay of weight matrices (0.1).")] = None,
    warmup: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of linear warm-up (a tenth, 500 at the most).")
    ] = None,
    grad_clip: Annotated[float | None, typer.Option(metavar="X", help="Largest norm of a gradient (1.0).")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Decides order, captions and random weights (0).")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="TEXT", help="float32, bf16, or fp16 on a GPU.")] = None,
    grad_checkpointing: Annotated[
        bool, typer.Option("--grad-checkpointing", help="Compute blocks again in the backward pass, for less memory.")
    ] = False,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Divide the towers' blocks among torchrun's processes.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Let torch compile the towers' blocks.")] = False,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="text, image or temperature; repeatable.")
    ] = None,
    train_blocks: Annotated[
        int | None, typer.Option(metavar="N", help="Of the text trunk, train the last N blocks alone.")
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(metavar="X", help="Factor of the learning rate from each block to the one below (1)."),
    ] = None,
    lock_image: Annotated[
        bool | None,
        typer.Option("--lock-image/--no-lock-image", help="Freeze the image tower; embed every picture once."),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(metavar="N", help="Train adapters of this rank on the text tower, and nothing else.")
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(metavar="X", help="Their change counts X / rank (the rank).")
    ] = None,
    lora_targets: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Layers that have one: attn, mlp or attn,mlp (both).")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(metavar="N", help="Stretch the text tower's 77 positions to 134, 191 or 248.")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(metavar="X", help="Evaluate and write a moving average of the weights, such as 0.999."),
    ] = None,
    alpha: Annotated[
        str | None, typer.Option(metavar="X", help="Mix with the weights from before: 0 to 1, or auto to sweep.")
    ] = None,
    unseen_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Learning rate of token rows that are zero in the model.")
    ] = None,
    init: Annotated[str | None, typer.Option(metavar="TEXT", help="weights, or random to start from nothing.")] = None,
    captions: Annotated[str | None, typer.Option(metavar="TEXT", help="Of several captions: random or first.")] = None,
    contrastive: Annotated[float | None, typer.Option(metavar="X", help="Weight of the contrastive loss (1).")] = None,
    loss: Annotated[str | None, typer.Option(metavar="TEXT", help="Contrastive loss: infonce or siglip.")] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(metavar="X", help="Share of infonce's target that goes to all candidates (0).")
    ] = None,
    positives: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Pairs of one caption or group: mask (left out) or count.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A model to learn from, or its stored embeddings (.safetensors).")
    ] = None,
    teacher_weight: Annotated[float | None, typer.Option(metavar="X", help="Weight of the teacher (1).")] = None,
    chunk_size: Annotated[
        int | None, typer.Option(metavar="N", help="Rows of similarities in memory at a time (by the batch).")
    ] = None,
    random_crop: Annotated[
        float | None, typer.Option(metavar="X", help="Show random parts of at least this share of a picture (1).")
    ] = None,
    colour_jitter: Annotated[
        float | None, typer.Option(metavar="X", help="Change brightness, contrast, saturation by up to this (0).")
    ] = None,
    random_turn: Annotated[
        float | None, typer.Option(metavar="DEGREES", help="Turn a picture by up to so many degrees (0).")
    ] = None,
    random_grey: Annotated[
        float | None, typer.Option(metavar="X", help="Show this share of the pictures without colour (0).")
    ] = None,
    grad_cache: Annotated[
        int | None, typer.Option(metavar="N", help="Pairs encoded at once; the gradients are the whole batch's.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(metavar="DIR", help="Pipeline whose frozen denoiser is a loss: mini, a folder.")
    ] = None,
    denoise_weight: Annotated[float | None, typer.Option(metavar="X", help="Weight of the denoising loss (0).")] = None,
    denoise_batch: Annotated[int | None, typer.Option(metavar="N", help="Pairs a step for it (32).")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="What it will drive: sd15, sd2, sdxl-l, sdxl-g, sd3-l, sd3-g, flux; or sdxl, sd3."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Of target sdxl or sd3: text_encoder, text_encoder_2 or both."),
    ] = None,
    model_2: Annotated[
        str | None, typer.Option("--model-2", metavar="TEXT", help="With both, the model of text_encoder_2.")
    ] = None,
    retention: Annotated[
        float | None, typer.Option(metavar="X", help="Weight of holding what the target reads of general prompts (0).")
    ] = None,
    retention_prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="General prompts, one a line, instead of those that ship.")
    ] = None,
    retention_weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=X", help="Weight of a part: words, bos, eos, padding, empty, gram, pooled."),
    ] = None,
    retention_batch: Annotated[int | None, typer.Option(metavar="N", help="General prompts a step (32).")] = None,
    max_drift: Annotated[
        float | None, typer.Option(metavar="X", help="Drift of general prompts at which the run ends (0.5).")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="TEXT", help="auto, cpu, cuda, …")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")] = None,
    cache_gib: Annotated[
        float | None, typer.Option(metavar="X", help="Keep decoded pictures in memory up to this size (4).")
    ] = None,
    log_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between log lines (50).")] = None,
    eval_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between evaluations (500).")] = None,
    save_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between checkpoints (500).")] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="Checkpoints to keep (2).")] = None,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="Write the model of the best evaluation: recall and what prompts kept.")
    ] = False,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="End after N evaluations without a better score.")
    ] = None,
    log_to: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also show the run in tensorboard or wandb.")
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume although settings or data differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a dual encoder on image-caption pairs.

    The same command goes on with an interrupted run where it stopped. --check looks at the data first, --plan at memory
    and steps; --preset gives settings to start from.
    """
    if config is not None and config_file is not None:
        raise OptionsError(f"{config} and --config {config_file} are both files of settings; give one of the two")
    config = config or config_file
    settings = _settings(context)
    _refuse_alone(context, check=check, plan=plan)
    if check:
        check_data(PreflightOptions(config=config, settings=settings, decode=decode or str(SAMPLE)), as_json=as_json)
        return
    if plan:
        show_plan(
            PlanOptions(config=config, settings=settings, gpus=gpus, gpu_memory=gpu_memory, images=images),
            as_json=as_json,
        )
        return
    options = TrainOptions(config=config, settings=settings, allow_changes=allow_changes)
    with training_lines() as events:
        if train_pair.is_pair(options):
            show_pair(train_pair.run(options, events), as_json=as_json)
            return
        result = run(options, events)
    if result.rank == 0:
        if result.model is not None:
            write_report(result.model.parent)
        _show(result, as_json=as_json)
    if result.interrupted:
        kept = f" with what is stored ({result.kept})" if result.kept else ""
        typer.echo(f"stopped at step {result.steps}{kept}; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED)


def _refuse_alone(context: typer.Context, *, check: bool, plan: bool) -> None:
    """Raise OptionsError for --check with --plan, and for options of one of them without it."""
    if check and plan:
        raise OptionsError("--check and --plan are two things; give one of the two")
    given = [name for name in ("gpus", "gpu_memory", "images") if context.params[name] is not None]
    if given and not plan:
        raise OptionsError(f"--{given[0].replace('_', '-')} is of --plan, which is not given")
    if context.params["decode"] is not None and not check:
        raise OptionsError("--decode is of --check, which is not given")


def _settings(context: typer.Context) -> dict[str, object]:
    """Return the settings that were given: all options but the command's own."""
    options = {name: value for name, value in context.params.items() if name not in _OWN}
    return {name: value for name, value in options.items() if value is not None and value != []}


def _show(result: TrainResult, *, as_json: bool) -> None:
    """Print the result as JSON, or the folder of the model."""
    if as_json:
        print_json({
            "steps": result.steps, "loss": result.loss,
            "retrieval": result.retrieval.to_dict() if result.retrieval else None,
            "model": str(result.model) if result.model else None, "interrupted": result.interrupted,
        })  # fmt: skip
    elif result.model:
        typer.echo(str(result.model))
        if sys.stderr.isatty():
            run = visible(shlex.quote(str(result.model.parent)))
            for what, command_line in (
                ("how it went", f"report {run} writes {run}/report.html anew"),
                ("what it knows", f"evaluate --model {run} --data PAIRS.csv"),
                ("into a pipeline", f"export {run} --to diffusers --into PIPELINE --out FOLDER"),
            ):
                typer.echo(f"{what:17}clipcond {command_line}", err=True)
