"""Build the distributions and try them where the source tree cannot be seen.

    python scripts/check_wheel.py

Builds the sdist, a wheel from it and a wheel from the tree; compares what they hold with what the tree holds; installs
the wheel into a bare virtual environment that borrows the libraries of this one, and runs the command line there, in
an empty folder. Prints what was checked; exits 1 with one line at the first thing that is wrong. Needs no network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "clipcond" / "mini" / "weights"
WEIGHTS_REQUIRED = True
WEIGHTS_LIMIT = 40 * 2**20
EMOJI = ROOT / "clipcond" / "emoji"
EMOJI_FILES = ("licences.json", "open_clip_config.json", "open_clip_model.safetensors")
EMOJI_LIMIT = 12 * 2**20

PROMPT = "a red circle in the top left, " * 20  # beyond 75 tokens
FACADE = """import clipcond
print(clipcond.__file__)
for name in clipcond.__all__:
    getattr(clipcond, name)
"""


class Wrong(Exception):
    """Something the distributions must have is not so."""


def main() -> int:
    """Run every check; 0 when all hold."""
    try:
        with tempfile.TemporaryDirectory(prefix="clipcond-wheel-") as folder:
            _check(Path(folder))
    except Wrong as problem:
        print(f"check_wheel: {problem}", file=sys.stderr)
        return 1
    return 0


def _check(folder: Path) -> None:
    sdist, from_sdist = _build(folder / "from-sdist")
    (wheel,) = _build(folder / "from-tree", "--wheel")
    names = _names(wheel)
    _expect_same("the wheel built from the sdist", _names(from_sdist), "the wheel built from the tree", names)
    _expect_top_level(names)
    _expect_contents(names)
    print(f"sdist: {sdist.stat().st_size / 2**20:.1f} MiB, builds the same wheel as the tree")
    print(f"wheel: {wheel.stat().st_size / 2**20:.1f} MiB, {len(names)} files, one top-level name")
    _smoke(_install(wheel, folder / "venv"), folder / "elsewhere")


def _build(outdir: Path, *options: str) -> list[Path]:
    """Build with what is installed here, no isolation; the files made, sdist first."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(outdir), *options, str(ROOT)]
    _call(command, cwd=ROOT, env=dict(os.environ))
    return sorted(outdir.iterdir(), key=lambda path: path.suffix == ".whl")


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def _expect_same(one: str, left: set[str], other: str, right: set[str]) -> None:
    if left != right:
        raise Wrong(f"{one} lacks {sorted(right - left)[:5]} and adds {sorted(left - right)[:5]} against {other}")


def _expect_top_level(names: Iterable[str]) -> None:
    tops = sorted({name.split("/")[0] for name in names})
    if len(tops) != 2 or tops[0] != "clipcond" or not tops[1].endswith(".dist-info"):
        raise Wrong(f"the wheel must install the one top-level name `clipcond`, but installs {', '.join(tops)}")


def _expect_contents(names: set[str]) -> None:
    """Every file of the package and of the two data folders is in the wheel, and nothing is there that is not."""
    expected = {f"clipcond/{name}" for name in _files(ROOT / "clipcond")}
    for kind in ("pipelines", "prompts"):
        shipped = {f"clipcond/_bundled/{kind}/{name}" for name in _files(ROOT / kind)}
        if not shipped:
            raise Wrong(f"{kind}/ is empty: the wheel would ship clipcond/_bundled/{kind} without files")
        expected |= shipped
    packed = {name for name in names if name.startswith("clipcond/")}
    _expect_same("the wheel", packed, "the source tree", expected)
    if not WEIGHTS.is_dir():
        if WEIGHTS_REQUIRED:
            raise Wrong(f"{WEIGHTS.relative_to(ROOT)} is missing: the wheel would ship no embedded model")
        return
    _expect_size("mini", WEIGHTS, WEIGHTS_LIMIT)
    lacking = [name for name in EMOJI_FILES if f"clipcond/emoji/{name}" not in names]
    if lacking:
        raise Wrong(f"the wheel lacks {' and '.join(lacking)} of the embedded model emoji")
    _expect_size("emoji", EMOJI, EMOJI_LIMIT)


def _expect_size(model: str, folder: Path, limit: int) -> None:
    size = sum((folder / name).stat().st_size for name in _files(folder))
    if size > limit:
        raise Wrong(f"the embedded model {model} has {size / 2**20:.1f} MiB, allowed are {limit / 2**20:.0f}")


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(folder).as_posix() for path in paths]


def _install(wheel: Path, where: Path) -> Path:
    """A bare environment with the wheel in it, and this environment's libraries behind it; its folder of programs.

    A path file only adds a folder to the path: the path files in that folder, such as the one of an editable clipcond,
    are not read again.
    """
    venv.create(where, with_pip=False, symlinks=True)
    programs = where / ("Scripts" if os.name == "nt" else "bin")
    install = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet"]
    _call([*install, "--disable-pip-version-check", "--no-deps", "--no-index", str(wheel)], cwd=where, env=_clean())
    (libraries,) = where.glob("lib/python*/site-packages")
    (libraries / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return programs


def _smoke(programs: Path, folder: Path) -> None:
    """Run the installed command line and import everything the façade names, in an empty folder."""
    folder.mkdir()
    python, clipcond = str(programs / "python"), str(programs / "clipcond")

    def run(*command: str) -> str:
        out = _call(command, cwd=folder, env=_clean())
        words = (word if len(word) < 40 else f"{' '.join(word.split())[:30].strip()}…" for word in command[1:])
        print("ran:", Path(command[0]).name, *words)
        return out

    home = Path(run(python, "-c", FACADE).splitlines()[0])
    if not home.is_relative_to(programs.parent):
        raise Wrong(f"the installed clipcond was not used: {home} was imported")
    counted = json.loads(run(clipcond, "tokens", PROMPT, "--json"))
    if not counted["encoders"][0]["truncated"]:
        raise Wrong("`clipcond tokens` does not see that 20 sentences are cut")
    report = json.loads(run(clipcond, "doctor", "--json"))
    if WEIGHTS.is_dir():
        for model in ("mini", "emoji"):
            if not report[model]["complete"]:
                raise Wrong(f"the installed embedded model {model} is incomplete: {report[model]}")
        run(clipcond, "generate", PROMPT, "-n", "2", "--steps", "4", "--out", "pictures")
        scores = run(clipcond, "rerank", "pictures", "--prompt", "a red circle", "--json")
        if not scores.strip():
            raise Wrong("`clipcond rerank` printed nothing")


def _clean() -> dict[str, str]:
    """The environment without anything that could lead back to the source tree or to the network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PIP_"))}
    return {**kept, "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}


def _call(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Wrong(f"{' '.join(command)[:200]} gave {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
