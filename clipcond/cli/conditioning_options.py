"""The declarations of the options that `encode` and `generate` share, those of PromptOptions.

Only names and paths here: neither torch nor a model library is needed to show the help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from clipcond.prompt.plan import CHUNKINGS, DIALECTS
from clipcond.workflows.prompt_options import AUTO

NegativePrompt = Annotated[
    str | None,
    typer.Option("--negative-prompt", "--negative", metavar="TEXT", help="What to avoid.", show_default=False),
]
Dialect = Annotated[
    str | None,
    typer.Option(
        metavar="|".join([*DIALECTS, AUTO]),
        help="The syntax of the prompts, plain if not given; auto decides and says why.",
        show_default=False,
    ),
]
Weighting = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="none, a1111, no_norm, comfy, comfy_pp, compel, sd_embed; +length_norm and +mean_norm behind it. "
        "generate: counterfactual, which acts in the picture, 0 takes a phrase out. The default is the dialect's own.",
        show_default=False,
    ),
]
Chunking = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help=f"Where a long prompt is cut: {', '.join(CHUNKINGS)}. The default is the dialect's own.",
        show_default=False,
    ),
]
ClipSkip = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="0: the layer that the family uses, 1: the one before, both sides."),
]
Pooled = Annotated[
    Literal["first", "last", "mean", "weighted"],
    typer.Option(
        case_sensitive=False,
        metavar="first|last|mean|weighted",
        help="Which chunk's pooled vector a long prompt has (SDXL, SD3, Flux).",
    ),
]
Lengths = Annotated[
    Literal["lcm", "mask", "pad_empty"] | None,
    typer.Option(
        case_sensitive=False,
        metavar="lcm|mask|pad_empty",
        help="How prompt and negative prompt get one length; repetition (lcm) is exact.",
        show_default=False,
    ),
]
Prompt2 = Annotated[
    str | None,
    typer.Option("--prompt-2", metavar="TEXT", help="For the second encoder (SDXL, SD3, Flux).", show_default=False),
]
Prompt3 = Annotated[
    str | None,
    typer.Option("--prompt-3", metavar="TEXT", help="For the third encoder (SD3).", show_default=False),
]
Embeddings = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder of textual inversions, by their names in the prompt.",
        show_default=False,
    ),
]
LoraDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A folder of LoRAs, loaded where the prompt says <lora:name:0.8>.",
        show_default=False,
    ),
]
Operations = Annotated[
    list[str] | None,
    typer.Option(
        "--operation",
        metavar="OPERATION",
        help='"lerp 0.3: OTHER PROMPT", "slerp …", "slider 0.5: LOW -> HIGH", "vary 0.1: SEED", "gain 1.2: ENCODER"; '
        "may be repeated, in their order.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on a terminal too; in a pipe it is the default.")]
