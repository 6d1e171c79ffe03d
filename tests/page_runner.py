"""Run commands and Python blocks one after another, each in a process of its own that begins with the libraries loaded.

    python page_runner.py < runs.json

Each run is a list: `["clipcond", arguments…]`, `["python", text]`, or any other program and its arguments. Prints a JSON
line per run: exit code, stdout's and stderr's last letters. Loading torch and its friends takes longer than most commands
take to run: a fork has them already.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import traceback
import warnings
from types import ModuleType

LAST = 3000


def preload() -> None:
    """Import what most commands import, in the order in which clipcond does."""
    import clipcond.cli
    from clipcond.runtime.torchvision_repair import repair

    repair()
    import diffusers  # noqa: F401
    import open_clip  # noqa: F401
    import transformers  # noqa: F401

    import clipcond.diffusion.pipelines
    import clipcond.models.load  # noqa: F401


def forked(run: list[str]) -> dict[str, object]:
    """Run in a fork, and return its exit code and what it wrote."""
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")  # noqa: SIM115
            sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="utf-8", write_through=True)  # noqa: SIM115
            os._exit(finished(run))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace")[-LAST:])
    return {"code": code, "out": texts[0], "err": texts[1]}


def finished(run: list[str]) -> int:
    """Run to the end in this process, and return the exit code."""
    try:
        if run[0] == "python":
            warnings.filterwarnings("error", category=DeprecationWarning, module="clipcond")
            module = ModuleType("__main__")
            sys.modules["__main__"] = module
            exec(compile(run[1], "<block>", "exec"), module.__dict__)
            code = 0
        elif run[0] != "clipcond":
            os.execvp(run[0], run)
        else:
            from clipcond.cli import main

            sys.argv = [*run]
            code = main(run[1:])
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    preload()
    for each in json.load(sys.stdin):
        print(json.dumps(forked(each)), flush=True)
