"""The options that say how a prompt is read and conditioned, as `encode` and `generate` share them.

Each alias is an option's declaration; `PromptOptions` is what was chosen. Only names and paths here: neither torch nor a model
library is needed to show the help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clipcond.prompt.plan import CHUNKINGS
from clipcond.prompt.plan import Dialect as _Dialect

AUTO, PLAIN = "auto", "plain"
_READING, _PARTS = "Reading and weighting", "Prompts of the other encoders, and adapters"

NegativePrompt = Annotated[
    str | None, typer.Option("--negative-prompt", help="What to steer away from.", show_default=False)
]
Dialect = Annotated[
    Literal[_Dialect, "auto"],
    typer.Option(help="The syntax of the prompts; auto decides and says why.", rich_help_panel=_READING),
]
Weighting = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="none, a1111, no_norm, comfy, comfy_pp, compel, sd_embed; +length_norm and +mean_norm behind it. "
        "The default is the dialect's own.",
        show_default=False,
        rich_help_panel=_READING,
    ),
]
Chunking = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help=f"Where a long prompt is cut: {', '.join(CHUNKINGS)}. The default is the dialect's own.",
        show_default=False,
        rich_help_panel=_READING,
    ),
]
ClipSkip = Annotated[
    int,
    typer.Option(
        min=0, help="0: the layer that the family uses, 1: the one before, both sides.", rich_help_panel=_READING
    ),
]
Pooled = Annotated[
    Literal["first", "last", "mean", "weighted"],
    typer.Option(help="Which chunk's pooled vector a long prompt has (SDXL, SD3, Flux).", rich_help_panel=_READING),
]
Lengths = Annotated[
    Literal["lcm", "mask", "pad_empty"] | None,
    typer.Option(
        help="How prompt and negative prompt get one length; repetition (lcm) is exact.",
        show_default=False,
        rich_help_panel=_READING,
    ),
]
Prompt2 = Annotated[
    str | None,
    typer.Option(
        "--prompt-2", help="For the second encoder (SDXL, SD3, Flux).", show_default=False, rich_help_panel=_PARTS
    ),
]
Prompt3 = Annotated[
    str | None,
    typer.Option("--prompt-3", help="For the third encoder (SD3).", show_default=False, rich_help_panel=_PARTS),
]
Embeddings = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder of textual inversions, by their names in the prompt.",
        show_default=False,
        rich_help_panel=_PARTS,
    ),
]
LoraDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder of LoRAs, loaded where the prompt says <lora:name:0.8>.",
        show_default=False,
        rich_help_panel=_PARTS,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """What the options say about one prompt; None is a default that the dialect or the family has."""

    prompt: str
    negative_prompt: str | None = None
    prompt_2: str | None = None
    prompt_3: str | None = None
    dialect: str = PLAIN
    weighting: str | None = None
    chunking: str | None = None
    clip_skip: int = 0
    pooled: str = "first"
    lengths: str | None = None
    embeddings: Path | None = None
    lora_dir: Path | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that were given."""
        given = (self.prompt, self.negative_prompt, self.prompt_2, self.prompt_3)
        return tuple(text for text in given if text is not None)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of a Conditioner's call; `auto` must be decided by then."""
        apart = ("prompt", "embeddings", "lora_dir")
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in apart}

    def given(self, *, beside: Sequence[str] = ()) -> str | None:
        """An option that was given, other than those named; None when all are as they were."""
        for each in fields(self):
            if each.name not in ("prompt", *beside) and getattr(self, each.name) != each.default:
                return "--" + each.name.replace("_", "-")
        return None

    def checked(self) -> PromptOptions:
        """With the dialect decided, which is said on stderr. Raises typer.BadParameter for names that do not exist."""
        if self.chunking not in {None, *CHUNKINGS}:
            raise typer.BadParameter(f"--chunking {self.chunking} does not exist; there are {', '.join(CHUNKINGS)}")
        if self.weighting is not None:
            from clipcond.condition.weighting import parse_method
            from clipcond.errors import ConfigError

            try:
                parse_method(self.weighting)
            except ConfigError as error:
                raise typer.BadParameter(f"--weighting: {error}") from None
        if self.dialect != AUTO:
            return self
        from clipcond.prompt.dialects.detect import detect
        from clipcond.wording import visible

        found = detect(self.prompt)
        typer.echo(f"note: dialect {found.dialect}: {visible(found.reason)}", err=True)
        return replace(self, dialect=found.dialect)
