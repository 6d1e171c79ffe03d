"""Two generators on the same prompts: pairs by seed, name or prompt, ties at the noise, one command for all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.cli import main
from clipcond.errors import DataError, OptionsError
from clipcond.prompt.infotext import format_infotext
from clipcond.rerank.comparing import ScoredPicture, compare_pictures
from clipcond.score.statistics import paired_comparison
from clipcond.workflows.compare import CompareOptions


def side(*rows: tuple[str, str, float], name: str = "{n}.png") -> list[ScoredPicture]:
    """Pictures of (prompt, seed, score)."""
    return [
        ScoredPicture(prompt=prompt, name=name.format(n=n), seed=seed, scores={"cosine": score})
        for n, (prompt, seed, score) in enumerate(rows)
    ]


def test_a_prompt_counts_once_by_the_mean_of_its_pairs() -> None:
    first = side(("a", "1", 0.5), ("a", "2", 0.7), ("b", "1", 0.2), ("c", "9", 0.1))
    second = side(("a", "2", 0.1), ("a", "1", 0.3), ("a", "3", 9.0), ("b", "1", 0.2), ("d", "1", 0.0))
    found = compare_pictures(first, second, {"cosine": 1e-6})
    assert (found.unit, found.prompts, found.pictures) == ("prompt", 2, (3, 3))
    assert found.paired_by == {"seed": 2}
    assert (found.only_first, found.only_second) == (("c",), ("d",))
    each = found.columns["cosine"]
    assert each.first == pytest.approx((0.6 + 0.2) / 2)
    assert each.second == pytest.approx((0.2 + 0.2) / 2)
    assert (each.paired.wins, each.paired.ties, each.paired.losses, each.paired.win_rate) == (1, 1, 0, 0.75)
    assert each.paired == paired_comparison([0.6, 0.2], [0.2, 0.2], noise=1e-6)


def test_one_prompt_alone_is_compared_pair_by_pair() -> None:
    draw = np.random.default_rng(0)
    base, gain = draw.normal(size=12), draw.normal(0.5, 0.1, size=12)
    first = side(*(("a", str(n), base[n] + gain[n]) for n in range(12)))
    second = side(*(("a", str(n), base[n]) for n in reversed(range(12))))
    found = compare_pictures(first, second, {})
    assert (found.unit, found.prompts) == ("pair", 1)
    assert found.columns["cosine"].paired.difference.value == pytest.approx(gain.mean())
    assert found.columns["cosine"].paired.p_value == pytest.approx(2 / 2**12), "pairing takes the spread of seeds out"


def test_names_pair_where_seeds_do_not_and_else_all_of_a_prompt_do() -> None:
    named = compare_pictures(side(("a", "", 1.0), ("a", "", 2.0)), side(("a", "", 0.0), ("a", "", 0.0)), {})
    assert (named.paired_by, named.unit) == ({"name": 1}, "pair")
    other = side(("a", "5", 0.0), ("a", "5", 0.0), ("a", "6", 3.0), name="x{n}.png")
    loose = compare_pictures(side(("a", "1", 1.0), ("a", "2", 2.0)), other, {})
    assert (loose.paired_by, loose.unit, loose.pictures) == ({"prompt": 1}, "prompt", (2, 3))
    assert loose.columns["cosine"].paired.difference.value == 0.5


def test_the_order_of_the_pictures_changes_nothing() -> None:
    first = side(*((f"p{n % 5}", str(n), (n * 7 % 11) / 10) for n in range(20)))
    second = side(*((f"p{n % 5}", str(n), (n * 5 % 13) / 10) for n in range(20)))
    there, back = (compare_pictures(one, other, {}) for one, other in ((first, second), (first[::-1], second[::-1])))
    assert there == back


def test_nothing_in_common_is_one_line() -> None:
    with pytest.raises(DataError, match="no prompt has pictures on both sides"):
        compare_pictures(side(("a", "1", 1.0)), side(("b", "1", 1.0)), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": "./a"}, r"a is named twice"),
        ({"second": "b.csv"}, r"b\.csv is a table and the other side is none"),
        ({"first": "a.csv", "second": "b.tsv", "prompt": "x"}, "tables hold scores already"),
        ({"noise": -1.0}, r"--noise is -1; expected a difference of scores from 0 on"),
        ({"noise": float("nan")}, "--noise is nan"),
        ({"view": "zoom"}, "--view is zoom"),
    ],
)
def test_options_that_will_not_do(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        CompareOptions(**({"first": "a", "second": "b"} | change))  # type: ignore[arg-type]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(1)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number, (prompt, seed) in enumerate([("a fox", 1), ("a fox", 2), ("a hill", 1), ("the sea", 3)]):
            info = PngInfo()
            info.add_text("parameters", format_infotext(prompt, "", {"Steps": 1, "Seed": seed, "Size": "1x1"}))
            pixels = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{folder}-{number}.png", pnginfo=info)
    (tmp_path / "two" / "two-3.png").unlink()
    return tmp_path


def test_the_command_compares_folders_and_the_tables_of_them_alike(
    folders: Path, dual_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("--model", str(dual_folder), "--no-cache")
    assert main(["compare", "one", "two", "--json", *model]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["prompts"], found["pictures"], found["paired_by"]) == (2, [3, 3], {"seed": 2})
    assert "the prompt “the sea” has pictures in one and none in two; left out" in err
    for name in ("one", "two"):
        assert main(["rerank", name, "--csv", f"{name}.csv", "--json", *model]) == 0
    capsys.readouterr()
    assert main(["compare", "one.csv", "two.csv", "--score", "cosine,clipscore", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    for name in ("cosine", "clipscore"):
        assert again["columns"][name] == pytest.approx(found["columns"][name])
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", "one", "two", *model]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "2 prompts, paired by seed: a prompt counts once" in out
    shown = "".join(out.split())  # a long path wraps anywhere
    assert f"scorecosine·model{dual_folder}".replace(" ", "") in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["one", "one/one-0.png"], 2, "is on both sides; name pictures of two generators"),
        (["one", "empty"], 3, "empty has no picture that could be scored"),
        (["one.csv", "two.csv"], 3, "cannot read one.csv: No such file or directory"),
        (["bare.csv", "bare.tsv"], 3, "bare.csv has no column 'score' (it has image, prompt, cosine)"),
        (["bare.csv", "bare.tsv", "--score", "cosine"], 3, "bare.tsv has no row with a prompt and a number in cosine"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    folders: Path, dual_folder: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "empty").mkdir()
    (folders / "bare.csv").write_text("image,prompt,cosine\na.png,x,0.5\n")
    (folders / "bare.tsv").write_text("image\tprompt\tcosine\na.png\tx\tmuch\n")
    assert main(["compare", *arguments, "--model", str(dual_folder), "--no-cache"]) == code
    assert message in capsys.readouterr().err
