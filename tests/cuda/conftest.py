"""One device beside the CPU: everything here is computed on both and compared.

The tests run where there is a CUDA device, and elsewhere skip in one line. `CLIPCOND_TEST_DEVICE=cpu` runs them on the CPU, to
try the tests themselves. They need nothing of `tests/conftest.py`, so that they run where only torch, transformers, diffusers,
open_clip, accelerate, peft and pytest are: `pytest tests/cuda --confcutdir=tests/cuda -o filterwarnings=default`.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from measures import FOUND

_FAMILIES = Path(__file__).parents[1] / "diffusion" / "conftest.py"
_spec = importlib.util.spec_from_file_location("clipcond_test_families", _FAMILIES)
assert _spec is not None
assert _spec.loader is not None
_families = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _families
_spec.loader.exec_module(_families)
t5_tokenizer, fresh = _families.t5_tokenizer, _families.fresh


LIBRARIES_WARN = (  # each of these was met on a GPU, once a process; they are shown and end no test
    "default:Attempting to run cuBLAS",  # a backward pass whose thread is the first to need it
    "default:Sparse invariant checks",
    "default:::torch",
    "default:::triton",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take what libraries warn of on a GPU as no error, in the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in LIBRARIES_WARN:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The name of the device to be tried, `cuda:0` unless CLIPCOND_TEST_DEVICE says another."""
    import torch

    name = os.environ.get("CLIPCOND_TEST_DEVICE", "")
    if not name and not torch.cuda.is_available():
        pytest.skip("no CUDA device; CLIPCOND_TEST_DEVICE=cpu tries these tests on the CPU")
    return name or "cuda:0"


@pytest.fixture
def cuda(device: str) -> str:
    """The device, for tests that only CUDA can pass."""
    if not device.startswith("cuda"):
        pytest.skip(f"the device is {device}; this needs CUDA")
    return device


@pytest.fixture(autouse=True)
def _exact(device: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """No TF32, unless a test is about torch's own defaults (`torch_defaults`)."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if "torch_defaults" not in request.keywords:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True)
def _own_embedding_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPCOND_CACHE", str(tmp_path / "embeddings"))


@pytest.fixture(scope="session")
def clip_tokenizers(device: str) -> tuple[Any, Any]:
    """CLIP's tokenizer as OpenAI's towers have it, and as OpenCLIP's have it: padding with `!`."""
    from transformers import CLIPTokenizer

    import clipcond

    folder = clipcond.mini.path() / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder, pad_token="!")


@pytest.fixture(scope="session")
def mini(device: str) -> Callable[[str], Any]:
    """The embedded pipeline on a device, shared: leave it as it is."""
    import clipcond

    made: dict[str, Any] = {}

    def get(where: str) -> Any:
        if where not in made:
            made[where] = clipcond.load_pipeline("mini", device=where)
            made[where].set_progress_bar_config(disable=True)
        return made[where]

    return get


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory, device: str) -> Path:
    """A folder of 24 pictures of the scene world with captions in `pairs.csv`, and those of others in `wrong.csv`."""
    from clipcond.mini import world

    folder, rng = tmp_path_factory.mktemp("scenes"), random.Random(5)
    captions = []
    for number in range(24):
        scene = world.sample(rng, most=4)
        world.render(scene, rng).save(folder / f"{number:02d}.png")
        captions.append(world.caption(scene, rng, "terse"))
    for name, own in (("pairs.csv", captions), ("wrong.csv", [*captions[1:], captions[0]])):
        rows = [f'{number:02d}.png,"{caption}"' for number, caption in enumerate(own)]
        (folder / name).write_text("\n".join(["filepath,title", *rows]) + "\n", encoding="utf-8")
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List each measure once: the largest share of what is allowed that was found."""
    worst: dict[str, tuple[float, float]] = {}
    for what, found, allowed in FOUND:
        if what not in worst or found > worst[what][0]:
            worst[what] = (found, allowed)
    if worst:
        terminalreporter.section("differences from the CPU (found, allowed)")
        for what, (found, allowed) in worst.items():
            terminalreporter.write_line(f"{found:.1e}  {allowed:.0e}  {'  ' if found <= allowed else '! '}{what}")
