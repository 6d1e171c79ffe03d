"""`clipcond translate`: a prompt in another dialect, and a list of the losses."""

from __future__ import annotations

from typing import Annotated

import typer

from clipcond.cli.app import command
from clipcond.cli.exit_codes import CHECK_FAILED, OK
from clipcond.prompt.plan import DIALECTS
from clipcond.workflows.choices import DIALECT_ALIASES, chosen

_DIALECTS = "|".join(DIALECTS)


@command
def translate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The prompt; put `--` before one that starts with a dash.")
    ],
    target: Annotated[str, typer.Option("--to", metavar=_DIALECTS, help="The syntax to write.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar=f"{_DIALECTS}|auto", help="The syntax of the prompt; `auto` decides and says why."
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    fail_on_loss: Annotated[
        bool, typer.Option("--fail-on-loss", help="Exit with 1 when something cannot be said.")
    ] = False,
) -> None:
    """Rewrite PROMPT in another dialect.

    The same words and weights; what cannot be said there is listed.
    """
    from clipcond.cli.render import excerpt, on_terminal, print_json, stderr_console
    from clipcond.prompt.dialects.translate import translate as say
    from clipcond.wording import visible

    source = chosen("--from", source, (*DIALECTS, "auto"), DIALECT_ALIASES)
    target = chosen("--to", target, DIALECTS, DIALECT_ALIASES)
    console = stderr_console()
    spoken: str = source
    if source == "auto":
        from clipcond.prompt.dialects.detect import detect

        detection = detect(prompt)
        spoken = detection.dialect
        if not as_json:
            console.print(visible(f"from {spoken}: {detection.reason}"), soft_wrap=True)
    translation = say(prompt, spoken, target)
    lost = translation.lost
    if as_json:
        found = [
            {
                "code": one.code,
                "message": one.message,
                "start": one.start,
                "end": one.end,
                "text": prompt[one.start : one.end],
            }
            for one in lost
        ]
        print_json({"prompt": prompt, "from": spoken, "to": target, "text": translation.text, "lost": found})
    else:
        from rich.text import Text

        typer.echo(visible(translation.text) if on_terminal() else translation.text)
        for one in lost:
            line, carets = excerpt(prompt, one.start, one.end, console.width, console.encoding)
            console.print(Text.assemble((one.code, "bold yellow"), f": {visible(one.message)}"), soft_wrap=True)
            console.print(Text(line), soft_wrap=True)
            console.print(Text(carets, style="yellow"), soft_wrap=True)
    raise typer.Exit(CHECK_FAILED if fail_on_loss and lost else OK)
