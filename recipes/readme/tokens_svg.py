"""Make docs/images/tokens.svg: what `clipcond tokens` shows for a long prompt.

python recipes/readme/tokens_svg.py [OUT.svg]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from clipcond.cli.tokens_view import show
from clipcond.prompt.analysis.phrases import analyse
from clipcond.prompt.plan import plan

PROMPT = (
    "Oil painting of an old lighthouse keeper mending fishing nets by the window, stormy sea outside, warm lamplight, "
    "weathered hands, thick impasto brushstrokes, chiaroscuro, rich ochre and ultramarine, highly detailed, "
    "intricate, dramatic composition, in the style of a nineteenth century maritime painter, masterpiece, 8k, "
    "on the table beside him a small red music box, a sleeping ginger cat and a letter sealed with blue wax"
)
ROOT = Path(__file__).resolve().parents[2]
WIDTH = 92


def main(out: Path = ROOT / "docs" / "images" / "tokens.svg") -> None:
    console = Console(
        file=io.StringIO(), width=WIDTH, record=True, force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(Text.assemble(("$ ", "green"), 'clipcond tokens "Oil painting of an old lighthouse keeper …"'))
    planned = plan(PROMPT)
    show([planned], console, analysis=analyse(planned))
    console.print()  # room for the descenders of the last line
    out.parent.mkdir(parents=True, exist_ok=True)
    # a fixed id, so that the same prompt gives the same file
    out.write_text(console.export_svg(title="clipcond tokens", unique_id="tokens"), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
