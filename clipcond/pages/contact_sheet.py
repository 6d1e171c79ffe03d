"""The contact sheet of a ranking: one HTML file with thumbnails, to look through, compare and choose in a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from clipcond.images.decode import quiet_pillow, workers
from clipcond.images.thumbnail import thumbnail_uri
from clipcond.pages.inline import safe_json
from clipcond.rerank.chosen_list import KIND, VERSION
from clipcond.score.scales import SCALES
from clipcond.wording import visible

if TYPE_CHECKING:
    from clipcond.rerank.rows import RankedImage, Ranking

THUMBNAIL = 320  # pixels of the longer side
_PERCENTILE = "percentile"  # a column of rankings, not of searches
_TITLE = 80  # letters of a prompt in the title


def contact_sheet(ranking: Ranking, *, on_progress: Callable[[int], object] = lambda _: None) -> str:
    """Return the HTML document. It loads nothing from anywhere; a picture that went away since has an empty frame.

    on_progress: called in this thread with the number of thumbnails that were made since the last call.
    """
    thumbnails = _thumbnails(list(dict.fromkeys(row.path for row in ranking.scored)), on_progress)
    places = {path: n for n, path in enumerate(thumbnails)}
    header = ranking.header
    data = {
        "kind": KIND,
        "version": VERSION,
        "columns": _columns(ranking),
        "order": header.score if header else "",
        "thumbnails": list(thumbnails.values()),
        "rows": [_row(row, places[row.path]) for row in ranking.scored],
    }
    template = Template(files("clipcond.pages").joinpath("templates/contact_sheet.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(_title(ranking)),
        header=escape(visible(header.line()) if header else ""),
        warning=f'<p class="warning">{escape(visible(ranking.warning))}</p>' if ranking.warning else "",
        scales="".join(
            f"<dt>{escape(visible(name))}</dt><dd>{escape(visible(formula))}</dd>" for name, formula in _scales(ranking)
        ),
        data=safe_json(data),
        errors="".join(
            f"<li>{escape(visible(str(row.path)))}: {escape(visible(row.error or ''))}</li>" for row in ranking.errors
        ),
        error_count=len(ranking.errors),
        errors_hidden="" if ranking.errors else "hidden",
    )


def _title(ranking: Ranking) -> str:
    own = {row.prompt or "" for row in ranking.scored}  # of each picture, or the one that was given
    prompt = visible(" ".join((own.pop() if len(own) == 1 else "").split()))
    pictures = len({row.path for row in ranking.scored})
    count = f"{pictures:,} picture{'' if pictures == 1 else 's'}"
    short = prompt if len(prompt) <= _TITLE else prompt[: _TITLE - 1] + "…"
    return f"{short} · {count}" if short else count


def _columns(ranking: Ranking) -> list[str]:
    known = [name for name, _ in ranking.header.scales] if ranking.header else []
    alone = ranking.header is None or ranking.header.score in known
    within = [_PERCENTILE] if any(_PERCENTILE in row.scores for row in ranking.scored) else []
    return [*([] if alone else ["score"]), *known, *within]


def _scales(ranking: Ranking) -> list[tuple[str, str]]:
    """Each column with its formula."""
    known = list(ranking.header.scales) if ranking.header else []
    percentile = [(_PERCENTILE, SCALES[_PERCENTILE].formula)] if _PERCENTILE in _columns(ranking) else []
    return known + [each for each in percentile if each not in known]


def _row(row: RankedImage, thumbnail: int) -> dict[str, object]:
    return {
        "path": str(row.path.absolute()),
        "name": visible(row.path.name),
        "thumbnail": thumbnail,
        "rank": row.rank,
        "tied": row.tied,
        "kept": row.kept,
        "group": row.group,
        "scores": {"score": row.score, **row.scores},
        "prompt": visible(row.prompt or ""),
        "source": visible(row.prompt_source or ""),
        "phrases": [
            {"text": visible(each.text), "cosine": each.cosine, "missing": each.missing} for each in row.phrases
        ],
        "size": f"{row.width}×{row.height}" if row.width else "",
        "seen": row.share_seen,
    }


def _thumbnails(paths: Sequence[Path], on_progress: Callable[[int], object]) -> dict[Path, str]:
    """A data URI for each picture; an empty text where it cannot be read."""
    found: dict[Path, str] = {}
    with quiet_pillow(), ThreadPoolExecutor(workers()) as pool:
        for path, uri in zip(paths, pool.map(lambda path: thumbnail_uri(path, THUMBNAIL), paths), strict=True):
            found[path] = uri
            on_progress(1)
    return found
