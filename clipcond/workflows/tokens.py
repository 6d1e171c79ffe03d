"""Tokens of prompts counted, chunked and compared: one prompt, each line of a file, or a collection in numbers.

`clipcond tokens` starts with this module: it imports little, and nothing heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from clipcond.errors import DataError, OptionsError, ResourceMissing
from clipcond.prompt import plan as planner

if TYPE_CHECKING:
    from clipcond.prompt.analysis.collection import Survey
    from clipcond.prompt.analysis.phrases import Analysis
    from clipcond.prompt.infotext import Infotext
    from clipcond.prompt.plan import EncoderPlan, PromptPlan
    from clipcond.workflows.events import Events
    from clipcond.workflows.pipeline_words import PipelineWords

ALL_FAMILIES, AUTO, PLAIN = "all", "auto", "plain"
_READ_BY_CLIP = tuple(
    family for family, encoders in planner.FAMILIES.items() if any(each.kind == "clip" for each in encoders.values())
)
REPEATED = ("sd15", "sd2", "sdxl")  # families whose shorter side is repeated; the others get empty chunks
_LONGEST_LINE = 16 << 20  # bytes of one prompt in a file


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensOptions:
    """One of `prompt`, `infotext` and `file` (`-` is standard input), and how it is read.

    negative_prompt: counted too, with the length that both sides get.   dialect: None is plain, and for an infotext the
    one that it was written in.   infotext: a picture, a text file or `-`, whose prompt and negative prompt are counted.
    expand: fill in a template first, with `seed` and the lists of `wildcards`.
    compare: another dialect, counted too.   embeddings: a folder of textual inversions.   t5_tokenizer: a file, a folder
    or a hub name in the local cache.   language_tokenizer: the same, of a family's language model.
    pipeline: `mini` or a diffusers folder, which says the family, and whose words the prompt is held against.
    explain: with the phrases of one prompt.   stats: a file as a collection.
    Names of families, dialects and chunkings may be written in any case. Raises OptionsError for a name that does not
    exist and for options that contradict one another.
    """

    prompt: str | None = None
    file: Path | None = None
    infotext: str | None = None
    negative_prompt: str | None = None
    family: str = "sd15"
    dialect: str | None = None
    compare: str | None = None
    expand: bool = False
    seed: int = 0
    wildcards: tuple[Path, ...] = ()
    chunking: str | None = None
    steps: int = 20
    embeddings: Path | None = None
    t5_tokenizer: str | None = None
    language_tokenizer: str | None = None
    pipeline: str | None = None
    explain: bool = False
    stats: bool = False

    def __post_init__(self) -> None:
        for name, known, aliases in (
            ("family", (*planner.FAMILIES, ALL_FAMILIES), "FAMILY_ALIASES"),
            ("dialect", (*planner.DIALECTS, AUTO), "DIALECT_ALIASES"),
            ("compare", planner.DIALECTS, "DIALECT_ALIASES"),
            ("chunking", planner.CHUNKINGS, ""),
        ):
            given = getattr(self, name)
            if given is not None and given not in known:
                from clipcond.workflows import choices

                meant = choices.chosen(f"--{name}", given, known, getattr(choices, aliases) if aliases else None)
                object.__setattr__(self, name, meant)
        if self.steps < 1:
            raise OptionsError(f"--steps is {self.steps}, expected 1 or more")
        if problem := problem_with(self):
            raise OptionsError(problem)


class CountedPrompt(NamedTuple):
    """The plans of a prompt: for each dialect a column, with a plan for each family.

    dialect_reason: why `auto` chose.   negative: the other side, where there is one.
    """

    columns: tuple[tuple[PromptPlan, ...], ...]
    dialect_reason: str = ""
    negative: CountedPrompt | None = None

    @property
    def truncated(self) -> bool:
        """True if a stock pipeline would lose anything, of either side."""
        own = any(plan.truncated for plans in self.columns for plan in plans)
        return own or (self.negative is not None and self.negative.truncated)

    def common_chunks(self) -> dict[str, dict[str, int]]:
        """Return the chunks that both sides get, for each family and CLIP encoder, under the first dialect."""
        if self.negative is None:
            return {}
        pairs = zip(self.columns[0], self.negative.columns[0], strict=True)
        return {plan.family: _common_chunks(plan, other) for plan, other in pairs}

    def analyses(self) -> tuple[Analysis, ...]:
        """Analyse the prompt for the first family, once for each dialect."""
        from clipcond.prompt.analysis.phrases import analyse

        return tuple(analyse(plans[0]) for plans in self.columns)


def _common_chunks(plan: PromptPlan, negative: PromptPlan) -> dict[str, int]:
    """Return the common length of both sides in chunks: repeated to it where that is exact, else filled up to it."""
    found = {}
    for name, encoder in plan.encoders.items():
        lengths = [*_lengths(plan, encoder), *_lengths(negative, negative.encoders[name])]
        if lengths and planner.FAMILIES[plan.family][name].kind == "clip":
            found[name] = lcm(*lengths) if plan.family in REPEATED else max(lengths)
    return found


def _lengths(plan: PromptPlan, encoder: EncoderPlan) -> list[int]:
    """Return the lengths of a prompt's parts in chunks; those of `.and()` stand behind one another."""
    if len(plan.parts) < 2 or plan.parts[0].how == "concatenate":
        return [len(encoder.chunks)]
    parts = [chunk.part for chunk in encoder.chunks]
    return [parts.count(part) for part in dict.fromkeys(parts)]


