"""The repair of torchvision's missing operators, in fresh processes: it acts on what an interpreter has loaded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_torchvision
def test_open_clip_imports_after_the_repair_and_a_second_call_is_harmless() -> None:
    out = run(
        "from clipcond.runtime.torchvision_repair import repair\n"
        "first, second = repair(), repair()\n"
        "import torch, torchvision, open_clip\n"
        "print(second, repair(), hasattr(torch.ops.torchvision, 'nms'), open_clip.CLIP.__name__)"
    )
    assert out == "False False True CLIP"


@needs_torchvision
def test_it_acts_only_where_operators_are_missing() -> None:
    """Declared by somebody else, working or not: nothing is declared a second time, which torch would refuse."""
    out = run(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from clipcond.runtime import torchvision_repair\n"
        "print(torchvision_repair.repair())"
    )
    assert out == "False"


@needs_torchvision
def test_what_it_declares_is_exactly_what_is_missing() -> None:
    out = run(
        "import torch\n"
        "from clipcond.runtime import torchvision_repair as module\n"
        "works = module._operators_load()\n"
        "had = [name for name in ('nms', 'qnms') if hasattr(torch.ops.torchvision, name)]\n"
        "acted = module.repair()\n"
        "has = [name for name in ('nms', 'qnms') if hasattr(torch.ops.torchvision, name)]\n"
        "print(acted == (not works and had != ['nms', 'qnms']), works or has == ['nms', 'qnms'])"
    )
    assert out == "True True"


@needs_torchvision
def test_it_leaves_an_imported_torchvision_alone() -> None:
    out = run(
        "import sys, types\n"
        "sys.modules['torchvision'] = types.ModuleType('torchvision')\n"
        "from clipcond.runtime.torchvision_repair import repair\n"
        "print(repair(), 'torch' in sys.modules)"
    )
    assert out == "False False"


def test_it_does_nothing_without_torchvision() -> None:
    out = run(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        return None if top == 'torchvision' else PathFinder.find_spec(name, path, target)\n"
        "import clipcond.runtime.torchvision_repair as module\n"
        "kept = [finder for finder in sys.meta_path if finder is not PathFinder]\n"
        "sys.meta_path[:] = [*kept, Without()]\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('torchvision') is None\n"
        "print(module.repair(), 'torch' in sys.modules)"
    )
    assert out == "False False"


@needs_torchvision
@pytest.mark.parametrize(
    "before",
    [
        "",
        "import torch",
        "import transformers, diffusers",
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass",
    ],
    ids=["nothing", "torch", "lazy libraries", "torchvision, which failed"],
)
def test_importing_clipcond_heals_the_users_own_imports_in_every_order(before: str) -> None:
    out = run(
        f"{before}\nimport clipcond\n"
        "from diffusers import StableDiffusionPipeline\nimport open_clip\nfrom transformers import CLIPModel\nprint('done')"
    )
    assert out == "done"


@needs_torchvision
def test_the_finder_acts_once_and_imports_nothing_before() -> None:
    out = run(
        "import sys, clipcond\n"
        "before = [finder for finder in sys.meta_path if 'Torchvision' in repr(finder)], 'torch' in sys.modules\n"
        "import torchvision\n"
        "after = [finder for finder in sys.meta_path if 'Torchvision' in repr(finder)]\n"
        "print(len(before[0]), before[1], len(after))"
    )
    assert out == "1 False 0"
