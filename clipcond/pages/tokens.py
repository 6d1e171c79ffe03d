"""The pages of `clipcond tokens --html`: one file with everything inside, about one prompt or about a collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from math import log2
from string import Template
from typing import TYPE_CHECKING

from clipcond._version import __version__
from clipcond.prompt.analysis.plan_summary import (
    all_warnings,
    counted,
    cut_reason,
    dialect_meant,
    encoder_groups,
    stock_reading,
    stock_tokens,
    structure,
    with_flag,
)
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.prompt.analysis.collection import Survey
    from clipcond.prompt.analysis.phrases import Analysis, Phrase
    from clipcond.prompt.findings import Finding
    from clipcond.prompt.plan import Chunk, EncoderPlan, PlannedToken, PromptPlan

_HINT = "Point at a token, tap it, or go through a strip with Tab and the arrow keys to see its id."
MOST_FINDINGS, MOST_CHUNKS, MOST_PHRASES = 200, 40, 500  # beyond these, only their number is shown


def prompt_page(
    columns: Sequence[Sequence[PromptPlan]],
    analyses: Sequence[Analysis],
    notes: Sequence[str] = (),
    negative: tuple[Sequence[Sequence[PromptPlan]], Sequence[Analysis]] | None = None,
) -> str:
    """Return the page about one prompt: a column for each dialect, with its plans for one or several families, and its analysis.

    negative: columns and analyses of the negative prompt, which stands below.
    Everything in it is escaped. Without its script the page says the same: tokens then have titles and a table.
    """
    first = columns[0][0]
    notes = [*(f"{note[:1].upper()}{note[1:]}." for note in notes), _HINT]
    body = _columns(columns, analyses, 0)
    if negative is not None:
        body += f"\n<h2>Negative prompt</h2>\n{_columns(*negative, len(columns))}"
    return _page(
        title=f"{_short(first.prompt, 60)} · clipcond tokens",
        heading=_heading([plans[0] for plans in columns]),
        lead=" ".join(notes),
        body=body,
    )


def _columns(columns: Sequence[Sequence[PromptPlan]], analyses: Sequence[Analysis], before: int) -> str:
    """Show plans under each dialect, beside each other; `before` are the columns that the page has so far."""
    pairs = enumerate(zip(columns, analyses, strict=True), start=before)
    body = "\n".join(_column(number, plans, analysis) for number, (plans, analysis) in pairs)
    return f'<div class="beside">\n{body}\n</div>' if len(columns) > 1 else body


def _heading(plans: Sequence[PromptPlan]) -> str:
    """Return the counts of the first known encoder under each dialect, and the loss in a stock pipeline, the same in all."""
    encoders = [plan.encoders[plan.counted] for plan in plans]
    if encoders[0].unknown:
        return "tokens unknown, without a tokenizer"
    counts = [counted(encoder.content_tokens or 0, "token") for encoder in encoders]
    dropped, stock = encoders[0].dropped, stock_tokens(encoders[0])
    if dropped is None or all(encoder.content_tokens == stock for encoder in encoders):
        ending = f": a stock pipeline drops {dropped.content_tokens}" if dropped else ": none dropped"
    else:
        ending = f"; a stock pipeline reads the marks too, {stock} tokens, and drops {dropped.content_tokens}"
    if len(plans) > 1:
        named = ", ".join(f"{count} as {plan.dialect}" for count, plan in zip(counts, plans, strict=True))
        return f"{named}{ending}"
    return f"{counts[0]} in {counted(len(encoders[0].chunks), 'chunk')}{ending}"


def survey_page(survey: Survey, longest: Sequence[PromptPlan], name: str) -> str:
    """Return the page about a collection; `longest` are the plans of its longest prompts, in the order of the survey's list."""
    return _page(
        title=f"{name} · clipcond tokens",
        heading=f"{counted(survey.prompts, 'prompt')}: {survey.over_share:.1%} longer than {survey.limit} tokens",
        lead=f"{visible(name)}, read as {survey.dialect}. Lengths are content tokens of CLIP.",
        body="\n".join([_numbers(survey), _histogram(survey), _tables(survey), _longest(survey, longest)]),
    )


