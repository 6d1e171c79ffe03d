"""Make clipcond/prompt/merges.bin, CLIP's ASCII merges by their first two characters, from open_clip's vocabulary file.

python recipes/vocabulary/merges.py
"""

from __future__ import annotations

from pathlib import Path

import clipcond.prompt
from clipcond.prompt.byte_pairs import FILE, packed
from clipcond.prompt.tokenizer import merges


def main() -> None:
    file = Path(clipcond.prompt.__file__).with_name(FILE)
    file.write_bytes(packed(merges()))
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