def problem_with(options: TokensOptions) -> str | None:
    """Say which options contradict one another, in words for the one who gave them; None when all is well."""
    if sum(given is not None for given in (options.prompt, options.file, options.infotext)) != 1:
        return "give either a PROMPT or --file FILE or --infotext FILE"
    if options.file is not None and (options.negative_prompt is not None or options.expand):
        return f"{'--expand' if options.expand else '--negative'} is about one PROMPT; leave out --file"
    if options.infotext is not None and options.negative_prompt is not None:
        return "--infotext has a negative prompt of its own; leave out --negative"
    if options.pipeline is not None and options.file is not None:
        return "--pipeline is about one PROMPT; leave out --file"
    if options.pipeline is not None and options.family != "sd15":
        return f"--pipeline says the family; leave out --family {options.family}"
    if options.stats and options.file is None:
        return "--stats needs --file FILE"
    if options.stats and options.family not in (*_READ_BY_CLIP, ALL_FAMILIES):
        return f"--stats counts the tokens of CLIP, which {options.family} does not read with; leave it out"
    if options.stats and options.compare:
        return "--stats counts one dialect; leave out --compare"
    if options.explain and options.file is not None:
        return "--explain is about one PROMPT; leave out --file"
    if options.compare and options.compare == (options.dialect or PLAIN):
        return f"--compare {options.compare} is the same as --dialect {options.dialect or PLAIN}; name another"
    return None


