import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from clipcond.cli import main
from clipcond.cli.demo import MARKER, check_folder, demo_prompt, write_folder
from clipcond.errors import DataError, OutputExists
from clipcond.mini import world
from clipcond.pages.demo import Shot, Story, page
from clipcond.prompt.infotext import parse_infotext
from clipcond.prompt.plan import plan

VOID = {"meta", "img", "rect", "circle", "path", "polygon"}


class Elements(HTMLParser):
    """Every element with its attributes and text; fails on a tag that is not closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def story(prompt, right_stock, right_clipcond):
    (encoder,) = plan(prompt).encoders.values()
    scene = world.parse(prompt)
    picture = Image.new("RGB", (64, 64), (0, 110, 110))

    def shots(side, rows):
        return tuple(
            Shot(side=side, seed=seed, image=picture, right=tuple(map(bool, row)), cosine=sum(row) / 10)
            for seed, row in enumerate(rows)
        )

    return Story(
        prompt=prompt,
        plan=encoder,
        scene=scene,
        read=len(world.parse(prompt[: encoder.dropped.start]).objects),
        sketch=picture,
        stock=shots("stock", right_stock),
        clipcond=shots("clipcond", right_clipcond),
        version="0.1.0",
        seconds=12.3,
    )


def told(prompt=None):
    stock, ours = [(1, 1, 1, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0)], [(1, 1, 1, 1, 1, 1, 0), (1,) * 7]
    return story(prompt or demo_prompt(0), stock, ours)


def test_the_page_is_well_formed_and_loads_nothing():
    html = page(told())
    elements = Elements(html)
    assert not re.search(r"<script|<link|url\(|@import|https?://", html)
    sources = [attributes["src"] for tag, attributes in elements.found if tag == "img"]
    assert len(sources) == 3 + 4 + 4
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)
    assert all(attributes["alt"] for tag, attributes in elements.found if tag == "img")
    assert "$" not in html


def test_the_page_says_what_was_counted():
    text = " ".join(Elements(page(told())).text)
    assert "A prompt of 131 tokens. Stock pipelines read 75." in text
    assert "56 tokens, and with them 4 of 7 objects" in text
    assert "2.5 of 7 right on average, 0.0 of the 4 behind the cut" in text
    assert "6.5 of 7 right on average, 3.5 of the 4 behind the cut" in text
    assert "The best of clipcond's, seed 1, has 7 of 7 objects right" in text


def test_the_strip_holds_the_whole_prompt_in_its_tokens():
    html = page(told())
    strip = re.search(r'<div class="strip">(.*?)</div>', html, re.DOTALL)[1]
    read, lost = re.fullmatch(
        r'<span class="read">(.*)</span><span class="cut">.*?</span><span class="lost">(.*)</span>', strip
    ).groups()
    assert (read.count('class="t"'), lost.count('class="t"')) == (75, 56)
    assert re.sub(r"<[^>]*>", "", read + lost) == demo_prompt(0)


def test_what_the_prompt_says_is_escaped():
    prompt = 'a red circle <b>top left</b> & "quoted" <script>alert(1)</script> ' + "wide and long " * 30
    html = page(story(prompt, [(1,)], [(1,)]))
    assert "<script>" not in html
    assert "<b>top left" not in html
    Elements(html)


def test_the_ranking_is_by_score():
    (ranked,) = re.findall(r'<div class="pictures ranking">(.*?)</div>', page(told()), re.DOTALL)
    titles = re.findall(r"<b>(\d\. \w+)</b>", ranked)
    assert titles == ["1. clipcond", "2. clipcond", "3. stock", "4. stock"]


@pytest.fixture
def run(sd_folder, dual_folder, tmp_path, capsys):
    """The command on tiny random models; gives exit code, what it wrote to both streams, and the folder."""

    def call(*more, out="demo"):
        models = ["--pipeline", str(sd_folder), "--model", str(dual_folder)]
        code = main(["demo", "--out", str(tmp_path / out), "-n", "2", *models, *more])
        said = capsys.readouterr()
        return code, said.out, said.err, tmp_path / out

    return call


def test_the_command_writes_a_page_and_pictures_with_their_prompts(run):
    code, out, err, folder = run()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "prompt    131/75 tokens → 2 chunks; a stock pipeline drops 56 tokens and 4 of 7 objects"
    assert lines[-1].startswith(f"page      {folder / 'index.html'}  (")
    Elements((folder / "index.html").read_text(encoding="utf-8"))
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names == ["clipcond-0.png", "clipcond-1.png", "stock-0.png", "stock-1.png"]
    with Image.open(folder / "clipcond-1.png") as picture:
        info = parse_infotext(picture.info["parameters"])
    assert info.prompt == demo_prompt(0)
    assert str(info.settings["Seed"]) == "1"


def test_a_second_run_replaces_the_first_and_nothing_else(run):
    _, _, _, folder = run()
    (folder / "mine.txt").write_text("mine")
    code, _, _, _ = run("--seed", "1")
    assert code == 0
    assert (folder / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "clipcond-1.png",
        "clipcond-2.png",
        "stock-1.png",
        "stock-2.png",
    ]


def test_a_foreign_folder_is_left_alone(run, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("mine")
    code, out, err, folder = run()
    assert (code, out) == (3, "")
    assert "was not made by a demo; name another folder with --out, nothing is overwritten" in err
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    assert (folder / "index.html").read_text() == "mine"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists, match="is a file; name another folder with --out"):
        check_folder(tmp_path / "file")


def test_an_empty_folder_can_be_used(tmp_path):
    assert check_folder(tmp_path) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": [1]}'])
def test_a_marker_that_no_demo_wrote_is_no_permission(tmp_path, content):
    (tmp_path / MARKER).write_text(content)
    with pytest.raises(OutputExists, match="was not made by a demo"):
        check_folder(tmp_path)


def test_a_marker_cannot_name_files_elsewhere(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / MARKER).write_text(json.dumps({"files": ["../mine.txt", "index.html"]}))
    assert check_folder(folder) == ["index.html"]


def test_a_file_of_the_users_own_in_a_demo_folder_is_kept(tmp_path):
    write_folder(tmp_path, "one", {}, [])
    (tmp_path / "stock-0.png").write_text("mine")

    def write(path: Path) -> None:
        path.write_text("ours")

    with pytest.raises(OutputExists, match=r"stock-0\.png was not made by a demo; move it"):
        write_folder(tmp_path, "two", {"stock-0.png": write}, check_folder(tmp_path))
    assert (tmp_path / "stock-0.png").read_text() == "mine"


def test_each_seed_has_a_prompt_and_they_come_round():
    prompts = [demo_prompt(seed) for seed in range(3)]
    assert len(set(prompts)) == 3
    assert demo_prompt(3) == prompts[0]


def test_a_prompt_that_is_not_cut_is_refused(run, monkeypatch):
    monkeypatch.setattr("clipcond.cli.demo.demo_prompt", lambda seed: "a red circle")
    code, _, err, _ = run()
    assert code == 3
    assert err == "error: the demo's prompt has 3 tokens; expected more than 75\n"
    assert issubclass(DataError, ValueError)
