"""Pictures in WebDataset tars, ranked as if they were files: prompts, bad members, the cache, copies out of them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.cli import main
from clipcond.encode.content_key import content_key, file_key
from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.images.find import find_pictures
from clipcond.pages.contact_sheet import contact_sheet
from clipcond.prompt.infotext import format_infotext
from clipcond.rerank.moves import carry_out, plan_moves
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.undo import undo

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "images" / "cc12m-32.tar"


@pytest.fixture(scope="module")
def scorer(dual_folder: Path) -> Scorer:
    return Scorer.load(str(dual_folder), device="cpu")


def png(colour: str, prompt: str = "") -> bytes:
    info = PngInfo()
    if prompt:
        info.add_text("parameters", format_infotext(prompt, "", {"Steps": 1, "Seed": 2, "Size": "1x1"}))
    out = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(out, "PNG", pnginfo=info)
    return out.getvalue()


MEMBERS = {
    "./00000.png": png("red"), "00000.txt": b"a red square",
    "00001.png": png("blue"), "00001.json": json.dumps({"caption": "a blue square", "uid": "x"}).encode(),
    "deep/00002.png": png("lime", "a (lime:1.3) square"),
    "00003.png": png("red")[:60], "00003.txt": b"cut short",
    "00004.png": png("white"),
    "00005.cls": b"7", "._00000.png": b"junk", "__MACOSX/a.png": b"junk",
}  # fmt: skip


def write_tar(path: Path, members: Mapping[str, bytes] = MEMBERS) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("00006.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    return path


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "shard.tar")
    return Path("shard.tar")


def found(*sources: str) -> list[str]:
    return [str(path) for path in find_pictures(sources).paths]


def test_a_tar_stands_for_its_pictures_in_its_order(shard: Path) -> None:
    names = ("00000.png", "00001.png", "deep/00002.png", "00003.png", "00004.png", "00006.png")
    inside = [f"shard.tar/{name}" for name in names]
    assert found("shard.tar") == found("*.tar") == inside
    assert found("shar{c,d}.tar") == ["sharc.tar", *inside]
    assert found(".") == inside, "a folder of tars stands for them"
    Path("own.png").write_bytes(png("red"))
    assert found(".") == ["own.png"], "but not where it has pictures of its own"


def test_prompts_come_from_inside_and_a_bad_member_costs_a_row(shard: Path, scorer: Scorer) -> None:
    rows = {row.path.name: row for row in rerank(find_pictures(["shard.tar"]).paths, scorer=scorer).rows}
    assert {name: (row.prompt, row.prompt_source) for name, row in rows.items() if row.error is None} == {
        "00000.png": ("a red square", "sidecar (00000.txt)"),
        "00001.png": ("a blue square", "sidecar (00001.json)"),
        "00002.png": ("a lime square", "metadata (parameters)"),
    }
    assert rows["00003.png"].error is not None
    assert "cannot be decoded" in rows["00003.png"].error
    assert rows["00004.png"].stage == "prompt"
    assert rows["00006.png"].error == "shard.tar:00006.png is a link or a sparse file, not a file of its own"


@pytest.mark.parametrize("name", ["packed.tar.gz", "packed.tgz"])
def test_a_member_scores_as_the_same_picture_outside_does(shard: Path, scorer: Scorer, name: str) -> None:
    Path(name).write_bytes(gzip.compress(shard.read_bytes()))
    Path("alone.png").write_bytes(MEMBERS["00001.png"])
    paths = [Path("alone.png"), Path("shard.tar/00001.png"), Path(name) / "00001.png"]
    scores = [row.score for row in rerank(paths, "a red square", scorer=scorer).scored]
    assert len(scores) == 3
    assert len(set(scores)) == 1


def test_a_damaged_tar_gives_what_stands_before_the_damage_and_one_line(shard: Path, scorer: Scorer) -> None:
    content = bytearray(shard.read_bytes())
    at = content.index(b"deep/00002.png")
    content[at : at + 200] = b"\xff" * 200
    shard.write_bytes(content)
    ranking = rerank(find_pictures(["shard.tar"]).paths, scorer=scorer)
    assert {row.path.name for row in ranking.scored} == {"00000.png", "00001.png"}
    assert [(str(row.path), row.error) for row in ranking.errors] == [
        ("shard.tar", f"is damaged at byte {at:,}, or was joined with another: what follows there is not read")
    ]
    Path("text.tar").write_text("no tar")
    (row,) = rerank(find_pictures(["text.tar"]).paths, "x", scorer=scorer).rows
    assert row.error is not None
    assert row.error.startswith("is not a readable tar: ")


def test_names_that_lead_out_of_a_tar_stay_in_it(tmp_path: Path, scorer: Scorer) -> None:
    tar = write_tar(tmp_path / "a.tar", {"../../up.png": png("red"), "/etc/root.png": png("blue")})
    ranking = rerank(find_pictures([tar]).paths, "x", scorer=scorer)
    assert {str(row.path.relative_to(tar)) for row in ranking.scored} == {"up.png", "etc/root.png"}


def test_members_are_remembered_by_their_bytes_and_by_the_state_of_the_tar(shard: Path, scorer: Scorer) -> None:
    member = Path("shard.tar/00000.png")
    key = file_key(member)
    assert key is not None
    assert key[0] == content_key(MEMBERS["./00000.png"])
    assert key[1].size == len(MEMBERS["./00000.png"])
    cache = EmbeddingCache(Path("cache.sqlite"), clock=lambda: 4e9)
    paths = find_pictures(["shard.tar"]).paths
    assert rerank(paths, scorer=scorer, cache=cache).embedded == 4
    assert rerank(paths, scorer=scorer, cache=cache).embedded == 0
    Path("own.png").write_bytes(MEMBERS["./00000.png"])
    assert rerank([Path("own.png")], "x", scorer=scorer, cache=cache).embedded == 0, "the same picture as a file"
    assert cache.info().files == 6, "five members by the state of the tar, and a file"
    write_tar(shard, {"00000.png": png("navy")})
    assert rerank([member], "x", scorer=scorer, cache=cache).embedded == 1
    cache.close()


def test_copies_write_the_members_bytes_and_can_be_taken_back(shard: Path) -> None:
    pictures = [Path("shard.tar/00001.png"), Path("shard.tar/deep/00002.png")]
    plan = plan_moves(pictures, "best", "copy")
    assert not Path("best").exists()
    done = carry_out(plan).done
    assert {step.target.name for step in done} == {"00001.png", "00001.json", "00002.png"}
    assert Path("best/00001.png").read_bytes() == MEMBERS["00001.png"]
    assert len(undo("best").restored) == 3
    assert not Path("best").exists()


def test_undo_keeps_a_copy_that_is_the_only_one_left_or_was_changed(shard: Path) -> None:
    carry_out(plan_moves([Path("shard.tar/00000.png"), Path("shard.tar/00001.png")], "best", "copy", sidecars=False))
    Path("best/00000.png").write_bytes(b"edited")
    kept = undo("best").kept
    assert [(path.name, reason.split(" ", 1)[0]) for path, reason in kept] == [("00000.png", "stays,")]
    carry_out(plan_moves([Path("shard.tar/00001.png")], "more", "copy", sidecars=False))
    shard.unlink()
    assert [reason.split(",")[0] for _, reason in undo("more").kept] == ["is the only one left"]


@pytest.mark.parametrize("action", ["move", "link"])
def test_nothing_is_moved_or_linked_out_of_a_tar(shard: Path, action: str) -> None:
    before = shard.read_bytes()
    plan = plan_moves([Path("shard.tar/00000.png")], "best", action)  # type: ignore[arg-type]
    assert not plan.steps
    assert plan.skipped[0][1] == "is in a tar, out of which pictures are copied only"
    assert shard.read_bytes() == before


@pytest.mark.parametrize("action", [("--move-to", "b"), ("--link-to", "b"), ("--write-back", "rating")])
def test_the_command_says_so_before_a_model_is_loaded(
    shard: Path, action: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", "shard.tar", "--prompt", "x", "--model", "no-such-model", *action]) == 2
    line = f"error: {action[0]} would change shard.tar, and a tar stays as it is; --copy-to takes pictures out of it\n"
    assert capsys.readouterr().err.startswith(line)


def test_the_command_lists_rows_and_copies_from_a_list(
    shard: Path, dual_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(dual_folder), "--no-cache")
    assert main(["rerank", "shard.tar", "--json", "--top", "1", "--copy-to", "best", *model]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kept = next(row["path"] for row in rows if row["kept"])
    assert Path("best", Path(kept).name).read_bytes() == (MEMBERS.get(kept[10:]) or MEMBERS[f"./{kept[10:]}"])
    Path("pairs.csv").write_text("image,prompt\nshard.tar/00004.png,a white square\n")
    assert main(["rerank", "--pairs", "pairs.csv", "--json", *model]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "shard.tar/00004.png"
    chosen = {"clipcond": "chosen", "version": 1, "keep": ["shard.tar/00004.png"], "discard": []}
    Path("chosen.json").write_text(json.dumps(chosen))
    assert main(["rerank", "--apply", "chosen.json", "--copy-to", "picked"]) == 0
    assert Path("picked/00004.png").read_bytes() == MEMBERS["00004.png"]
    assert main(["rerank", "--apply", "chosen.json", "--move-to", "gone"]) == 2
    assert main(["rerank", "s-{3..1}.tar", "--prompt", "x", *model]) == 3
    assert "its numbers run backwards" in capsys.readouterr().err


def test_a_contact_sheet_shows_members(shard: Path, scorer: Scorer) -> None:
    page = contact_sheet(rerank([Path("shard.tar/00000.png")], "x", scorer=scorer))
    assert page.count("data:image/jpeg;base64,") == 1


@pytest.mark.skipif(not PHOTOS.is_file(), reason="no ../shared/data/images/cc12m-32.tar here")
def test_a_real_shard_is_ranked_by_its_own_captions(scorer: Scorer) -> None:
    ranking = rerank(find_pictures([PHOTOS]).paths, scorer=scorer)
    assert len(ranking.scored) == 32
    assert all(row.prompt and (row.prompt_source or "").startswith("sidecar (0000") for row in ranking.scored)
    assert min(row.share_seen or 0 for row in ranking.scored) == pytest.approx(0.595, abs=0.01)
