"""`clipcond drift`: the change of a text encoder before it is plugged in, as the target family sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import CHECK_FAILED
from clipcond.cli.progress import progress
from clipcond.cli.render import print_json, stdout_console
from clipcond.files import write_file
from clipcond.wording import visible
from clipcond.workflows.drift import KIND_NAMES, DriftOptions, parse_limits, run

if TYPE_CHECKING:
    from clipcond.prompt.families import Family
    from clipcond.workflows.drift import DriftReport, EncoderDrift


@command
def drift(
    before: Annotated[str, typer.Option(help="A model spec, a pipeline's folder or a text encoder's.")],
    after: Annotated[
        str, typer.Option(help="The same model retrained: a run, one of both encoders too, an export, any spec.")
    ],
    target: Annotated[str, typer.Option(help="sd15, sd2, sdxl, sd3 or flux: the layer and vectors that count.")],
    encoder: Annotated[str | None, typer.Option(help="clip_l or clip_g, of a target with both.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file, one prompt a line (general ones).")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="mini or a pipeline of the target: also the change of its denoiser.")
    ] = None,
    fail_over: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Exit with 1 beyond this; may be repeated.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as a page.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure how far a text encoder has moved, and why.

    Its token states are compared where the target reads them, and what differs in the two encoders is named.
    """
    options = DriftOptions(
        before=before, after=after, target=cast("Family", target), encoder=encoder, prompts=prompts, pipeline=pipeline,
        limits=parse_limits(fail_over or []), html=html, overwrite=overwrite,
    )  # fmt: skip
    with progress() as events:
        report = run(options, events)
    if html is not None:
        from clipcond.pages.drift import drift_page

        write_file(html, drift_page(report), overwrite=overwrite)
        typer.echo(f"page: {visible(str(html))}", err=True)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    for name, (value, limit) in report.failed.items():
        typer.echo(f"{name} is {value:.4g}, beyond the limit of {limit:g}", err=True)
    if report.failed:
        raise typer.Exit(CHECK_FAILED)


def _show(report: DriftReport) -> None:
    console = stdout_console()
    for name, each in report.encoders.items():
        console.print(f"{name} of {report.target} on {report.prompts} prompts; layer read: {each.layer}")
        console.print(_table(each))
        console.print(
            f"spread of the prompts ×{each.drift.spread_ratio:.3f}, cosines between them moved by {each.drift.gram:.4f}"
        )
        for difference in each.differences:
            console.print(f"differs: {difference.name}: {visible(difference.evidence)}", soft_wrap=True)
        if not each.differences:
            console.print("no difference in weights, rows or outputs")
    for change in report.denoiser:
        scale = "" if change.text is None else f"; no words at all change it by {change.text:.2%}"
        scale += "" if change.pooled is None else f", none in the pooled vector by {change.pooled:.2%}"
        console.print(
            f"denoiser at timestep {change.timestep:g}: prediction changed by {change.change:.2%}{scale}",
            soft_wrap=True,
        )


def _table(each: EncoderDrift) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("positions")
    for name in ("number", "cosine", "least", "norm ratio"):
        table.add_column(name, justify="right")
    for kind, found in each.drift.kinds.items():
        table.add_row(
            KIND_NAMES[kind],
            str(found.positions),
            f"{found.cosine:.4f}",
            f"{found.least_cosine:.4f}",
            f"{found.norm_ratio:.3f}",
        )
    return table
