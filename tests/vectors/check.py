"""Check a parser or an encoder of your own against these vectors. Standard library only; nothing of clipcond is imported.

    python check.py grammar_a1111.json my_module:parse          parse(prompt) -> [[text, weight], …]
    python check.py grammar_compel.json my_module:parse         parse(prompt) -> [[[text, weight], …], …], a list a prompt
    python check.py schedules_a1111.json my_module:resolve      resolve(prompt, steps, hires_steps) -> [[last step, text], …]
    python check.py numeric.json my_module:encode               encode(prompt, negative, dialect, weighting) ->
                                                                two lists of positions, each a list of numbers

Prints a line for each vector that is not met, and the count; exits 1 if any is not. A vector with `wanted` is met by that,
or, with --peer, by what the peer itself returns. my_module is imported from the current folder. docs/conformance.md has the
fields of each file.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path


def main(arguments):
    peer = "--peer" in arguments
    given = [each for each in arguments if each != "--peer"]
    if len(given) != 2 or ":" not in given[1]:
        print(__doc__, file=sys.stderr)
        return 2
    here = Path(given[0])
    file = here if here.is_file() else Path(__file__).parent / here.name
    kind = here.name.partition("_")[0].removesuffix(".json")
    if kind not in CHECKS or not file.is_file():
        return _refuse(f"{here} is no file that can be checked here, expected a grammar_*, schedules_* or numeric.json")
    module, _, name = given[1].partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        call = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        return _refuse(f"{given[1]} cannot be called: {error}")
    document = json.loads(file.read_text("utf-8"))
    wrong = 0
    for vector in document["vectors"]:
        try:
            problem = CHECKS[kind](call, vector, document, peer)
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error}"
        if problem:
            wrong += 1
            print(f"{vector.get('case', vector['prompt'])!r:.70}: {problem}")
    print(f"{len(document['vectors']) - wrong} of {len(document['vectors'])} met")
    return 1 if wrong else 0


def _refuse(why):
    print(f"check.py: {why}", file=sys.stderr)
    return 2


def grammar(call, vector, document, peer):
    """Texts trimmed, weights to the tolerance; null is not compared; of a partial vector only the listed pieces."""
    expected, got = vector["expected"], call(vector["prompt"])
    if document["peer"] == "compel":  # a list of prompts
        expected, got = [piece for each in expected for piece in each], [piece for each in got for piece in each]
    if "wanted" in vector and not peer:
        expected = vector["wanted"]
    wanted = [(text.strip(), weight) for text, weight in expected]
    pieces = [(text.strip(), weight) for text, weight in got]
    if vector.get("partial"):
        lacking = [each for each in wanted if not any(_same(each, piece, document) for piece in pieces)]
        return f"lacks {lacking} in {pieces}" if lacking else ""
    if len(wanted) == len(pieces) and all(_same(*pair, document) for pair in zip(wanted, pieces, strict=True)):
        return ""
    return f"expected {wanted}, got {pieces}"


def _same(wanted, piece, document):
    if wanted[0] != piece[0] or wanted[1] is None:
        return wanted[0] == piece[0]
    return piece[1] is not None and abs(wanted[1] - piece[1]) <= document["weight_tolerance"]


def schedules(call, vector, document, peer):
    """The list, or for `alternates` a text a step, in turns."""
    expected = vector["expected"]
    if isinstance(expected, dict):
        texts = expected["alternates"]
        expected = [[step, texts[(step - 1) % len(texts)]] for step in range(1, vector["steps"] + 1)]
    got = [list(each) for each in call(vector["prompt"], vector["steps"], vector["hires_steps"])]
    return "" if got == expected else f"expected {expected}, got {got}"


def numeric(call, vector, document, peer):
    """Length, norms (relative), and the recorded numbers (absolute)."""
    sides, tolerance = (
        call(vector["prompt"], vector["negative"], vector["dialect"], vector["weighting"]),
        document["tolerance"],
    )
    for side, states in zip(("prompt", "negative"), sides, strict=True):
        if len(states) != vector["length"]:
            return f"{side}: {len(states)} positions, expected {vector['length']}"
    for number, position, dimension, value in vector["values"]:
        got = sides[number][position][dimension]
        if not abs(got - value) <= tolerance:
            return f"side {number}, position {position}, dimension {dimension}: {got}, expected {value}"
    for states, norm in zip(sides, vector["norm"], strict=True):
        got = math.sqrt(sum(float(x) ** 2 for position in states for x in position))
        if not abs(got - norm) <= tolerance * norm:
            return f"norm {got}, expected {norm}"
    return ""


CHECKS = {"grammar": grammar, "schedules": schedules, "numeric": numeric}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
