"""The contact sheet of `clipcond rerank --html`: read as text, and driven in a headless Chromium where there is one."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from browser import drive
from PIL import Image

from clipcond.pages.contact_sheet import THUMBNAIL, contact_sheet
from clipcond.rerank.chosen_list import read_chosen
from clipcond.rerank.rows import Header, PhraseScore, RankedImage, Ranking

HEADER = Header(
    model="mini",
    score="clipscore",
    scales=(("cosine", "cosine(image, prompt)"), ("clipscore", "2.5 · max(cosine, 0)")),
    preprocessing="64×64 centre crop, bicubic",
    dtype="float32",
    noise=1e-6,
)


def ranking(folder: Path, count: int = 12, *, kept: int = 2, prompts: Sequence[str] = ("a red fox, a hat",)) -> Ranking:
    """Pictures `000.png` and so on, each a little worse than the one before; 1 and 2 are near-duplicates."""
    rows = []
    for n in range(count):
        path = folder / f"{n:03}.png"
        Image.new("RGB", (20 + n % 7, 20), (n % 256, 90, 200)).save(path)
        cosine = 0.9 - n / (count * 2)
        rows.append(
            RankedImage(
                path=path, rank=n + 1, score=2.5 * cosine,
                scores={"cosine": cosine, "clipscore": 2.5 * cosine, "percentile": 100 - 100 * n / count},
                prompt=prompts[n % len(prompts)], prompt_source="given", width=20, height=20, kept=n < kept,
                group=1 if n in (1, 2) else None,
                phrases=(PhraseScore(text="a red fox", cosine=0.3, missing=False),
                         PhraseScore(text="a hat", cosine=0.1, missing=n == 1)),
            )
        )  # fmt: skip
    rows.append(RankedImage(path=folder / "bad.png", error="is not a picture", stage="read"))
    return Ranking(rows=tuple(rows), model="mini", prompt=prompts[0] if len(prompts) == 1 else None, header=HEADER)


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    document: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return document


def test_the_sheet_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    page = contact_sheet(ranking(tmp_path))
    assert not re.search(r"<link|url\(|@import|https?://|\bsrc=", page)
    assert "score clipscore · model mini · 64×64 centre crop, bicubic · float32" in page
    assert "2.5 · max(cosine, 0)" in page
    assert f"<li>{tmp_path / 'bad.png'}: is not a picture</li>" in page
    data = data_of(page)
    assert [row["path"] for row in data["rows"]] == [str(tmp_path / f"{n:03}.png") for n in range(12)]
    uri = str(data["thumbnails"][0])
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (20, 20)


def test_a_long_prompt_is_cut_in_the_title_and_says_so(tmp_path: Path) -> None:
    page = contact_sheet(ranking(tmp_path, prompts=("a red fox, " * 20,)))
    assert f"<title>{('a red fox, ' * 20)[:79]}… · 12 pictures" in page


def test_thumbnails_are_small_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (1500, 300), "red").save(tmp_path / "wide.jpg", exif=exif)
    row = RankedImage(
        path=tmp_path / "wide.jpg", rank=1, score=0.5, scores={"cosine": 0.5, "clipscore": 1.25, "percentile": 50}
    )
    page = contact_sheet(Ranking(rows=(row,), model="mini", prompt=None, header=HEADER))
    uri = str(data_of(page)["thumbnails"][0])
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (THUMBNAIL // 5, THUMBNAIL)


def test_a_picture_that_went_away_has_an_empty_frame(tmp_path: Path) -> None:
    given = ranking(tmp_path, 3)
    (tmp_path / "001.png").unlink()
    assert [bool(uri) for uri in data_of(contact_sheet(given))["thumbnails"]] == [True, False, True]


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", '"\u2028\x1b[31m', "\udcff", "$data"]
)
def test_hostile_names_and_prompts_stay_text(text: str, tmp_path: Path) -> None:
    given = ranking(tmp_path, 2)
    first = replace(given.rows[0], prompt=text, path=tmp_path / text.replace("/", "_"))
    page = contact_sheet(replace(given, rows=(first, *given.rows[1:]), prompt=text))
    assert page.count("</script>") == 2
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert len(data_of(page)["rows"]) == 2
    page.encode()


def test_a_sheet_of_nothing_says_why(tmp_path: Path) -> None:
    given = ranking(tmp_path, 1)
    page = contact_sheet(replace(given, rows=given.errors))
    assert data_of(page)["rows"] == []
    assert "1 could not be scored" in page


def test_a_ranking_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    shown = ranking(tmp_path, 3)._repr_html_()
    assert shown.index("000.png") < shown.index("002.png")
    assert shown.count("kept") == 2
    assert "bad.png: is not a picture" in shown


# in a browser

DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.srcdoc = {page};
frame.onload = () => setTimeout(function look() {{
  const painted = [...frame.contentDocument.querySelectorAll("#grid .card img")].some(image => image.src);
  look.turns = (look.turns || 0) + 1;
  if (!painted && look.turns < 30) return setTimeout(look, 100);  // a busy machine paints late
  const d = frame.contentDocument, w = frame.contentWindow, seen = {{}}, at = id => d.getElementById(id);
  const cards = () => [...d.querySelectorAll("#grid .card")];
  const names = () => cards().map(c => c.querySelector(".file").textContent);
  const change = (id, value, kind) => {{ at(id).value = value; at(id).dispatchEvent(new w.Event(kind || "change")); }};
  const press = key => d.activeElement.dispatchEvent(new w.KeyboardEvent("keydown", {{key, bubbles: true, cancelable: true}}));
  const list = () => JSON.parse(w.clipcondChosen());
  seen.width = w.innerWidth; seen.over = d.documentElement.scrollWidth - d.documentElement.clientWidth;
  seen.cut = [...d.querySelectorAll(".do button")].filter(b => b.scrollWidth > b.clientWidth + 1).length;
  seen.columns = cards().filter(c => c.offsetTop === cards()[0].offsetTop).length;
  seen.count = cards().length; seen.first = list();
  seen.painted = cards().filter(c => c.querySelector("img").src).length;
  seen.missing = cards()[1].querySelector(".missing").textContent;
  change("sort", "file"); at("direction").click(); seen.reversed = names()[0]; at("direction").click();
  change("sort", "cosine"); seen.sorted = names()[0]; change("sort", "rank");
  change("least", "500", "input"); seen.half = cards().length; seen.range = at("range").textContent;
  change("most", "400", "input"); seen.empty = [cards().length, at("none").hidden];
  change("least", "0", "input"); change("most", "1000", "input");
  change("find", "003", "input"); seen.found = names(); change("find", "", "input");
  change("group", "group"); seen.heads = [...d.querySelectorAll("#grid h2")].map(h => h.textContent); change("group", "");
  cards()[0].focus(); press("d"); seen.moved = d.activeElement.querySelector(".file").textContent;
  press("ArrowRight"); press("k"); press("ArrowLeft"); press("u"); press("c"); press("ArrowRight"); press("c"); press("v");
  seen.open = at("large").open; seen.side = d.querySelectorAll("#side figure").length;
  seen.phrases = d.querySelectorAll("#side li.miss").length;
  seen.dialogOver = at("large").scrollWidth - at("large").clientWidth;
  at("close").click(); seen.closed = !at("large").open;
  change("show", "keep"); seen.kept = names(); change("show", "");
  cards()[4].querySelector(".yes").click(); seen.last = list();
  seen.ground = w.getComputedStyle(d.body).backgroundColor;
  document.getElementById("out").textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}}, 400);
</script>"""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
def test_the_sheet_works_in_a_browser(width: int, dark: bool, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    seen = drive(DRIVER, contact_sheet(ranking(folder)), tmp_path, width=width, dark=dark)
    paths = [str(folder / f"{n:03}.png") for n in range(12)]
    assert seen["width"] == width
    assert (seen["over"], seen["cut"], seen["dialogOver"]) == (0, 0, 0), "something does not fit"
    assert seen["columns"] == (2 if width == 390 else 5)
    assert seen["count"] == 12
    assert seen["first"] == {"clipcond": "chosen", "version": 1, "keep": paths[:2], "discard": []}
    assert int(str(seen["painted"])) >= 2
    assert seen["missing"] == "missing: a hat"
    assert (seen["reversed"], seen["sorted"]) == ("011.png", "000.png")
    assert seen["half"] == 6
    assert re.fullmatch(r"[\d.]+ – 2\.2500", str(seen["range"]))
    assert seen["empty"] == [0, False]
    assert seen["found"] == ["003.png"]
    assert seen["heads"] == ["near-duplicates, group 1", "without near-duplicates"]
    assert seen["moved"] == "001.png"
    assert (seen["open"], seen["side"], seen["phrases"], seen["closed"]) == (True, 2, 0, True)
    assert seen["kept"] == ["001.png"]
    assert seen["last"] == {
        "clipcond": "chosen", "version": 1, "keep": [paths[1], paths[4]], "discard": [paths[0]]
    }  # fmt: skip
    assert seen["ground"] == ("rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)")
    (folder / "chosen.json").write_text(json.dumps(seen["last"]))
    assert [path.name for path in read_chosen(folder / "chosen.json").keep] == ["001.png", "004.png"]


def test_a_thousand_pictures_are_usable_and_few_are_painted(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    seen = drive(DRIVER, contact_sheet(ranking(folder, 1000)), tmp_path, width=1200, dark=False)
    assert (seen["count"], seen["half"], seen["over"]) == (1000, 500, 0)
    assert int(str(seen["painted"])) < 100