def _page(*, title: str, heading: str, lead: str, body: str) -> str:
    template = Template(files("clipcond.pages").joinpath("templates/tokens.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=_safe(title), heading=_safe(heading), lead=_safe(lead), body=body, version=_safe(__version__)
    )


# one prompt


def _column(number: int, plans: Sequence[PromptPlan], analysis: Analysis) -> str:
    plan = plans[0]
    warnings = sorted(all_warnings(plans), key=lambda finding: not dialect_meant(finding))  # another dialect's first
    found = [("warning", finding) for finding in warnings]
    found += [("note", finding) for finding in analysis.findings]
    shown = found[:MOST_FINDINGS]
    families = ", ".join(plan.family for plan in plans)
    parts = [f"<h2>{_safe(f'{families}, read as {plan.dialect}')}</h2>", _marked(number, plan, shown)]
    if next(iter(plan.encoders.values())).dropped:
        parts.append('<p class="legend">Dim: what a stock pipeline drops.</p>')
    held = "".join(f"<dt>{_safe(label)}</dt><dd>{_safe(text)}</dd>" for label, text in structure(plan))
    if held:
        parts.append(f'<dl class="held">{held}</dl>')
    if shown:
        items = "\n".join(_finding(number, place, kind, one, plan.prompt) for place, (kind, one) in enumerate(shown))
        more = len(found) - len(shown)
        rest = f"\n<li><a>and {more} more</a></li>" if more else ""
        parts.append(f'<ul class="findings">\n{items}{rest}\n</ul>')
    parts += [_encoders(plan.prompt, label, encoders) for label, encoders in encoder_groups(plans)]
    parts.append(_phrases(analysis, plan.encoders[analysis.encoder].limit))
    body = "\n".join(parts)
    return f"<section>\n{body}\n</section>"


def _marked(number: int, plan: PromptPlan, found: Sequence[tuple[str, Finding]]) -> str:
    """Mark the findings in the prompt, each passage a link to its finding, and dim the dropped text."""
    prompt = plan.prompt
    dropped = next(iter(plan.encoders.values())).dropped
    lost = (dropped.start, dropped.end) if dropped else (len(prompt), len(prompt))
    starts = [min(finding.start, max(len(prompt) - 1, 0)) for _, finding in found]  # every finding marks a character
    spans = [(start, max(finding.end, start + 1)) for start, (_, finding) in zip(starts, found, strict=True)]
    edges = sorted({0, len(prompt), *lost, *(edge for span in spans for edge in span)})
    begun: set[int] = set()
    pieces = []
    for start, end in pairwise(edges):
        text = _safe_lines(prompt[start:end])
        if lost[0] <= start and end <= lost[1]:
            text = f"<del>{text}</del>"
        over = [place for place, span in enumerate(spans) if span[0] <= start and end <= span[1]]
        if over:
            fresh = [place for place in over if place not in begun]
            begun.update(fresh)
            names = " ".join(f"s{number}-{place}" for place in over)
            anchors = "".join(f'<span id="s{number}-{place}"></span>' for place in fresh[1:])
            own = f' id="s{number}-{fresh[0]}"' if fresh else ""
            kind = found[over[0]][0]
            text = f'{anchors}<a{own} class="{kind}" data-of="{names}" href="#f{number}-{over[0]}">{text}</a>'
        pieces.append(text)
    return f'<p class="prompt">{"".join(pieces) or "(empty)"}</p>'


def _finding(number: int, place: int, kind: str, finding: Finding, prompt: str) -> str:
    passage = _around(" ".join(prompt[finding.start : finding.end].split()), 60)
    part = f" <code>{_safe(passage)}</code>" if passage else ""
    return (
        f'<li id="f{number}-{place}" class="{kind}"><a href="#s{number}-{place}"><b>{_safe(finding.code)}</b> '
        f"<span>{_safe(with_flag(finding))}</span>{part}</a></li>"
    )


def _encoders(prompt: str, label: str, same: Sequence[EncoderPlan]) -> str:
    """Show encoders that split the prompt in the same way: the count, the strips, and all tokens as a table."""
    encoder = same[0]
    if encoder.unknown:
        return f'<h3>{_safe(label)}: unknown</h3>\n<p class="empty">{_safe(encoder.unknown)}</p>'
    pads = ", ".join(dict.fromkeys(str(one.pad_id) for one in same))
    kind = "bad" if encoder.truncated else "good"
    weighted = any(token.weight != 1 for chunk in encoder.chunks for token in chunk.tokens)
    parts = [
        f'<h3>{_safe(label)}: <span class="count {kind}">{encoder.content_tokens}/{encoder.limit}</span> '
        f"→ {counted(len(encoder.chunks), 'chunk')}</h3>",
        _gauge(encoder),
    ]
    parts.append(_legend(encoder, weighted=weighted))
    position = 0
    for chunk in encoder.chunks[:MOST_CHUNKS]:
        parts.append(_strip(prompt, encoder, chunk.index, position, weighted))
        position += len(chunk.tokens)
    if len(encoder.chunks) > MOST_CHUNKS:
        parts.append(f'<p class="empty">and {counted(len(encoder.chunks) - MOST_CHUNKS, "more chunk")}</p>')
    parts.append(_table(encoder, pads))
    return "\n".join(parts)


def _gauge(encoder: EncoderPlan) -> str:
    """Draw the reading of a stock pipeline as a bar, and say it in words, so that the numbers add up."""
    count = encoder.content_tokens or 0
    stock = stock_tokens(encoder)
    read, lost = (min(count, encoder.limit), 0) if stock is None else (encoder.limit, stock - encoder.limit)
    total = max(read + lost, encoder.limit, 1)
    parts = [("", read)] + ([(' class="over"', lost)] if lost else [])
    bars = "".join(f'<i{kind} style="width:{100 * size / total:.2f}%"></i>' for kind, size in parts)
    return f'<div class="gauge" aria-hidden="true">{bars}</div><p class="legend">{_safe(_gauge_words(encoder))}</p>'


def _gauge_words(encoder: EncoderPlan) -> str:
    """Say the numbers of the bar, and those of clipcond where they are others."""
    count, stock = encoder.content_tokens or 0, stock_tokens(encoder)
    if stock is None:
        more = f" {stock_reading(encoder).capitalize()}." if count > encoder.limit else ""
        return f"The bar: {counted(count, 'token')} of {encoder.limit} places.{more}"
    reads = f"The bar: a stock pipeline reads {encoder.limit} of {stock} tokens and drops {stock - encoder.limit}"
    return f"{reads}." if stock == count else f"{reads}: marks are text to it. clipcond reads {count} without marks."


def _legend(encoder: EncoderPlan, *, weighted: bool) -> str:
    """Explain the tints and the bars of the strips, those that occur."""
    weights = [token.weight for chunk in encoder.chunks for token in chunk.tokens]
    if len(weights) < 2:
        return ""
    keys = [
        ('<i class="t"></i><i class="t even"></i>', "tokens in turn", True),
        ('<i class="t more" style="--m:100%"></i>', "weight above 1", any(weight > 1 for weight in weights)),
        ('<i class="t less" style="--m:100%"></i>', "weight below 1", any(0 <= weight < 1 for weight in weights)),
        ('<i class="t against"></i>', "weight below 0", any(weight < 0 for weight in weights)),
        ('<i class="t lost"></i>', "dropped by a stock pipeline", encoder.dropped is not None),
        ('<i class="bar"></i>', "bar: the weight; the line is 1", weighted),
    ]
    drawn = "".join(f"<span>{look} {_safe(name)}</span>" for look, name, on in keys if on)
    return f'<p class="legend keys">{drawn}</p>'


def _strip(prompt: str, encoder: EncoderPlan, index: int, position: int, weighted: bool) -> str:
    chunk, reason = encoder.chunks[index], cut_reason(encoder.chunks, index)
    cut = f' · <span class="cut">cut: {_safe(reason)}</span>' if reason else ""
    head = f"<h4>chunk {chunk.index + 1} · {len(chunk.tokens)}/{encoder.limit}{cut}</h4>"
    if not chunk.tokens:
        return f'{head}\n<p class="empty">(empty)</p>'
    lost_from = encoder.dropped.start if encoder.dropped else len(prompt)
    following = [*chunk.tokens[1:], None]
    tokens, before = [], (-1, -1)
    for place, (token, after) in enumerate(zip(chunk.tokens, following, strict=True), start=1):
        tokens.append(
            _token(
                token,
                f"token {position + place}, place {place} of chunk {chunk.index + 1}",
                gap=after is not None and after.start > token.end,
                lost=token.start >= lost_from,
                bar=weighted,
                again=(token.start, token.end) == before,
            )
        )
        before = (token.start, token.end)
    label = f"Tokens of chunk {chunk.index + 1} for {encoder.name}"
    return f'{head}\n<div class="strip" role="group" aria-label="{_safe(label)}">{"".join(tokens)}</div>'


def _token(token: PlannedToken, place: str, *, gap: bool, lost: bool, bar: bool, again: bool) -> str:
    kind, strength = _weight(token.weight)
    classes = " ".join(name for name, on in (("t", True), ("gap", gap), ("lost", lost), (kind, kind)) if on)
    style = f' style="--m:{strength:.0f}%"' if kind in {"more", "less"} else ""
    height = f"{11 * min(abs(token.weight), 2):.1f}px"
    drawn = f'<u><i style="--h:{height}"></i></u>' if bar else ""
    lines = [
        f"“{token.text}”  id {token.id}",
        f"piece {token.piece}",
        place + ("; a stock pipeline drops it" if lost else ""),
        f"weight {token.weight:g}, characters {token.start} to {token.end}",
    ]
    tip = escape("\n".join(map(visible, lines)))
    text = "⋯" if again else _safe(token.text)  # one character in several tokens is drawn once
    return f'<button type="button" class="{classes}"{style} title="{tip}">{drawn}<span>{text}</span></button>'


def _weight(weight: float) -> tuple[str, float]:
    """Return the class that colours a token of this weight, and its strength in per cent."""
    if weight == 1:
        return "", 0
    if weight < 0:
        return "against", 100
    return ("more", 25 + 75 * min(log2(weight), 1)) if weight > 1 else ("less", 25 + 75 * (1 - weight))


def _table(encoder: EncoderPlan, pads: str) -> str:
    rows = [
        f'<tr><td class="n">{number}</td><td class="n">{index}</td><td>{_safe(token.text)}</td>'
        f"<td><code>{_safe(token.piece)}</code></td>"
        f'<td class="n">{token.id}</td><td class="n">{token.weight:g}</td><td class="n">{token.start}–{token.end}</td></tr>'
        for number, (index, token) in enumerate(_flat(encoder.chunks[:MOST_CHUNKS]), start=1)
    ]
    head = "".join(
        f'<th scope="col"{" class=n" if number else ""}>{name}</th>'
        for name, number in [
            ("#", 1),
            ("chunk", 1),
            ("text", 0),
            ("piece", 0),
            ("id", 1),
            ("weight", 1),
            ("characters", 1),
        ]
    )
    return (
        f'<details><summary>All tokens of {_safe(encoder.name)} as a table</summary><div class="scroll" tabindex="0"><table>'
        f"<caption>Chunks are filled with id {_safe(pads)}.</caption><thead><tr>{head}</tr></thead><tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div></details>"
    )


def _flat(chunks: Iterable[Chunk]) -> Iterator[tuple[int, PlannedToken]]:
    return ((chunk.index + 1, token) for chunk in chunks for token in chunk.tokens)


def _phrases(analysis: Analysis, limit: int) -> str:
    if not analysis.phrases:
        return ""
    rows = "\n".join(_phrase(phrase, analysis.content_tokens, limit) for phrase in analysis.phrases[:MOST_PHRASES])
    more = len(analysis.phrases) - MOST_PHRASES
    rest = f'<p class="empty">and {counted(more, "more phrase")}</p>' if more > 0 else ""
    spent = f"{analysis.boilerplate_tokens} of {analysis.content_tokens} tokens ({analysis.boilerplate_share:.0%})"
    return (
        f'<h3>Phrases</h3><p class="lead">The first {limit} tokens weigh most. Boilerplate takes {spent}.</p>\n'
        '<div class="scroll" tabindex="0"><table><thead>'
        '<tr><th scope="col">phrase</th><th scope="col" class="n">token</th><th scope="col" class="n">tokens</th>'
        f'<th scope="col">place</th></tr></thead><tbody>\n{rows}\n</tbody></table></div>{rest}'
    )


def _phrase(phrase: Phrase, total: int, limit: int) -> str:
    marks = [
        name
        for name, on in (
            ("boilerplate", phrase.boilerplate),
            ("again", phrase.repeats),
            ("split", phrase.chunks[0] != phrase.chunks[1]),
            (f"×{phrase.weight:.4g}", phrase.weight != 1),
        )
        if on
    ]
    left, width = 100 * phrase.first / total, 100 * phrase.tokens / total
    over = ' class="over"' if phrase.first >= limit else ""
    return (
        f"<tr><td>{_safe(_short(phrase.text, 120))} <small>{_safe(' · '.join(marks))}</small></td>"
        f'<td class="n">{phrase.first + 1}</td><td class="n">{phrase.tokens}</td>'
        f'<td><span class="place"><i{over} style="left:{left:.2f}%;width:{width:.2f}%"></i></span></td></tr>'
    )


# a collection


def _numbers(survey: Survey) -> str:
    tiles = [
        ("median length", f"{survey.median}"),
        ("mean length", f"{survey.mean:.1f}"),
        ("90 % are within", f"{survey.p90}"),
        ("99 % are within", f"{survey.p99}"),
        ("longest", f"{survey.longest}"),
        (f"over {survey.limit}", f"{survey.over:,}"),
        (f"over {2 * survey.limit}", f"{survey.over_two:,}"),
        ("tokens lost in stock pipelines", f"{survey.lost_tokens:,}"),
        ("different prompts", f"{survey.distinct:,}"),
        ("empty prompts", f"{survey.empty:,}"),
    ]
    body = "".join(f"<div><dt>{_safe(name)}</dt><dd>{value}</dd></div>" for name, value in tiles)
    return f'<section><h2>In numbers</h2><dl class="tiles">{body}</dl></section>'


def _histogram(survey: Survey) -> str:
    highest = max((bar.prompts for bar in survey.histogram), default=1) or 1
    rows, below = [], True
    for bar in survey.histogram:
        over = bar.first > survey.limit
        if over and below:
            below = False
            rows.append(f'<li class="limit">a stock pipeline cuts from here on: {survey.over_share:.1%}</li>')
        name = f"{bar.first}–{bar.last}" if bar.last > bar.first else f"{bar.first}"
        rows.append(
            f'<li{" class=over" if over else ""}><span>{name}</span><i style="width:{100 * bar.prompts / highest:.2f}%"></i>'
            f"<span>{bar.prompts:,}</span></li>"
        )
    body = "\n".join(rows)
    head = "<h2>Lengths</h2><p>Content tokens, and how many prompts have so many.</p>"
    return f'<section>{head}<ol class="histogram">\n{body}\n</ol></section>'


def _tables(survey: Survey) -> str:
    words = "\n".join(
        f'<tr><td>{_safe(word.word)}</td><td class="n">{word.tokens}</td><td class="n">{word.count:,}</td></tr>'
        for word in survey.split_words
    )
    phrases = "\n".join(
        f'<tr><td>{_safe(_short(phrase.phrase, 120))}</td><td class="n">{phrase.count:,}</td></tr>'
        for phrase in survey.phrases
    )
    return (
        '<div class="beside"><section><h2>Most split words</h2><p>Words that cost most tokens beyond their first.</p>'
        '<table><thead><tr><th scope="col">word</th><th scope="col" class="n">tokens</th><th scope="col" class="n">times</th>'
        f"</tr></thead><tbody>\n{words}\n</tbody></table></section>"
        "<section><h2>Most common phrases</h2><p>From comma to comma, in lower case.</p>"
        '<table><thead><tr><th scope="col">phrase</th><th scope="col" class="n">times</th></tr></thead>'
        f"<tbody>\n{phrases}\n</tbody></table></section></div>"
    )


def _longest(survey: Survey, plans: Sequence[PromptPlan]) -> str:
    if not plans:
        return ""
    rows = []
    for long, plan in zip(survey.longest_prompts, plans, strict=True):
        dropped = next(iter(plan.encoders.values())).dropped
        kept = len(plan.prompt) if dropped is None else dropped.start
        lost = f"<del>{_safe(_short(plan.prompt[kept:], 600))}</del>" if dropped else ""
        rows.append(
            f'<tr><td class="n">{long.line}</td><td class="n">{long.tokens}</td>'
            f'<td class="cutoff">{_safe(_short(plan.prompt[:kept], 600))}{lost}</td></tr>'
        )
    body = "\n".join(rows)
    return (
        "<section><h2>Longest prompts</h2><p>Dim: what a stock pipeline drops.</p><table><thead><tr>"
        '<th scope="col" class="n">line</th><th scope="col" class="n">tokens</th><th scope="col">prompt</th>'
        f"</tr></thead><tbody>\n{body}\n</tbody></table></section>"
    )


# text


def _safe(text: str) -> str:
    """Escape text for HTML, with a visible sign for every control character."""
    return escape(visible(text))


def _safe_lines(text: str) -> str:
    return _safe(text).replace("↵", "↵\n") if "\n" in text else _safe(text)


def _around(text: str, length: int) -> str:
    """Return a passage, of a long one its beginning and its end."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
