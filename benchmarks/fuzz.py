"""Random and adversarial prompts through all that reads one, and damaged pictures through the way of `clipcond rerank`.

    python benchmarks/fuzz.py [PROMPTS] [PICTURES] [SEED] [FIRST]

A prompt is made of its number and the seed alone, so that a case can be made again: `prompt(NUMBER, SEED)`. All of them
are parsed in every dialect and looked at as infotexts; every tenth is planned, translated and read again, and expanded.
Printed is a table with a row a job: cases, findings (what ended otherwise than promised), exceptions, slowest case, in
seconds of the processor (those of a busy clock would be findings of the machine). Any
finding or exception is printed with its case, and the exit code is 1. A run that is stopped (Ctrl-C, SIGTERM) prints what
it has; FIRST, the number of the first prompt, goes on behind it.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from math import isclose

import fuzz_pictures

from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.infotext import format_infotext, parse_infotext, recognise_infotext
from clipcond.prompt.items import Embedding, Item, Words
from clipcond.prompt.layout import flat
from clipcond.prompt.plan import DIALECTS, plan
from clipcond.prompt.tokenizer import token_ids
from clipcond.prompt.wildcards import MAX_LENGTH, expand

SAMPLE = 10  # every so many prompts go through the slower jobs
SHOWN = 10  # cases that are printed, of each job
SLOW = 10.0  # seconds; a case that takes longer is a finding
CHUNK = 77  # ids, with both marks
UNALTERED = {"changed-case", "lost-comment"}  # what a translation may say and yet give the same tokens

MARKS = (
    *" .,;:!?#=+-|<>()[]{}\"'\\/\n\t\r\0",
    *(
        ":1.3",
        ":0.5)",
        ":-1)",
        ":1e400)",
        ":nan)",
        "++",
        "--",
        ")1.2",
        ")1e9",
        "::",
        "[a:b:3]",
        "[a|b]",
        "[x::-1]",
        "[::]",
    ),
    *(
        "BREAK",
        " AND ",
        "AND",
        "ADDROW",
        "<lora:x:1>",
        "<lora:x:te=0.5:0.7>",
        "<lora:",
        "withLora(x,0.5)",
        "withLora(>)",
    ),
    *(
        "embedding:foo",
        "embedding:AND",
        "embedding:",
        ".and(",
        ".blend(1,-1)",
        ".swap(",
        ".attend(-0.5)",
        "C++",
        "16:9",
    ),
    *("{a|b}", "{2$$", "{1000000$$x|y}", "{0.5::a|b}", "${x=!{a|b}}", "${x}", "__*__", "__no such list__", "__"),
    *(
        "\nNegative prompt: ",
        "\nSteps: 20, Sampler: Euler, Seed: 1",
        "Steps:",
        '"',
        "&amp;",
        "&#0;",
        "</w>",
        "<|endoftext|>",
    ),
    *(
        "<extra_id_0>",
        "</s>",
        "fox",
        "a",
        "'s",
        "İ",
        "ﬁ",
        "ß",
        "🦊",
        "👨\u200d👩\u200d👧",
        "e\u0301",
        "\u202e",
        "\x1b[31m",
        "\ud83d",
        "\udc80",
    ),
    *("-1", "1.5.2", "1" * 400, "(" * 40, ")" * 40, "[" * 40, "{" * 20, "\\" * 7, "$$", "%"),
)
TURKISH = [
    "İSTANBUL'DA",
    "GÜNEŞLİ",
    "BİR",
    "GÜN,",
    "KIRMIZI",
    "TİLKİ",
    "ve",
    "çiçekler.",
    "ŞEHİR",
    "İÇİNDE",
    "YEŞİL",
    "AĞAÇ!",
    "(İKİ:1.2)",
    "[I:İ:0.5]",
    "i̇",
    "ı",
    "I",
    "İ,",
    "İİ",
]


def prompt(number: int, seed: int) -> str:
    """The prompt of a number: one of six kinds in turn."""
    draw = random.Random(seed * 1_000_003 + number)
    return KINDS[number % len(KINDS)](draw, number)


def _code_points(draw: random.Random, number: int) -> str:
    """Any code points; the numbers together go through all of them."""
    own = chr((number // len(KINDS) * 7) % 0x110000), chr((number // len(KINDS) * 7 + draw.randrange(7)) % 0x110000)
    return "".join(draw.choice([*own, chr(draw.randrange(0x110000)), " ", "("]) for _ in range(draw.randrange(1, 30)))


def _marks(draw: random.Random, number: int) -> str:
    """The marks of every dialect, of templates and of infotexts in any order."""
    return "".join(draw.choices(MARKS, k=draw.randrange(1, 14)))


def _brackets(draw: random.Random, number: int) -> str:
    """Brackets in any order, open, closed and unbalanced, with a number here and there."""
    return "".join(draw.choices("()[]{}<>|:\\x ", k=draw.randrange(1, 60))) + draw.choice(["", ":1.2)", ":0.5]", "}"])


def _turkish(draw: random.Random, number: int) -> str:
    """Words with capitals that become two characters in lower case, some across a chunk's border."""
    return draw.choice([" ", "", ", "]).join(draw.choices(TURKISH, k=draw.randrange(1, 40)))


