"""A report on this machine: libraries, processor, accelerators, the embedded models, the hub cache.

Nothing here fails: a missing or broken part becomes a line of the report, and a problem with advice where it matters.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from clipcond.errors import ResourceMissing
from clipcond.models.catalogue import hub_cache
from clipcond.models.folder_models import size_on_disk
from clipcond.resources import EMBEDDED, embedded
from clipcond.runtime.processor import CPUINFO, instructions, multiplies_bfloat16, processor_text
from clipcond.wording import first_line

# distribution -> the module that a user of it imports; in the order of the report
REQUIRED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip_torch": "open_clip",
    "transformers": "transformers",
    "diffusers": "diffusers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "pillow": "PIL",
    "numpy": "numpy",
}
OPTIONAL = {"accelerate": "accelerate", "xformers": "xformers"}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library: its installed version, and why it does not work where it does not."""

    name: str
    version: str | None  # None: not installed
    required: bool
    works: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """The CPU as torch will use it."""

    name: str
    cores: int  # that this process may use
    threads: int | None  # of torch; None where torch does not import
    flags: tuple[str, ...]  # of avx2, avx512f, avx512_bf16, amx_tile, amx_bf16
    bf16: bool  # in hardware: where it is not, bfloat16 is slower than float32
    amx: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A model that ships with clipcond: whether all its parts are there, and their size."""

    name: str
    complete: bool
    bytes: int
    path: str | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The cache of downloaded models; `offline`: downloading is switched off."""

    cache: str
    exists: bool
    offline: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps a part of clipcond from working, and what to do about it."""

    what: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The whole report."""

    clipcond: str
    python: str
    platform: str
    libraries: tuple[Library, ...]
    processor: Processor
    accelerators: tuple[str, ...]  # `cuda:0 NVIDIA H100 (80 GiB, 9.0)`, `mps`; empty on a CPU-only machine
    torchvision_repaired: bool  # its operators were missing, and declaring them cured the import
    mini: Embedded
    emoji: Embedded
    hub: Hub
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def inspect() -> Machine:
    """Look at everything; imports every library once to see that it works, which takes some seconds."""
    from clipcond._version import __version__

    repaired = _repair()
    libraries = (*_libraries(REQUIRED, required=True), *_libraries(OPTIONAL, required=False))
    accelerators = tuple(_accelerators())
    mini, emoji = (look_for_embedded(name) for name in ("mini", "emoji"))
    return Machine(
        clipcond=__version__,
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        libraries=libraries,
        processor=look_at_processor(),
        accelerators=accelerators,
        torchvision_repaired=repaired,
        mini=mini,
        emoji=emoji,
        hub=look_at_hub(),
        problems=tuple(find_problems(libraries, (mini, emoji))),
    )


def find_problems(libraries: tuple[Library, ...], models: tuple[Embedded, ...]) -> Iterator[Problem]:
    """Yield the faults that keep a part of clipcond from working. An optional library that is absent is no problem."""
    for library in libraries:
        if library.version is None and library.required:
            yield Problem(f"{library.name} is not installed", f"pip install {library.name}, or install clipcond again")
        elif library.version is not None and not library.works:
            advice = (
                f"pip uninstall {library.name}: clipcond works without it"
                if not library.required
                else f"install the tested versions again: pip install -c constraints.txt {library.name}"
            )
            yield Problem(f"{library.name} {library.version} does not work: {library.note}", advice)
    for model in models:
        if not model.complete:
            lacking = " and ".join(model.missing)
            yield Problem(
                f"the embedded model {model.name} lacks its {lacking}",
                "install clipcond again from its wheel or a full clone",
            )


def look_at_library(distribution: str, module: str, *, required: bool) -> Library:
    """Import one library and report its version and state; an exception of the import becomes its note."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Library(name=distribution, version=None, required=required, works=False, note="not installed")
    try:
        import_module(module)
    except Exception as error:  # a broken binary raises anything; the report must come out all the same
        note = f"{type(error).__name__}: {first_line(error)}"
        return Library(name=distribution, version=version, required=required, works=False, note=note)
    works, note = _try_xformers() if distribution == "xformers" else (True, "")
    return Library(name=distribution, version=version, required=required, works=works, note=note)


def look_at_processor(cpuinfo: Path = CPUINFO) -> Processor:
    """Report the CPU. cpuinfo: Linux's description of it; elsewhere name and flags stay as far as Python knows them."""
    text = processor_text(cpuinfo)
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    present = instructions(text)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processor(
        name=name[1].strip() if name else platform.processor() or platform.machine(),
        cores=usable,
        threads=_threads(),
        flags=tuple(flag for flag in _CPU_FLAGS if flag in present),
        bf16=multiplies_bfloat16(present),
        amx="amx_tile" in present,
    )


def look_for_embedded(name: str) -> Embedded:
    """Report an embedded model as it is installed."""
    found: list[Path] = []
    missing = []
    for part in EMBEDDED[name]:
        try:
            found.append(embedded(part))
        except ResourceMissing:
            missing.append(part)
    return Embedded(
        name=name,
        complete=not missing,
        bytes=sum(size_on_disk(folder) for folder in found),
        path=os.path.commonpath(found) if found else None,
        missing=tuple(missing),
    )


def look_at_hub() -> Hub:
    """Report the cache of downloaded models, and offline mode as huggingface_hub reads it."""
    cache = hub_cache()
    switched = (os.environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return Hub(cache=str(cache), exists=cache.is_dir(), offline=any(v in {"1", "ON", "YES", "TRUE"} for v in switched))


def _repair() -> bool:
    """True if torchvision needed help in this process, now or before."""
    try:
        from clipcond.runtime import torchvision_repair

        return torchvision_repair.repair() or torchvision_repair.repaired()
    except Exception:  # a torch that is absent or does not import has its own line in the report
        return False


def _libraries(table: dict[str, str], *, required: bool) -> tuple[Library, ...]:
    return tuple(look_at_library(name, module, required=required) for name, module in table.items())


def _try_xformers() -> tuple[bool, str]:
    """Run its attention once on the first CUDA device; without one it cannot be used, which is no fault."""
    import torch

    if not torch.cuda.is_available():
        return True, "not used: it needs a CUDA device"
    try:
        attention = import_module("xformers.ops").memory_efficient_attention
        query = torch.zeros(1, 8, 1, 32, device="cuda", dtype=torch.float16)
        attention(query, query, query)
    except Exception as error:
        return False, f"attention fails on this device: {first_line(error)}"
    return True, "attention works on this device"


def _threads() -> int | None:
    try:
        import torch
    except Exception:
        return None
    return int(torch.get_num_threads())


def _accelerators() -> Iterator[str]:
    try:
        import torch
    except Exception:
        return
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        yield f"cuda:{index} {device.name} ({device.total_memory / 2**30:.0f} GiB, {device.major}.{device.minor})"
    if torch.backends.mps.is_available():
        yield "mps"
