"""Other libraries kept quiet for a while: their log lines, warnings and progress bars, for programs that report themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from clipcond.runtime.torchvision_repair import repair


@contextmanager
def quiet_calls() -> Iterator[None]:
    """Keep the libraries' log lines and Python warnings off stderr."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep all log lines off stderr, and leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        root.handlers[:] = handlers  # open_clip logs through the root and thereby configures it


@contextmanager
def without_bars(hide: bool = True) -> Iterator[None]:
    """Hide transformers' progress bars, which it draws on files and pipes too."""
    from transformers.utils import logging as bars

    with _hidden(bars, hide):
        yield


@contextmanager
def quiet_loading() -> Iterator[None]:
    """`quiet_calls`, and no bars from diffusers and transformers."""
    with quiet_calls(), ExitStack() as stack:
        repair()
        from diffusers.utils import logging as ours
        from transformers.utils import logging as theirs

        for bars in (ours, theirs):
            stack.enter_context(_hidden(bars, True))
        yield


@contextmanager
def _hidden(bars: object, hide: bool) -> Iterator[None]:
    """Switch the bars of a library off, and on again where they were on."""
    hide = hide and bars.is_progress_bar_enabled()  # type: ignore[attr-defined]
    if hide:
        bars.disable_progress_bar()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if hide:
            bars.enable_progress_bar()  # type: ignore[attr-defined]
