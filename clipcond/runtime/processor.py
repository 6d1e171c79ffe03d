"""The processor's instructions, as Linux tells them."""

from __future__ import annotations

import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # "bf16" is ARM's


def processor_text(cpuinfo: Path = CPUINFO) -> str:
    """Linux's description of the processor; empty elsewhere."""
    try:
        return cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def instructions(text: str) -> frozenset[str]:
    """The names of instruction sets in a processor's description."""
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


def multiplies_bfloat16(names: frozenset[str] | None = None) -> bool:
    """True if the processor has instructions that multiply bfloat16; without them it is slower than float32.

    names: instruction sets, by default this machine's.
    """
    return bool((instructions(processor_text()) if names is None else names) & _BFLOAT16)
