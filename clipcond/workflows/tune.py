"""Prompt tuning on pictures with known classes, beside zero-shot, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError
from clipcond.files import check_output
from clipcond.workflows import gallery, labelled
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.gallery import GalleryOptions
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from clipcond.find.labels import Label
    from clipcond.find.probe import Examples
    from clipcond.find.tune import Start, TuneReport
    from clipcond.rerank.scorer import Scorer

KINDS = ("templates", "shared", "per-class")
FALLBACK = "a photo of a {}."
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """Pictures with known classes, what is learned, and where it goes.

    train: a folder with a folder for each class, or a table of image and label.   test: the same, of other pictures; left out,
    a share of `train`.   learn: of KINDS; empty for all that can be.   sentence: the words before its `{}` become context; left
    out, the first template with such words, else `a photo of a {}.`   hold_out: the share of each class for validation.
    out: for the best of what was learned.   embedding: for shared context, as a textual inversion.
    Raises OptionsError for options that contradict one another or are out of range.
    """

    train: Path
    test: Path | None = None
    learn: tuple[str, ...] = ()
    labels_file: Path | None = None
    templates: str = "photo"
    sentence: str | None = None
    hold_out: float = 0.2
    rate: float = 0.05
    steps: int = 200
    patience: int = 10
    seed: int = 0
    out: Path | None = None
    embedding: Path | None = None
    overwrite: bool = False
    model: str = "mini"
    batch_size: int = 32
    cache: bool = True

    def __post_init__(self) -> None:
        if unknown := [each for each in self.learn if each not in KINDS]:
            raise OptionsError(f"--learn {unknown[0]}: expected {', '.join(KINDS)}, with commas between")
        if self.embedding is not None and self.learn and "shared" not in self.learn:
            raise OptionsError("--embedding holds shared context, which --learn does not name; add shared")
        if self.sentence is not None and not self.sentence.partition("{}")[0].strip():
            raise OptionsError(f"--sentence {self.sentence!r}: expected words before {{}}, as in 'a photo of a {{}}.'")
        if self.sentence is not None and "{}" not in self.sentence:
            raise OptionsError(f"--sentence {self.sentence!r} has no {{}} where the class goes")
        if not 0 < self.hold_out < 0.5:
            raise OptionsError(f"--hold-out is {self.hold_out:g}; expected a share above 0 and below 0.5")
        if not 0 < self.rate <= 10:
            raise OptionsError(f"--rate is {self.rate:g}; expected more than 0, up to 10")
        for flag, number in (("--steps", self.steps), ("--patience", self.patience)):
            if number < 1:
                raise OptionsError(f"{flag} is {number}; expected 1 or more")
        if self.seed < 0:
            raise OptionsError(f"--seed is {self.seed}; expected 0 or more")
        for flag, path in (("--out", self.out), ("--embedding", self.embedding)):
            if path is not None and path.suffix != _SUFFIX:
                raise OptionsError(f"{flag} {path}: expected a name that ends in {_SUFFIX}")
        if self.out is not None and self.out == self.embedding:
            raise OptionsError("--out and --embedding name the same file; give each its own")


def run(options: TuneOptions, events: Events = ignore) -> TuneReport:
    """Read the pictures and classes, load the model, embed, learn, compare and save.

    Raises OptionsError, DataError, ResourceMissing and OutputExists before a model is loaded; ModelError and ConfigError.
    """
    _check_files(options)
    train = labelled.find(options.train)
    test = None if options.test is None else labelled.find(options.test)
    if test is not None:
        labelled.say_shared(train, test, events)
    names = sorted(set(train.values()) | set(test.values() if test is not None else ()))
    labels = labelled.classes(names, options.labels_file, options.templates)
    if len(labels) < 2:
        raise OptionsError(f"{options.train} has one class, {labels[0].name!r}; expected two or more to tell apart")
    templates, sentence = _templates(options, labels, events), _sentence(options)

    from clipcond.find.tune import TuneSettings, split, tune

    settings = TuneSettings(rate=options.rate, steps=options.steps, patience=options.patience)
    texts = [text for label in labels for text in label.texts]
    scorer = gallery.load_scorer(options.model, events, (*texts, sentence.replace("{}", labels[0].name)))
    own, other = _embedded(options, train, test, [label.name for label in labels], scorer, events)
    pictures = split(own, options.hold_out, options.seed, other)
    starts = _starts(options, scorer, labels, templates, sentence, events)
    zero_shot = gallery.text_classifier(scorer, labels, cache=options.cache).vectors
    with task(events, "tuning", len(starts) * options.steps, "steps") as advance:
        report = tune(scorer, pictures, zero_shot, starts, [label.name for label in labels], settings, advance)
    _save(options, report, events)
    return report


def _check_files(options: TuneOptions) -> None:
    check_model(options.model)
    for path in (options.out, options.embedding):
        if path is not None:
            check_output(path, "name another file or give --force", overwrite=options.overwrite)


def _templates(options: TuneOptions, labels: tuple[Label, ...], events: Events) -> tuple[str, ...]:
    """The templates whose weights are learned; none where there is no choice among them or labels are described."""
    from clipcond.find.labels import read_templates

    templates = read_templates(options.templates)
    described = next((label.name for label in labels if label.texts != templates.filled(label.name)), None)
    if options.learn and "templates" not in options.learn:
        return ()
    reason = ""
    if described is not None:
        reason = (
            f"{options.labels_file} describes {described!r} in sentences of its own, to which templates do not apply"
        )
    elif len(templates.sentences) < 2:
        reason = f"--templates {options.templates} has one sentence, so there is nothing to weigh"
    if reason and options.learn:
        raise OptionsError(f"{reason}; leave templates out of --learn")
    if reason:
        events(Note(f"{reason}; only context is learned"))
    return () if reason else templates.sentences


def _sentence(options: TuneOptions) -> str:
    """The sentence that context stands in."""
    from clipcond.find.labels import read_templates

    sentences = read_templates(options.templates).sentences
    return options.sentence or next((each for each in sentences if each.partition("{}")[0].strip()), FALLBACK)


def _embedded(
    options: TuneOptions,
    train: dict[Path, str],
    test: dict[Path, str] | None,
    names: list[str],
    scorer: Scorer,
    events: Events,
) -> tuple[Examples, Examples | None]:
    def of(source: Path) -> GalleryOptions:
        return GalleryOptions(
            images=(str(source),), model=options.model, batch_size=options.batch_size, cache=options.cache
        )

    own = labelled.embed(train, names, scorer, of(options.train), events)
    if test is None or options.test is None:
        return own, None
    return own, labelled.embed(test, names, scorer, of(options.test), events)


def _starts(
    options: TuneOptions,
    scorer: Scorer,
    labels: tuple[Label, ...],
    templates: tuple[str, ...],
    sentence: str,
    events: Events,
) -> list[Start]:
    """The starts of each kind. Without --learn, a text encoder of another kind than CLIP's learns templates alone."""
    from clipcond.find.tune import start_of

    kinds = [kind for kind in KINDS if (kind in options.learn or not options.learn) and (kind != KINDS[0] or templates)]
    if not options.learn and not scorer.dual.reads_clip_tokens and templates and options.embedding is None:
        events(Note(f"{options.model} does not read prompts as CLIP does; no context is learned, only templates"))
        kinds = [KINDS[0]]
    return [start_of(kind, scorer, [label.name for label in labels], templates, sentence) for kind in kinds]


def _save(options: TuneOptions, report: TuneReport, events: Events) -> None:
    from clipcond.find.tuned import save_inversion, save_tuned

    if options.out is not None:
        best = report.best_tuned
        worse = "" if report.best else ", though zero-shot is no worse on the validation pictures"
        save_tuned(options.out, best, overwrite=options.overwrite)
        events(Note(f"{options.out} holds {best.kind}{worse}"))
    if options.embedding is not None:
        save_inversion(options.embedding, report.learned("shared"), overwrite=options.overwrite)
