"""All codes of findings, in one table: `docs/prompt-language.md` is generated from it, and `strict` reads it.

    python -m clipcond.prompt.finding_codes docs/prompt-language.md

writes the table into the guide.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

from clipcond.errors import PromptSyntaxError
from clipcond.files import write_file
from clipcond.prompt.findings import Finding

Stage = Literal["parse", "plan", "analysis", "expand", "translate", "condition", "explain"]
_STAGES: dict[Stage, str] = {
    "parse": "Reading a prompt (`parse`, and all that follows)",
    "plan": "Planning chunks (`plan`, `clipcond tokens`)",
    "analysis": "Looking at a plan (`clipcond tokens --explain`, the page)",
    "expand": "Filling in a template (`expand`)",
    "translate": "Translating (`Translation.lost`)",
    "condition": "Encoding for a pipeline (`Conditioner`)",
    "explain": "Explaining a picture (`explain`)",
}
_BEGIN, _END = "<!-- finding codes: begin -->", "<!-- finding codes: end -->"


class FindingCode(NamedTuple):
    """A code, its meaning, an example that earns it, and whether `strict` refuses it as an error of syntax."""

    code: str
    stage: Stage
    meaning: str
    example: str = ""
    syntax: bool = False


CODES = (
    FindingCode("unclosed-bracket", "parse", "a bracket that never closes", "(red fox", True),
    FindingCode("stray-bracket", "parse", "a bracket that nothing opens; text", "red) fox", True),
    FindingCode("weights-disabled", "parse", "comfy: weights lost behind a bracket without a partner", ":) (a:1.2)", True),
    FindingCode("bad-weight", "parse", "what stands in the place of a number; text", "(fox:1,5)", True),
    FindingCode("bad-group", "parse", "compel: brackets around what its grammar does not know; text", "(a - b)++", True),
    FindingCode("bad-call", "parse", "compel: a call that is not well formed; text", '("a", "b").blend(1)', True),
    FindingCode("unknown-tag", "parse", "a tag of no known kind, taken out all the same", "<foo:bar>", True),
    FindingCode("tag-field-unused", "parse", "a field of a tag that changes nothing", "<lora:x:1:foo=2>"),
    FindingCode("schedule-too-deep", "parse", "more than 32 schedules in one another", "", True),
    FindingCode("schedules-disabled", "parse", "a1111: a `|` outside of `[a|b]` ends all schedules", "a | [b:c:5]", True),
    FindingCode("weight-from-ratio", "parse", r"a ratio read as a weight; `\(wide 16:9\)` or `(wide 16:9:1)`", "(wide 16:9)"),
    FindingCode("weight-from-suffix", "parse", r"compel: a name read as a weight; `C\+\+`", "C++ code"),
    FindingCode("weight-out-of-range", "parse", "a weight below 0 or above 2, written or multiplied up", "(fox:3)"),
    FindingCode("prompt-weight", "parse", "a1111: a weight of the whole prompt, which only guidance can apply", "a fox :1.2"),
    FindingCode("blend-not-normalised", "parse", "compel: weights of a blend that add up to 0", '("a", "b").blend(1, -1)'),
    FindingCode("bracket-number", "parse", "a number in square brackets is no weight", "[fox:1.5]"),
    FindingCode("empty-group", "parse", "brackets around nothing", "()"),
    FindingCode("break-in-group", "parse", "BREAK in brackets; the weight goes on behind it", "(a BREAK b:1.2)"),
    FindingCode("break-lower-case", "parse", "`break` by itself is a word", "a, break, b"),
    FindingCode("break-is-text", "parse", "BREAK in a dialect without it", "a BREAK b"),
    FindingCode("and-is-text", "parse", "a1111: AND in a negative prompt is a word"),
    FindingCode("shouted-keyword", "parse", "BREAK or AND in the midst of capitals", "CATS AND DOGS"),
    FindingCode("comment", "parse", "a1111: `#` and what follows on its line, which nothing reads", "a fox # mine"),
    FindingCode("dropped-backslash", "parse", "a1111: a lone backslash, which is taken out", r"\m/"),
    FindingCode("leftover-escape", "parse", "a backslash that stays in the text", r"\[fox\]"),
    FindingCode("unknown-adapter", "parse", "an adapter's name that no file has"),
    FindingCode("unknown-embedding", "parse", "an embedding's name that no file has", "embedding:worse"),
    FindingCode("foreign-syntax", "parse", "another dialect's syntax, read as text", "(fox:1.5)"),
    FindingCode("looks-like-a1111", "parse", "A1111 syntax in a plain prompt", "a (red:1.3) fox"),
    FindingCode("looks-like-compel", "parse", "compel syntax in a plain prompt", "a fox++"),
    FindingCode("special-token-as-text", "parse", "the name of a special token of CLIP or T5; text", "<|endoftext|>"),
    FindingCode("broken-unicode", "parse", "half of a surrogate pair, read as U+FFFD"),
    FindingCode("word-split", "plan", "a chunk ends inside a word"),
    FindingCode("embedding-split", "plan", "an embedding with more vectors than a chunk has places"),
    FindingCode("embedding-unfit", "plan", "an embedding without vectors for an encoder, which reads its name"),
    FindingCode("break-ignored", "plan", "BREAK changes nothing for T5"),
    FindingCode("schedule-unread", "plan", "an option of a schedule that no step of the pass reads"),
    FindingCode("phrase-split", "analysis", "a phrase on both sides of a chunk border"),
    FindingCode("padding-wasted", "analysis", "places left empty because a chunk went back to a comma"),
    FindingCode("rare-word", "analysis", "a word of four tokens or more: CLIP hardly knows it"),
    FindingCode("repeated-phrase", "analysis", "the same phrase again"),
    FindingCode("boilerplate", "analysis", "a large share of the tokens spent on words of habit"),
    FindingCode("late-emphasis", "analysis", "weighted up, but behind the first chunk"),
    FindingCode("unknown-wildcard", "expand", "a list that is not there; text"),
    FindingCode("empty-wildcard", "expand", "a list without entries; text"),
    FindingCode("unreadable-wildcard", "expand", "a list that cannot be read; text"),
    FindingCode("cyclic-wildcard", "expand", "a list that leads back to itself; text"),
    FindingCode("unknown-variable", "expand", "a variable that is not set, or is made of itself; text"),
    FindingCode("too-deep", "expand", "more than 50 braces, lists and variables in one another; text"),
    FindingCode("too-long", "expand", "an expansion beyond the limit of characters; text"),
    FindingCode("too-many", "expand", "more combinations than the limit"),
    FindingCode("unclosed-brace", "expand", "a brace that never closes; text"),
    FindingCode("stray-brace", "expand", "a brace that nothing opens; text"),
    FindingCode("unsupported-wrap", "expand", "`%{…}`, which is not known here; text"),
    FindingCode("lost-weight", "translate", "a weight, where the target has none"),
    FindingCode("lost-break", "translate", "BREAK, where the target has none"),
    FindingCode("lost-and", "translate", "prompts put together, where the target cannot"),
    FindingCode("lost-blend", "translate", "a blend of prompts"),
    FindingCode("lost-schedule", "translate", "a schedule; what holds first is kept"),
    FindingCode("lost-swap", "translate", "a swap; the original is kept"),
    FindingCode("lost-adapter", "translate", "an adapter that the target cannot name"),
    FindingCode("lost-adapter-weight", "translate", "an adapter's own weight for the denoiser"),
    FindingCode("lost-embedding", "translate", "a name that the target cannot write as an embedding's"),
    FindingCode("lost-comment", "translate", "a comment, which nothing reads anyway"),
    FindingCode("changed-case", "translate", "a word that is a keyword in the target, in lower case"),
    FindingCode("changed-text", "translate", "characters that the target cannot say in their place"),
    FindingCode("changed-tokens", "translate", "other tokens or weights than before: the target parts or reads them otherwise"),
    FindingCode("embedding-as-text", "condition", "an embedding that was not found, read as its name"),
    FindingCode("text-unused", "condition", "a text that no encoder of the pipeline reads"),
    FindingCode("negative-unused", "condition", "a negative prompt that the pipeline does not take"),
    FindingCode("weights-unused", "condition", "weights that change nothing"),
    FindingCode("mean-near-zero", "condition", "a1111 weighting: a mean near zero, which was not restored"),
    FindingCode("adapter-not-loaded", "condition", "`<lora:…>` that is not active in the pipeline; `load_adapters` loads it"),
    FindingCode("schedule-pooled", "condition", "a pipeline that keeps the pooled vector of the first step"),
    FindingCode("cut-by-encoder", "condition", "the end of a prompt that a language model, or a denoiser, does not read"),
    FindingCode("phrase-dead", "explain", "a phrase that changes next to nothing in the picture"),
    FindingCode("phrase-cut", "explain", "a phrase that the stock pipeline never reads"),
    FindingCode("acts-elsewhere", "explain", "a phrase that acts in another place than it names"),
    FindingCode("acts-through", "explain", "a phrase that reaches the picture only through another one's states"),
)  # fmt: skip
SYNTAX_ERRORS = frozenset(each.code for each in CODES if each.syntax)


def refuse_errors(findings: Iterable[Finding], prompt: str) -> None:
    """Raise PromptSyntaxError for the first finding that is an error of syntax."""
    for found in findings:
        if found.code in SYNTAX_ERRORS:
            raise PromptSyntaxError(f"{found.code}: {found.message}", prompt, found.start, found.end)


def markdown() -> str:
    """Return the table as it stands in the guide, between its marks."""
    return "\n".join([_BEGIN, *_lines(), _END])


def _lines() -> Iterator[str]:
    for stage, codes in groupby(CODES, key=lambda each: each.stage):
        yield from ("", f"### {_STAGES[stage]}", "", "| code | found | example | `strict` |", "|---|---|---|---|")
        for each in codes:
            example = f"`{_cell(each.example)}`" if each.example else ""
            yield f"| `{each.code}` | {_cell(each.meaning)} | {example} | {'error' if each.syntax else ''} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_into(guide: Path) -> None:
    """Write the table into a guide, in the place of the one that is there."""
    text = guide.read_text("utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    write_file(guide, before + markdown() + after, overwrite=True)


if __name__ == "__main__":
    write_into(Path(sys.argv[1]))
