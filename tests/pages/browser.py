"""A page in headless Chromium: put into a frame, used by a script, and what was seen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def drive(driver: str, page: str, folder: Path, *, width: int, dark: bool) -> dict[str, object]:
    """Open a page in a frame of that width and run a driver on it, a page that leaves its findings between two SEEN.

    Skips the test where there is no Chromium.
    """
    browser = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine: the page is not driven")
    file = folder / "driver.html"
    file.write_text(driver.format(page=json.dumps(page).replace("</", "<\\/"), width=width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", scheme, f"--user-data-dir={folder / 'profile'}",
               "--window-size=1400,900", "--virtual-time-budget=8000", "--dump-dom", file.as_uri()]  # fmt: skip
    run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=180)
    found = re.search(r"SEEN(\{.*?\})SEEN", run.stdout, re.S)
    assert found is not None, run.stderr[-2000:]
    told: dict[str, object] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return told