class TokenCounter:
    """Counts prompts as the options say; looks for embeddings once, and notes those that it cannot read."""

    def __init__(self, options: TokensOptions, events: Events) -> None:
        self.options, self._events = options, events
        self.families = _READ_BY_CLIP if options.family == ALL_FAMILIES else (options.family,)
        self._pipeline: PipelineWords | None = None
        if options.pipeline is not None:
            from clipcond.workflows.pipeline_words import read_pipeline_words

            self._pipeline = read_pipeline_words(options.pipeline)
            self.families = (self._pipeline.family,)
        self._embeddings = None
        if options.embeddings is not None:
            from clipcond.prompt.embeddings import scan
            from clipcond.workflows.events import Note

            self._embeddings = scan(options.embeddings)
            for path, reason in self._embeddings.unreadable:
                events(Note(f"{path}: {reason}"))
            if not self._embeddings:
                events(Note(f"{options.embeddings}: no embeddings there"))

    def count(self, prompt: str) -> CountedPrompt:
        """Count one prompt, and its negative prompt; a pasted infotext is taken apart, a template filled in.

        Notes say how, which dialect `auto` chose, and what was perhaps meant otherwise.
        """
        dialect, negative = self.options.dialect, self.options.negative_prompt
        if ":" in prompt and negative is None:
            from clipcond.workflows.infotexts import pasted_infotext

            if (infotext := pasted_infotext(prompt)) is not None:
                prompt, negative, dialect = self._take_apart(infotext)
        return self._sides(prompt, negative, dialect)

    def count_infotext(self) -> CountedPrompt:
        """Count the prompts of the infotext that the options name. Raises as `infotexts.read_infotext` does."""
        from clipcond.workflows.infotexts import read_infotext

        return self._sides(*self._take_apart(read_infotext(self.options.infotext or "-")))

    def _take_apart(self, infotext: Infotext) -> tuple[str, str | None, str]:
        from clipcond.workflows.infotexts import dialect_of, taken_apart

        self._note(taken_apart(infotext))
        return infotext.prompt, infotext.negative_prompt or None, self.options.dialect or dialect_of(infotext)

    def _sides(self, prompt: str, negative: str | None, dialect: str | None) -> CountedPrompt:
        """Count both sides in the dialect that suits the prompt."""
        prompt = self._filled(prompt, "prompt")
        counted = self._count(prompt, dialect)
        if counted.dialect_reason:
            self._note(counted.dialect_reason)
        if self._pipeline is not None:
            from clipcond.encode.unseen_words import tell_unseen

            if text := tell_unseen(self._pipeline.unseen(counted.columns[0][0]), self._pipeline.name):
                self._note(text)
        if negative is None:
            return counted
        read_as = counted.columns[0][0].dialect
        other = self._count(self._filled(negative, "negative prompt"), read_as, negative=True)
        return counted._replace(negative=other)

    def _filled(self, prompt: str, name: str) -> str:
        """Fill in a template where that was asked for; else note one that nobody fills in."""
        if self.options.expand:
            from clipcond.workflows.templates import expanded

            return expanded(prompt, self._events, seed=self.options.seed, wildcards=self.options.wildcards)
        if "{" in prompt or "__" in prompt:
            from clipcond.workflows.templates import template_hint

            if hint := template_hint(prompt):
                self._note(hint if name == "prompt" else f"{name}: {hint}")
        return prompt

    def _note(self, text: str) -> None:
        from clipcond.workflows.events import Note

        self._events(Note(text))

    def count_lines(self) -> Iterator[CountedPrompt]:
        """Count each line of the file. Raises ResourceMissing and DataError as `read_prompts` does."""
        return (self._count(prompt, self.options.dialect) for prompt in read_prompts(self._file()))

    def survey(self) -> Survey:
        """Count the file as a collection, in its first dialect. Raises as `read_prompts` does."""
        from clipcond.prompt.analysis.collection import survey

        limit = next(each.limit for each in planner.FAMILIES[self.families[0]].values() if each.kind == "clip")
        return survey(read_prompts(self._file()), dialect=self.options.dialect or PLAIN, limit=limit)

    def plan(self, prompt: str) -> PromptPlan:
        """Plan a prompt for the first family in its own dialect."""
        return self._count(prompt, self.options.dialect).columns[0][0]

    def document(self, counted: CountedPrompt) -> dict[str, object]:
        """Return the JSON of one prompt: its plan, or all its plans where the options ask for several.

        With a negative prompt, its document is `negative`, and `common_chunks` the length of both sides.
        """
        plans = [plan for column in counted.columns for plan in column]
        documents = [plan.to_json() for plan in plans]
        if self.options.explain:
            from clipcond.prompt.analysis.phrases import analyse

            for document, plan in zip(documents, plans, strict=True):
                document["analysis"] = analyse(plan).to_json()
        if self._pipeline is not None:
            for document, plan in zip(documents, plans, strict=True):
                document["unseen_words"] = list(self._pipeline.unseen(plan))
        several = self.options.family == ALL_FAMILIES or self.options.compare is not None
        document = {"prompt": plans[0].prompt, "plans": documents} if several else documents[0]
        if counted.negative is not None:
            common = counted.common_chunks()
            both: object = common if several else next(iter(common.values()))
            document = document | {"negative": self.document(counted.negative), "common_chunks": both}
        return document

    def _count(self, prompt: str, dialect: str | None, *, negative: bool = False) -> CountedPrompt:
        dialect, reason = dialect or PLAIN, ""
        if dialect == AUTO:
            from clipcond.prompt.dialects.detect import detect

            detection = detect(prompt)
            dialect, reason = detection.dialect, f"dialect {detection.dialect}: {detection.reason}"
        dialects = dict.fromkeys([dialect, self.options.compare or dialect])
        columns = [tuple([self._plan(prompt, one, family, negative) for family in self.families]) for one in dialects]
        return CountedPrompt(columns=tuple(columns), dialect_reason=reason)

    def _plan(self, prompt: str, dialect: str, family: str, negative: bool) -> PromptPlan:
        return planner.plan(
            prompt,
            dialect=dialect,
            family=family,
            chunking=self.options.chunking,
            embeddings=self._embeddings,
            t5_tokenizer=self.options.t5_tokenizer,
            language_tokenizer=self.options.language_tokenizer,
            steps=self.options.steps,
            negative=negative,
        )

    def _file(self) -> Path:
        if self.options.file is None:
            raise OptionsError("give --file FILE")
        return self.options.file


def read_prompts(file: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file (`-`: standard input) without their ends; empty lines are empty prompts.

    Raises ResourceMissing for a file that is not there, DataError for bytes that are not UTF-8.
    """
    from_stdin = str(file) == "-"
    if not from_stdin and not file.exists():
        raise ResourceMissing(f"{file}: no such file; give a text file with a prompt per line, or - for standard input")
    stream: BinaryIO
    name = "standard input" if from_stdin else file
    with nullcontext(sys.stdin.buffer) if from_stdin else file.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), start=1):
            if len(line) > _LONGEST_LINE:
                raise DataError(
                    f"{file}: line {number} is over {_LONGEST_LINE >> 20} MiB long; expected a prompt on each line"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {line[error.start]:#04x} at {error.start}"
                raise DataError(f"{name}: line {number} is not UTF-8 ({byte}); save it as UTF-8") from error
            yield text.removesuffix("\n").removesuffix("\r")
