from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipcond.errors import ConfigError, ImageError
from clipcond.find.gallery import Gallery
from clipcond.find.search import Filter, query_vector, search
from clipcond.score.query import parse_query


def first(pictures: Gallery, query: str, **filters) -> list[str]:
    direction = query_vector(parse_query(query), pictures.scorer)
    ranking = search(pictures, query, direction, top=3, by=Filter(**filters))
    return [row.path.parent.name for row in ranking.kept]


def test_words_find_what_they_say(pictures: Gallery) -> None:
    assert first(pictures, "a red circle") == ["red"] * 3
    assert first(pictures, "yellow") == ["yellow"] * 3


def test_a_picture_finds_itself_first_and_its_like(pictures: Gallery) -> None:
    direction = query_vector(parse_query(str(pictures.paths[0])), pictures.scorer)
    ranking = search(pictures, "like", direction)
    assert ranking.rows[0].path == pictures.paths[0]
    assert ranking.rows[0].score == pytest.approx(1, abs=1e-5)


def test_sums_and_differences(pictures: Gallery) -> None:
    assert first(pictures, "red + blue - 2:blue") == ["red"] * 3
    red = next(path for path in pictures.paths if path.parent.name == "red")
    assert first(pictures, f"{red} - 3:red + 3:green") == ["green"] * 3
    with pytest.raises(ConfigError, match="cancel out"):
        query_vector(parse_query("red - red"), pictures.scorer)


def test_weights_do_not_make_scores_larger(pictures: Gallery) -> None:
    once = query_vector(parse_query("red"), pictures.scorer)
    assert query_vector(parse_query("5:red"), pictures.scorer) == pytest.approx(once)


def test_filters(pictures: Gallery) -> None:
    assert first(pictures, "a red circle", within="*/blue/*") == ["blue"] * 3
    assert first(pictures, "a red circle", min_pixels=64 * 64 + 1) == []
    assert first(pictures, "a red circle", min_pixels=64 * 64)
    assert first(pictures, "a red circle", min_score=0.99) == []
    now = max(picture.modified for picture in pictures.pictures)
    assert first(pictures, "a red circle", since=now + 1) == []
    assert first(pictures, "a red circle", until=now)


def test_a_picture_of_the_query_must_be_readable(pictures: Gallery, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    os.utime(tmp_path / "bad.png")
    with pytest.raises(ImageError, match=r"bad\.png of the query cannot be used"):
        query_vector(parse_query(str(tmp_path / "bad.png")), pictures.scorer)
