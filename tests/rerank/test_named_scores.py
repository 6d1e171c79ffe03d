"""Columns on named scales, sums of them, long prompts, phrases, numbers of others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcond.errors import ConfigError, DataError, ImageError, OptionsError
from clipcond.rerank.external_scores import read_external_scores
from clipcond.rerank.pairing import Pairing
from clipcond.rerank.phrases import split_phrases
from clipcond.rerank.ranking import rank_pictures
from clipcond.rerank.rows import Ranking
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.settings import Scoring, Selection, parse_scores, parse_threshold
from clipcond.score.aesthetic import AestheticHead

COLOURS = ("red", "lime", "blue", "white", "black")


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for colour in COLOURS:
        Image.new("RGB", (32, 48), colour).save(tmp_path / f"{colour}.png")
    return sorted(tmp_path.glob("*.png"))


def ranked(
    paths: list[Path],
    scorer: Scorer,
    score: str,
    prompt: str = "a red fox",
    negative: str | None = None,
    **more: object,
) -> Ranking:
    pairs = [Pairing(path=path, prompt=prompt, negative_prompt=negative) for path in paths]
    return rank_pictures(pairs, scorer=scorer, scoring=Scoring(scores=parse_scores(score), **more))  # type: ignore[arg-type]


def cosine(scorer: Scorer, path: Path, text: str) -> float:
    return float(scorer.score([Image.open(path)], text).cosine[0])


def test_every_column_of_a_cosine_is_its_formula(paths: list[Path], scorer: Scorer) -> None:
    names = "clipscore, cosine, logit, probability, pick, margin, iqa"
    ranking = ranked(paths, scorer, names, negative="the sea", distractors=("a cat", "a red fox", "a dog"))
    scale = scorer.dual.logit_scale
    own = {row.path: cosine(scorer, row.path, "a red fox") for row in ranking.rows}
    total = sum(np.exp(scale * value) for value in own.values())
    for row in ranking.rows:
        c, others = own[row.path], [cosine(scorer, row.path, text) for text in ("a cat", "a dog")]
        good, bad = (cosine(scorer, row.path, text) for text in ("Good photo.", "Bad photo."))
        expected = {
            "cosine": c,
            "clipscore": 2.5 * max(c, 0),
            "logit": scale * c,
            "probability": np.exp(scale * c) / sum(np.exp(scale * np.array([c, *others]))),
            "pick": np.exp(scale * c) / total,
            "margin": c - 0.5 * max(cosine(scorer, row.path, "the sea"), 0),
            "iqa": 1 / (1 + np.exp(scale * (bad - good))),
        }
        assert {name: row.scores[name] for name in expected} == pytest.approx(expected, abs=1e-4)
        assert row.score == row.scores["clipscore"]


def test_the_header_says_what_the_numbers_are(paths: list[Path], scorer: Scorer) -> None:
    header = ranked(paths, scorer, "clipscore").header
    assert header is not None
    assert header.line() == f"score clipscore · model {scorer.dual.name} · 32×32 centre crop, bicubic · float32"
    assert dict(header.scales)["clipscore"] == "2.5 · max(cosine, 0)"


def test_a_sum_is_of_z_scores_within_the_prompt(paths: list[Path], scorer: Scorer) -> None:
    ranking = ranked(paths, scorer, "0.7*cosine + 0.3*iqa")
    rows = ranking.rows
    z = {name: np.array([row.scores[name] for row in rows]) for name in ("cosine", "iqa")}
    z = {name: (each - each.mean()) / each.std() for name, each in z.items()}
    assert [row.score for row in rows] == pytest.approx(0.7 * z["cosine"] + 0.3 * z["iqa"], abs=1e-4)
    assert [row.score for row in rows] == sorted((row.score or 0 for row in rows), reverse=True)


def test_long_prompts_by_policy(paths: list[Path], scorer: Scorer) -> None:
    prompt = "cat " * 75 + "the red sea"
    parts = [cosine(scorer, paths[0], "cat " * 75), cosine(scorer, paths[0], "the red sea")]
    wanted = {"max": max(parts), "min": min(parts), "first": parts[0], "mean": (75 * parts[0] + 3 * parts[1]) / 78}
    for policy, value in wanted.items():
        row = ranked(paths[:1], scorer, "cosine", prompt, long_prompt=policy).rows[0]
        assert row.cosine == pytest.approx(value, abs=2e-6)
        assert row.chunks == 2


def test_phrases_are_scored_one_by_one(paths: list[Path], scorer: Scorer) -> None:
    row = ranked(paths[:1], scorer, "cosine", "a red fox, the sea. a hat", phrases=True, missing_margin=1e-4).rows[0]
    assert [each.text for each in row.phrases] == ["a red fox", "the sea", "a hat"]
    assert [each.cosine for each in row.phrases] == pytest.approx(
        [cosine(scorer, paths[0], each.text) for each in row.phrases], abs=2e-6
    )
    weakest = min(row.phrases, key=lambda each: each.cosine)
    assert weakest.missing
    assert row.missing[0] == weakest.text
    assert not max(row.phrases, key=lambda each: each.cosine).missing


def test_phrases_end_at_commas_stops_and_breaks_but_not_in_numbers() -> None:
    text = "a fox 1.5 m tall, a hat; the sea. BREAK night AND day, a hat, ,\n漢、字"
    assert split_phrases(text) == ("a fox 1.5 m tall", "a hat", "the sea", "night", "day", "漢", "字")


def test_a_head_scores_the_vectors_and_names_its_tower(paths: list[Path], scorer: Scorer) -> None:
    head = AestheticHead(name="mine", weight=np.arange(24.0), bias=1.0)
    ranking = ranked(paths, scorer, "aesthetic", aesthetic=head)
    row = ranking.rows[0]
    assert row.scores["aesthetic"] == pytest.approx(float(ranking.vectors[row.path] @ np.arange(24.0)) + 1, abs=1e-4)
    assert "mine does not say which model" in ranking.notes[0]
    for path in paths:
        path.unlink()
    with pytest.raises(ConfigError, match="made for another model"):  # before any picture is missed
        ranked(paths, scorer, "aesthetic", aesthetic=AestheticHead(name="mine", weight=np.ones(768), bias=0.0))


def test_numbers_of_others_by_name(paths: list[Path], scorer: Scorer, tmp_path: Path) -> None:
    table = tmp_path / "hps.csv"
    table.write_text("image,hps,note\n" + "".join(f"{path.name},{n},x\n" for n, path in enumerate(paths[:4])))
    external = read_external_scores(table)
    assert external.columns == ("hps",)
    ranking = ranked(paths, scorer, "hps", external=external)
    assert [row.path for row in ranking.scored] == paths[3::-1]
    assert [(row.path, row.stage, row.error) for row in ranking.errors] == [
        (paths[4], "scores", f"{table} has no numbers for it")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column for the picture"),
        ("image,hps\na.png,x\n", "no column of finite numbers"),
        ("image,hps\na.png,inf\n", "no column of finite numbers"),
        ("image,hps\na.png\n", "row 2: 1 values for 2 columns"),
        ("image\n", "holds no rows"),
    ],
)
def test_a_table_that_will_not_do_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_external_scores(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("clipscor", "no column 'clipscor'; did you mean clipscore?"),
        ("probability", "probability needs --distractors"),
        ("aesthetic", "aesthetic needs --aesthetic FILE"),
        ("", "--score is empty"),
        ("cosine * cosine", "two columns cannot be multiplied"),
    ],
)
def test_a_score_that_cannot_be_computed(score: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scoring(scores=parse_scores(score))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "threshold is 2; expected a cosine"),
        ("cosine=>", "expected COLUMN>=VALUE"),
        ("x>=1e", "1e is no number"),
        ("nan", "threshold is nan"),
    ],
)
def test_a_threshold_that_is_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_threshold(text)


def test_a_threshold_on_an_unknown_column() -> None:
    with pytest.raises(OptionsError, match="no column 'hps'"):
        Selection(thresholds=(parse_threshold("hps>=1"),)).check(("cosine",))


def test_a_phrase_that_nearly_every_picture_lacks_is_a_note_and_marks_none(paths: list[Path], scorer: Scorer) -> None:
    given = ("cosine", "a red fox, the sea. a hat")
    alone = [ranked([path], scorer, *given, phrases=True, missing_margin=1e-4).rows[0] for path in paths]
    count = Counter(text for row in alone for text in row.missing)
    often = {text for text, number in count.items() if number >= 4}
    assert often
    together = ranked(paths, scorer, *given, phrases=True, missing_margin=1e-4)
    assert Counter(text for row in together.rows for text in row.missing) == {
        text: number for text, number in count.items() if text not in often
    }
    assert {note.split("”")[0].removeprefix("“") for note in together.notes} == often
    assert "of 5 pictures: none shows it, or the model does not know it" in together.notes[0]


def test_refclipscore_is_the_harmonic_mean_with_the_nearest_reference(paths: list[Path], scorer: Scorer) -> None:
    ranking = ranked(paths, scorer, "refclipscore", references=tuple(paths[:2]))
    vectors = scorer.dual.image.embed([Image.open(path) for path in paths]).double().numpy()
    for row in ranking.rows:
        own = vectors[paths.index(row.path)]
        a, b = 2.5 * max(cosine(scorer, row.path, "a red fox"), 0), max(*(own @ vectors[:2].T), 0)
        assert row.score == pytest.approx(2 * a * b / (a + b) if a + b else 0, abs=1e-5)
    paths[0].write_bytes(b"")
    with pytest.raises(ImageError, match=r"the reference .* cannot be used: is empty"):
        ranked(paths[2:], scorer, "refclipscore", references=tuple(paths[:2]))