def _borders(draw: random.Random, number: int) -> str:
    """Anything at the border of a chunk of 75 tokens, or of the second one."""
    return (
        "a " * (75 * draw.choice([1, 1, 2]) - draw.randrange(6)) + _any_of(draw, number) + draw.choice(["", " a" * 80])
    )


def _long(draw: random.Random, number: int) -> str:
    """One passage many times over."""
    return (_any_of(draw, number)[:20] * draw.randrange(1, 60))[:2000]


def _any_of(draw: random.Random, number: int) -> str:
    return draw.choice([_code_points, _marks, _brackets, _turkish])(draw, number)


KINDS: tuple[Callable[[random.Random, int], str], ...] = (_code_points, _marks, _brackets, _turkish, _borders, _long)


@dataclass
class Job:
    """What became of a job so far."""

    name: str
    count: int = 0
    findings: int = 0
    exceptions: int = 0
    slowest: float = 0.0
    seconds: float = 0.0

    def run(self, work: Callable[[], str], case: str) -> None:
        """Do one case. `work` returns a problem, or nothing."""
        start = time.process_time()
        try:
            problem = work()
        except Exception as error:
            self.exceptions += 1
            self._show(case, repr(error), self.exceptions)
            problem = ""
        taken = time.process_time() - start
        problem = problem or (f"took {taken:.1f} s" if taken > SLOW else "")
        if problem:
            self.findings += 1
            self._show(case, problem, self.findings)
        self.count += 1
        self.seconds += taken
        self.slowest = max(self.slowest, taken)

    def _show(self, case: str, problem: str, number: int) -> None:
        if number <= SHOWN:
            print(f"{self.name}, {case}: {ascii(problem)[:400]}", flush=True)

    def row(self) -> str:
        """A row of the table."""
        return (
            f"| {self.name} | {self.count:,} | {self.findings} | {self.exceptions} "
            f"| {1000 * self.slowest:,.0f} ms | {self.seconds:,.0f} s |"
        )


def parsed(text: str) -> str:
    """Read a text in every dialect; weights are finite, and spans lie within the text."""
    for dialect in DIALECTS:
        found = parse(text, dialect)
        for item in flat(found.items):
            if isinstance(item, Words) and not abs(item.weight) < 1e5:
                return f"{dialect}: weight {item.weight}"
        if not all(0 <= one.start <= one.end <= len(text) for one in found.warnings):
            return f"{dialect}: a finding outside the text"
    return ""


def planned(text: str, dialect: str) -> str:
    """Plan a text; each chunk has its 77 ids and every token its place."""
    made = plan(text, dialect=dialect)
    for encoder in made.encoders.values():
        if any(len(row) != CHUNK for row in encoder.ids()):
            return f"{dialect}: a chunk that is not of {CHUNK} ids"
        if not all(0 <= token.start <= token.end <= len(text) for chunk in encoder.chunks for token in chunk.tokens):
            return f"{dialect}: a token outside the text"
    return ""


