"""Rankings of files: order, selection, errors as rows."""

from __future__ import annotations

import json
import os
import random
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import clipcond
from clipcond import resources
from clipcond.encode.image import ImageTower
from clipcond.errors import ConfigError, ModelError
from clipcond.images.find import find_pictures
from clipcond.images.preprocess import Preprocess
from clipcond.prompt.infotext import format_infotext
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer

SETTINGS = {"Steps": 20, "Sampler": "Euler", "Seed": 1}


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven different pictures, one of them twice, and four files that are none."""
    noise = np.random.default_rng(0)
    for number in range(7):
        pixels = noise.integers(0, 256, (9, 7 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 50)).save(tmp_path / f"{number}.png")
    (tmp_path / "5 again.png").write_bytes((tmp_path / "5.png").read_bytes())
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "half.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("*.png")), folder / "gone.png"]


def test_order_marks_and_errors(folder: Path, scorer: Scorer) -> None:
    ranking = rerank(files(folder), "a red fox", scorer=scorer, top=3)
    scored = ranking.scored
    assert [row.rank for row in scored] == [1, 2, 3, 4, 5, 6, 7, 8]
    keys = [(-(row.cosine or 0), str(row.path)) for row in scored]
    assert keys == sorted(keys)
    assert len(set(keys)) == 8
    assert [row.kept for row in ranking.rows] == [True] * 3 + [False] * 9
    assert ranking.kept == scored[:3]
    assert [(row.path.name, row.error) for row in ranking.errors] == [
        ("empty.png", "is empty"),
        ("gone.png", "no such file"),
        ("half.png", ranking.errors[2].error),
        ("text.png", "is not a picture in a format that can be read"),
    ]
    assert (ranking.errors[2].error or "").startswith("cannot be decoded (")
    assert all(row.rank is None and row.cosine is None and not row.kept for row in ranking.errors)
    best = scored[0]
    assert best.clip_score == pytest.approx(2.5 * max(best.cosine or 0, 0), abs=1e-6)
    assert (best.prompt, best.content_tokens, best.chunks) == ("a red fox", 3, 1)
    assert (ranking.prompt, ranking.model) == ("a red fox", scorer.dual.name)


def test_equal_pictures_stand_in_the_order_of_their_paths(folder: Path, scorer: Scorer) -> None:
    ranking = rerank(reversed(files(folder)), "a fox", scorer=scorer, batch_size=3)
    rows = {row.path.name: row for row in ranking.scored}
    assert rows["5.png"].cosine == rows["5 again.png"].cosine
    assert rows["5.png"].rank == (rows["5 again.png"].rank or 0) + 1


def test_batches_and_the_order_given_change_nothing(folder: Path, scorer: Scorer) -> None:
    one = rerank(files(folder), "a fox", scorer=scorer, batch_size=1)
    many = rerank(files(folder)[::-1], "a fox", scorer=scorer)
    assert [row.path for row in one.rows] == [row.path for row in many.rows]
    pairs = zip(one.scored, many.scored, strict=True)
    assert max(abs((a.cosine or 0) - (b.cosine or 0)) for a, b in pairs) <= 1.5e-6


def test_a_file_given_twice_is_scored_once(folder: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    embed = ImageTower.embed_pixels
    monkeypatch.setattr(ImageTower, "embed_pixels", lambda self, p, n: (counts.append(len(p)), embed(self, p, n))[1])
    monkeypatch.chdir(folder)
    ranking = rerank(["0.png", folder / "0.png", "./0.png", "1.png"], "a fox", scorer=scorer)
    assert sorted(str(row.path) for row in ranking.rows) == ["0.png", "1.png"]
    assert counts == [2]


def test_threshold_and_top_together(folder: Path, scorer: Scorer) -> None:
    everything = rerank(files(folder), "a fox", scorer=scorer)
    assert len(everything.kept) == 8
    least = everything.scored[4].cosine
    assert [row.kept for row in rerank(files(folder), "a fox", scorer=scorer, threshold=least).scored] == [
        (row.cosine or 0) >= (least or 0) for row in everything.scored
    ]
    assert len(rerank(files(folder), "a fox", scorer=scorer, threshold=least, top=2).kept) == 2
    assert len(rerank(files(folder), "a fox", scorer=scorer, top=99).kept) == 8
    nothing = rerank(files(folder), "a fox", scorer=scorer, threshold=1.0, diversity=0.5)
    assert nothing.kept == ()
    assert len(nothing.scored) == 8


def test_nothing_to_score_is_a_ranking_of_errors(folder: Path, scorer: Scorer) -> None:
    ranking = rerank([folder / "text.png"], "a fox", scorer=scorer, diversity=0.5, top=1)
    assert (ranking.scored, ranking.kept, len(ranking.errors)) == ((), (), 1)
    assert rerank([], "a fox", scorer=scorer).rows == ()


def saved(folder: Path, name: str, prompt: str) -> Path:
    info = PngInfo()
    info.add_text("parameters", format_infotext(prompt, "bad", SETTINGS))
    Image.new("RGB", (20, 20), "red").save(folder / name, pnginfo=info)
    return folder / name


def test_each_picture_against_its_own_prompt(folder: Path, scorer: Scorer) -> None:
    own = [saved(folder, "x.png", "a red fox"), saved(folder, "y.png", "the sea"), saved(folder, "z.png", "")]
    ranking = rerank([*own, folder / "0.png"], scorer=scorer)
    rows = {row.path.name: row for row in ranking.rows}
    assert ranking.prompt is None
    assert (rows["x.png"].prompt, rows["y.png"].prompt) == ("a red fox", "the sea")
    assert rows["z.png"].error == "its own prompt is empty; pass a prompt"
    assert (rows["0.png"].error or "").startswith("it carries no prompt")
    alone = rerank([folder / "y.png"], "the sea", scorer=scorer).rows[0]
    assert rows["y.png"].cosine == pytest.approx(alone.cosine, abs=2e-6)
    assert rows["x.png"].cosine != rows["y.png"].cosine


def test_long_prompts_report_their_chunks(folder: Path, scorer: Scorer) -> None:
    row = rerank([folder / "0.png"], "cat " * 100, scorer=scorer).rows[0]
    assert (row.content_tokens, row.chunks) == (100, 2)


def test_progress_counts_every_file(folder: Path, scorer: Scorer) -> None:
    counts: list[int] = []
    rerank(files(folder), "a fox", scorer=scorer, batch_size=2, on_progress=counts.append)
    assert sum(counts) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"top": 0}, "top is 0; expected 1 or more"),
        ({"threshold": 1.5}, "threshold is 1.5; expected a cosine"),
        ({"diversity": -0.1}, "diversity is -0.1; expected 0 to 1"),
        ({"batch_size": 0}, "batch_size is 0; expected 1 or more"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str, scorer: Scorer) -> None:
    with pytest.raises(ConfigError, match=message):
        rerank([], **{"prompt": "a fox", "scorer": scorer, **settings})  # type: ignore[arg-type]


def test_diversity_parts_equal_pictures(folder: Path, scorer: Scorer) -> None:
    plain = rerank(files(folder), "a fox", scorer=scorer)
    varied = rerank(files(folder), "a fox", scorer=scorer, diversity=1.0)
    assert varied.scored[0].path == plain.scored[0].path
    rank = {row.path.name: row.rank or 0 for row in varied.scored}
    assert abs(rank["5.png"] - rank["5 again.png"]) > 1
    assert max(rank["5.png"], rank["5 again.png"]) == 8
    short = rerank(files(folder), "a fox", scorer=scorer, diversity=1.0, top=3)
    assert [row.path for row in short.kept] == [row.path for row in varied.scored[:3]]
    assert sorted(row.rank or 0 for row in short.scored) == list(range(1, 9))


def test_the_package_can_be_called(folder: Path, scorer: Scorer) -> None:
    assert len(clipcond.rerank([folder / "0.png"], "a fox", scorer=scorer).rows) == 1  # type: ignore[operator]


def test_rows_as_json(folder: Path, scorer: Scorer) -> None:
    row = rerank([folder / "gone.png"], "a fox", scorer=scorer).rows[0]
    texts = ["prompt", "negative_prompt", "prompt_source", "seed", "content_tokens", "chunks"]
    empty = ["rank", "score", *texts, "width", "height", "share_seen", "group"]
    told = {"path": str(folder / "gone.png"), "tied": False, "kept": False, "stage": "read", "error": "no such file"}
    assert row.to_json() == {**told, **dict.fromkeys(empty)}


def test_the_embedded_model_finds_the_scene(tmp_path: Path) -> None:
    weights = Path(resources.__file__).parent / "mini" / "weights" / "clip"
    if not weights.is_dir():
        pytest.skip(f"the embedded model is not there yet: {weights}")
    from clipcond.mini import world

    scorer = Scorer.load("mini", device="cpu")
    rng = random.Random(7)
    scenes = [world.sample(rng, least=1, most=4) for _ in range(20)]
    for number, scene in enumerate(scenes):
        world.render(scene, rng).save(tmp_path / f"{number:02}.png")
    right = 0
    for number, scene in enumerate(scenes):
        best = rerank(tmp_path.glob("*.png"), world.caption(scene, rng), scorer=scorer).rows[0]
        right += best.path.stem == f"{number:02}"
    assert right >= 18


def test_whatever_a_picture_does_becomes_its_row(folder: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = Preprocess.pixels

    def failing(self: Preprocess, image: Image.Image) -> np.ndarray:
        if image.width == 1:
            raise MemoryError
        if image.width == 2:
            raise RuntimeError("odd\n\x1b[31mpicture")
        return pixels(self, image)

    monkeypatch.setattr(Preprocess, "pixels", failing)
    for width in (1, 2):
        Image.new("RGB", (width, 2)).save(folder / f"width {width}.png")
    Image.fromarray(np.full((3, 3), np.nan, dtype=np.float32)).save(folder / "nan.tif")
    names = ["width 1.png", "width 2.png", "nan.tif", "0.png"]
    ranking = rerank([folder / name for name in names], "a fox", scorer=scorer)
    assert [(row.path.name, row.error) for row in ranking.errors] == [
        ("nan.tif", "it holds levels that are no numbers or infinite; expected finite ones"),
        ("width 1.png", "is too large (MemoryError)"),
        ("width 2.png", "cannot be decoded (odd ␛[31mpicture)"),
    ]
    assert len(ranking.scored) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_and_a_file_that_vanished_are_rows(folder: Path, scorer: Scorer) -> None:
    os.mkfifo(folder / "f.png")
    (folder / "link.png").symlink_to(folder / "deleted.png")
    found = find_pictures([folder])
    (folder / "1.png").unlink()
    errors = {row.path.name: row.error for row in rerank(found.paths, "a fox", scorer=scorer).errors}
    assert errors["f.png"] == "is no regular file (a pipe, socket or device), not a picture"
    assert (errors["link.png"], errors["1.png"]) == ("is a link to a file that is not there", "no such file")


def test_a_sliver_of_two_million_pixels_is_scored(folder: Path, scorer: Scorer) -> None:
    Image.new("RGB", (1, 2_000_000)).save(folder / "sliver.png")
    assert rerank([folder / "sliver.png"], "a fox", scorer=scorer).scored[0].cosine is not None


def test_no_batchs_own_vectors_are_kept(folder: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    embed = ImageTower.embed_pixels

    def tracked(self: ImageTower, pixels: np.ndarray, rows: int) -> torch.Tensor:
        assert all(vectors() is None for vectors in made[:-1])  # kept, they would pin the allocator's memory
        vectors = embed(self, pixels, rows)
        made.append(weakref.ref(vectors))
        return vectors

    monkeypatch.setattr(ImageTower, "embed_pixels", tracked)
    assert len(rerank(files(folder), "a fox", scorer=scorer, batch_size=1).scored) == len(made) == 8


@pytest.mark.parametrize(("weight", "tower"), [("visual.proj", "image"), ("text_projection", "CLIP text")])
def test_a_model_with_a_nan_ranks_nothing_and_names_its_tower(
    weight: str, tower: str, folder: Path, dual_folder: Path
) -> None:
    scorer = Scorer.load(str(dual_folder), device="cpu")
    model = scorer.dual.image.model
    with torch.no_grad():
        model.get_parameter(weight)[0, 0] = float("nan")
    with pytest.raises(
        ModelError, match=rf"the {tower} encoder gave \d+ of \d+ vectors with values that are not finite"
    ):
        rerank(files(folder), "a fox", scorer=scorer)


@pytest.mark.parametrize(
    "name", ["a\nb.png", "a\tb.png", "\u202egnp.png", "\x1b[31m.png", "{}[]'\";$().png", "-rf.png"]
)
def test_hostile_file_names_are_harmless_in_rows(name: str, folder: Path, scorer: Scorer) -> None:
    (folder / name).write_bytes((folder / "0.png").read_bytes())
    (folder / f"bad {name}").write_bytes(b"no picture")
    ranking = rerank([folder / name, folder / f"bad {name}"], "a fox", scorer=scorer)
    good, bad = (json.loads(json.dumps(row.to_json(), allow_nan=False)) for row in ranking.rows)
    assert (Path(good["path"]).name, good["error"]) == (name, None)
    assert bad["error"] == "is not a picture in a format that can be read"


def test_a_draft_decodes_jpegs_smaller_and_says_so(tmp_path: Path, dual_folder: Path, scorer: Scorer) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((900, 540)).save(tmp_path / "large.jpg")
    Image.fromarray(noise).resize((120, 90)).save(tmp_path / "small.jpg")  # below four times the input: as it is
    Image.fromarray(noise).resize((900, 540)).save(tmp_path / "large.png")
    paths = sorted(tmp_path.iterdir())
    quick = Scorer.load(str(dual_folder), device="cpu", draft=True)
    assert quick.dual.image.preprocess.shrink_to == 64
    assert quick.image_space() != scorer.image_space()
    full, draft = (rerank(paths, "a fox", scorer=each) for each in (scorer, quick))
    assert draft.header is not None
    assert draft.header.preprocessing.endswith("JPEG draft")
    cosines = {row.path.name: [row.cosine or 0.0] for row in full.rows}
    for row in draft.rows:
        cosines[row.path.name].append(row.cosine or 0.0)
    assert {(row.width, row.height) for row in draft.rows} == {(900, 540), (120, 90)}
    assert [row.share_seen for row in sorted(draft.rows, key=lambda row: row.path)] == [
        row.share_seen for row in sorted(full.rows, key=lambda row: row.path)
    ]
    assert cosines["small.jpg"][0] == cosines["small.jpg"][1]
    assert cosines["large.png"][0] == cosines["large.png"][1]
    assert 0 < abs(cosines["large.jpg"][0] - cosines["large.jpg"][1]) < 0.02


def test_the_header_states_the_precision(folder: Path, dual_folder: Path) -> None:
    half = Scorer.load(str(dual_folder), device="cpu", precision="bf16")
    header = rerank(files(folder), "a fox", scorer=half).header
    assert header is not None
    assert header.dtype == "bfloat16"
