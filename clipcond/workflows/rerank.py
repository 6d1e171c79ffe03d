"""A ranking of picture files against a prompt, or each against its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from clipcond.errors import ImageError, OptionsError, ResourceMissing
from clipcond.wording import visible
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.model_names import check_model
from clipcond.workflows.stored_embeddings import find_stored, stored_scorer, with_stored_dtype

if TYPE_CHECKING:
    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.rerank.pairing import Pairing
    from clipcond.rerank.ranking import Ranking
    from clipcond.rerank.scorer import Scorer
    from clipcond.rerank.settings import Scoring, Selection
    from clipcond.score.aesthetic import AestheticHead
    from clipcond.workflows.stored_embeddings import StoredEmbeddings

LongPrompt = Literal["mean", "max", "first", "min"]
Precision = Literal["fp32", "auto", "bf16", "fp16"]
View = Literal["crop", "pad", "tiles"]
DEFAULT_MODEL = "mini"
DEFAULT_SCORE = "cosine"
_MOST_ROWS = 2_000_000  # prompts × pictures: what memory holds


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Pictures, the texts to match, the numbers, and what to keep.

    images: files, folders, tars, patterns, or a folder that `embed` made.   files_from: a list of more, `-` for standard input.
    prompt: None is each
    picture's own.   prompts: a file of many, each against every picture.   assign: for what shows the ranking: match both.
    pairs: a table of pictures and their prompts, in place of images.
    score: a column, a sum of columns, or several with commas, of which the first orders.   thresholds: `COLUMN>=VALUE`, or
    a cosine.   distractors, aesthetic, scores, references: files for the columns that need them.   cache: remember embeddings.
    precision: of the image encoder.   device: None is CUDA where there is one.   draft: decode JPEGs at a part of their size.
    view: what of a picture the model sees, in place of what its own config says.
    Raises OptionsError for options that contradict one another or are out of range.
    """

    images: tuple[str, ...] = ()
    files_from: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    prompts: Path | None = None
    assign: bool = False
    pairs: Path | None = None
    model: str = DEFAULT_MODEL
    score: str = DEFAULT_SCORE
    distractors: Path | None = None
    aesthetic: Path | None = None
    scores: Path | None = None
    references: tuple[str, ...] = ()
    long_prompt: LongPrompt = "mean"
    phrases: bool = False
    missing_margin: float | None = None
    top: int | None = None
    top_percent: float | None = None
    thresholds: tuple[str, ...] = ()
    per_prompt: bool = False
    diversity: float = 0.0
    duplicates: float | None = None
    recursive: bool = False
    batch_size: int = 32
    precision: Precision = "fp32"
    device: str | None = None
    draft: bool = False
    view: View | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        from clipcond.rerank.settings import parse_scores

        parse_scores(self.score)
        self.selection()
        if problem := _problem(self):
            raise OptionsError(problem)

    def selection(self) -> Selection:
        """The choice of pictures to keep."""
        from clipcond.rerank.settings import Selection, parse_threshold

        return Selection(
            top=self.top,
            top_percent=self.top_percent,
            thresholds=tuple(map(parse_threshold, self.thresholds)),
            per_prompt=self.per_prompt or self.prompts is not None,
            diversity=self.diversity,
            duplicates=self.duplicates,
        )


def _problem(options: RerankOptions) -> str:
    texts = {"--prompt": options.prompt, "--prompts": options.prompts, "--pairs": options.pairs}
    given = [name for name, value in texts.items() if value is not None]
    if len(given) > 1:
        return f"{given[0]} and {given[1]} exclude each other"
    if options.assign and options.prompts is None:
        return "--assign matches many prompts with pictures; give them with --prompts FILE"
    named = bool(options.images) or options.files_from is not None
    if options.pairs is not None and named:
        return "--pairs names the pictures; leave the others out"
    if options.pairs is None and not named:
        return "no pictures are named; give files, folders, quoted patterns, or a list with --files-from"
    if "-" in options.images:
        return "- is no picture; --files-from - reads their names from standard input"
    if options.prompt is not None and not options.prompt.strip():
        return "the prompt is empty; pass a text, or none to use each picture's own"
    if options.batch_size < 1:
        return f"batch_size is {options.batch_size}; expected 1 or more"
    if options.precision not in get_args(Precision):
        return f"--precision is {options.precision}; expected one of {', '.join(get_args(Precision))}"
    if options.view is not None and options.view not in get_args(View):
        return f"--view is {visible(options.view)}; expected one of {', '.join(get_args(View))}"
    if options.long_prompt not in get_args(LongPrompt):
        return f"--long-prompt is {options.long_prompt}; expected one of {', '.join(get_args(LongPrompt))}"
    if options.missing_margin is not None and not options.missing_margin > 0:
        return f"--missing-margin is {options.missing_margin:g}; expected a cosine above 0, such as 0.03"
    return ""