def translated(text: str, source: str, target: str) -> str:
    """Translate a text and read it again: the same tokens with the same weights, or a loss that is listed."""
    made = translate(text, source, target)
    made.text.encode()
    if {one.code for one in made.lost} - UNALTERED:
        return ""
    weighted = target != "plain"
    before, after = (_tokens(parse(*each).items, weighted) for each in ((text, source), (made.text, target)))
    same = len(before) == len(after) and all(
        a[0] == b[0] and isclose(a[1], b[1], rel_tol=1e-5, abs_tol=1e-6) for a, b in zip(before, after, strict=True)
    )
    return "" if same else f"{source} to {target}: {made.text!r} reads otherwise"


def _tokens(items: Sequence[Item], weighted: bool) -> list[tuple[int, float]]:
    found = []
    for item in flat(items):
        if isinstance(item, (Words, Embedding)):
            text = item.text if isinstance(item, Words) else item.name
            found += [(id, item.weight if weighted else 1.0) for id in token_ids(text)]
    return found


def expanded(text: str, seed: int) -> str:
    """Fill in a text as a template, at random and by combinations, within the stated length."""
    made = (*expand(text, seed=seed, count=2).prompts, *expand(text, combinatorial=True, limit=5).prompts)
    return "" if all(len(one) <= len(text) + MAX_LENGTH for one in made) else "a prompt beyond the stated length"


def recognised(text: str) -> str:
    """Look for an infotext in a text, and behind a real one; settings are never a part of the prompt."""
    recognise_infotext(text)
    found = parse_infotext(format_infotext("a fox", text, {"Steps": 20, "Sampler": "Euler", "Seed": 1}))
    return "" if found.prompt.startswith("a fox") and "Steps" in found.settings else "the settings are lost"


def prompts(first: int, count: int, seed: int) -> list[Job]:
    """Run the jobs of prompts, until all are done or a signal ends it."""
    parsing, reading = Job("parse (4 dialects)"), Job("recognise_infotext")
    planning, translating, expanding = Job("plan"), Job("translate and read again"), Job("expand")
    jobs = [parsing, planning, translating, expanding, reading]
    with suppress(KeyboardInterrupt):
        _work_off(jobs, range(first, first + count), seed)
    return jobs


def _work_off(jobs: Sequence[Job], numbers: range, seed: int) -> None:
    parsing, planning, translating, expanding, reading = jobs
    pairs = cycle([(source, target) for source in DIALECTS for target in DIALECTS if source != target])
    for number in numbers:
        text, case = prompt(number, seed), f"prompt({number}, {seed})"
        parsing.run(lambda text=text: parsed(text), case)
        reading.run(lambda text=text: recognised(text), case)
        if number // len(KINDS) % SAMPLE == 0:
            planning.run(lambda text=text, at=number: planned(text, DIALECTS[at // len(KINDS) // SAMPLE % 4]), case)
            for source, target in islice(pairs, 1):
                translating.run(lambda text=text, way=(source, target): translated(text, *way), case)
            expanding.run(lambda text=text, at=number: expanded(text, at), case)
        if number % 100_000 == 99_999:
            print(f"up to {number + 1:,} after {time.process_time():,.0f} s", file=sys.stderr, flush=True)


def pictures(count: int, seed: int) -> Job:
    """Run `fuzz_pictures`: decode, metadata, and a model's preparation."""
    job = Job("pictures: decode, metadata, prepare")
    for number in range(count):
        job.run(lambda number=number: fuzz_pictures.case(number, seed) and "", f"picture {number} of seed {seed}")
    return job


def main(count: int = 1_000_000, of_pictures: int = 500, seed: int = 0, first: int = 0) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    of_images = pictures(of_pictures, seed)
    jobs = [*prompts(first, count, seed), of_images]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, seed {seed}, {jobs[0].count:,} prompts from {first:,}, {of_pictures:,} pictures\n"
    )
    print("| job | cases | findings | exceptions | slowest | time |\n|---|---:|---:|---:|---:|---:|")
    print("\n".join(job.row() for job in jobs))
    return int(any(job.findings or job.exceptions for job in jobs))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:5])))