def run(
    options: RerankOptions, events: Events = ignore, *, check: Callable[[Iterable[Path]], object] | None = None
) -> Ranking:
    """Find the pictures, load the model and rank. A source without pictures becomes a note.

    check: told of the pictures before the model is loaded, and may raise.

    All files are read and checked before the model is loaded. Raises ImageError where no source has any picture,
    DataError for a table that will not do, ModelError, and OptionsError.
    """
    stored = find_stored(options.images)
    if stored is not None and (options.precision != "fp32" or options.view is not None or options.draft):
        raise OptionsError(f"{stored.folder} holds embeddings, made with their own --precision, --view and --draft")
    if stored is not None and options.files_from is not None:
        raise OptionsError(f"{stored.folder} holds embeddings of pictures; name it alone, without --files-from")
    pairings = _pairings(options, events, stored)
    if check is not None:
        check(pairing.path for pairing in pairings)
    scoring = _scoring(options)
    selection = options.selection()
    selection.check(scoring.columns)
    if stored is not None and options.model == DEFAULT_MODEL:
        options = replace(options, model=stored.model)  # whose texts alone can be compared with them
    check_model(options.model)
    from clipcond.rerank.ranking import rank_pictures

    scorer = _scorer(options, events) if stored is None else stored_scorer(stored, options.model, events)
    cache = _cache(options)
    pictures = len({pairing.path for pairing in pairings})
    with task(events, "scoring", pictures, "pictures") as advance:
        ranking = rank_pictures(
            pairings,
            scorer=scorer,
            scoring=scoring,
            selection=selection,
            batch_size=options.batch_size,
            on_progress=advance,
            cache=cache,
            prompt=options.prompt,
            embedded=None if stored is None else stored.embedded,
        )
    if cache is not None:
        cache.close()
    if stored is not None:
        ranking = with_stored_dtype(ranking, stored)
    for note in ranking.notes:
        events(Note(note))
    _note_iqa(scorer, ranking, options.model, events)
    return ranking


def _scorer(options: RerankOptions, events: Events) -> Scorer:
    from clipcond.rerank.scorer import Scorer

    with task(events, f"loading {options.model}"):
        scorer = Scorer.load(
            options.model, device=options.device, precision=options.precision, view=options.view, draft=options.draft
        )
    for note in scorer.dual.notes:
        events(Note(note))
    return scorer


def _note_iqa(scorer: Scorer, ranking: Ranking, model: str, events: Events) -> None:
    """Note the words of the pair that `iqa` compares, where it was computed, that the model has never seen."""
    from clipcond.rerank.columns import IQA_PAIR
    from clipcond.rerank.unseen import unseen_in, unseen_line

    if any("iqa" in row.scores for row in ranking.scored[:1]):
        name = f"iqa compares “{IQA_PAIR[0]}” with “{IQA_PAIR[1]}”: {model}"
        if text := unseen_line(unseen_in(IQA_PAIR, scorer), name):
            events(Note(text))


def _cache(options: RerankOptions) -> EmbeddingCache | None:
    if not options.cache:
        return None
    from clipcond.encode.embedding_cache import EmbeddingCache

    return EmbeddingCache()


def _scoring(options: RerankOptions) -> Scoring:
    """The numbers to compute, their files read. Raises DataError, ResourceMissing and OptionsError."""
    from clipcond.rerank.external_scores import read_external_scores
    from clipcond.rerank.settings import Scoring, parse_scores, parse_threshold
    from clipcond.rerank.tables import read_lines

    return Scoring(
        scores=parse_scores(options.score),
        also=tuple(parse_threshold(text).column for text in options.thresholds),
        long_prompt=options.long_prompt,
        phrases=options.phrases,
        missing_margin=options.missing_margin,
        distractors=() if options.distractors is None else read_lines(options.distractors, "distractor prompts"),
        references=_references(options),
        aesthetic=None if options.aesthetic is None else _head(options.aesthetic),
        external=None if options.scores is None else read_external_scores(options.scores),
    )


def _references(options: RerankOptions) -> tuple[Path, ...]:
    from clipcond.images.find import find_pictures

    found = find_pictures(options.references)
    if found.empty:
        raise ImageError(f"no pictures in {', '.join(found.empty)}, named by --reference")
    return found.paths


def _head(path: Path) -> AestheticHead:
    if not path.is_file():
        raise ResourceMissing(f"no aesthetic head at {path}")
    from clipcond.models.aesthetic_head import read_head_file
    from clipcond.score.aesthetic import aesthetic_head

    file = read_head_file(path)
    return aesthetic_head(file.name, file.tensors, file.metadata)


def _pairings(options: RerankOptions, events: Events, stored: StoredEmbeddings | None) -> Sequence[Pairing]:
    """Every picture with the prompt it is scored against. Raises ImageError, DataError and OptionsError."""
    from clipcond.rerank.pairs import read_pairs, read_prompts

    if options.pairs is not None:
        return read_pairs(options.pairs, options.negative_prompt)
    prompts = None if options.prompts is None else read_prompts(options.prompts)
    paths = _pictures(options, events) if stored is None else stored.paths
    from clipcond.rerank.pairing import Pairing

    if prompts is None:
        negative = options.negative_prompt
        return [Pairing(path=path, prompt=options.prompt, negative_prompt=negative) for path in paths]
    if len(prompts) * len(paths) > _MOST_ROWS:
        raise OptionsError(
            f"{len(prompts):,} prompts × {len(paths):,} pictures are more than {_MOST_ROWS:,} scores; give fewer of either"
        )
    source = f"prompts ({options.prompts.name})" if options.prompts else ""
    return [
        Pairing(path=path, prompt=text, negative_prompt=options.negative_prompt or negative, source=source)
        for text, negative in prompts
        for path in paths
    ]


def _pictures(options: RerankOptions, events: Events) -> tuple[Path, ...]:
    from clipcond.images.find import find_pictures

    listed = () if options.files_from is None else _listed(options.files_from, events)
    found = find_pictures(options.images, listed=listed, recursive=options.recursive)
    more = "" if options.recursive else "; --recursive looks into the folders below"
    if not found.paths:
        raise ImageError(f"no pictures in {', '.join(found.empty)}{more}")
    for source in found.empty:
        events(Note(f"no pictures in {source}{more}"))
    return found.paths


def _listed(source: str, events: Events) -> tuple[Path, ...]:
    from clipcond.images.path_list import read_path_list

    found = read_path_list(source)
    if found.empty:
        names = "an empty name" if found.empty == 1 else f"{found.empty:,} empty names"
        events(Note(f"{'standard input' if source == '-' else source}: {names} left out"))
    return found.paths
