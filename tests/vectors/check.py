"""Check a parser or an encoder of your own against these vectors. Standard library only; nothing of clipcond is imported.

    python check.py grammar_a1111.json my_module:parse          parse(prompt) -> [[text, weight], …]
    python check.py grammar_compel.json my_module:parse         parse(prompt) -> [[[text, weight], …], …], a list a prompt
    python check.py schedules_a1111.json my_module:resolve      resolve(prompt, steps, hires_steps) -> [[last step, text], …]
    python check.py chunks.json my_module:chunks [--of A1111]   chunks(prompt, peer, settings, encoder) -> a list of rows, each
                                                                the ids of a chunk with BOS, EOS and padding; None for
                                                                a vector of the textual inversion `tix`, which has 4
    python check.py weighting.json my_module:weigh [--of NAME]  weigh(method, **input) -> a number, or a list of what goes in
    python check.py numeric.json my_module:encode               encode(prompt, negative, dialect, weighting) ->
                                                                two lists of positions, each a list of numbers

Prints a line for each vector that is not met, and the count; exits 1 if any is not. --of takes the vectors of one peer or one
method. A vector with `wanted` is met by that,
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
    of = None
    if "--of" in given[:-1]:
        of = given.pop(given.index("--of") + 1)
        given.remove("--of")
    if len(given) != 2 or ":" not in given[1]:
        print(__doc__, file=sys.stderr)
        return 2
    here = Path(given[0])
    file = here if here.is_file() else Path(__file__).parent / here.name
    kind = here.name.partition("_")[0].removesuffix(".json")
    if kind not in CHECKS or not file.is_file():
        return _refuse(f"{here} is no file that can be checked here, expected one of {', '.join(FILES)}")
    module, _, name = given[1].partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        call = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        return _refuse(f"{given[1]} cannot be called: {error}")
    document = json.loads(file.read_text("utf-8"))
    vectors = [each for each in document["vectors"] if of in (None, each.get("peer"), each.get("method"))]
    if not vectors:
        return _refuse(f"{file.name} has no vector of {of}")
    wrong = 0
    for vector in vectors:
        try:
            problem = CHECKS[kind](call, vector, document, peer)
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error}"
        if problem:
            wrong += 1
            print(f"{vector.get('case', vector['prompt'])!r:.70}: {problem}")
    print(f"{len(vectors) - wrong} of {len(vectors)} met")
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


BOS, EOS, FOX, OWL = 49406, 49407, "fox", "owl"  # words of one token
PIECES, WITHIN = "artgerm", (1486, 1291)  # a word of three tokens, and those that do not end it


def typed(runs):
    """The prompt of a vector of chunks."""
    words = []
    for what, times in runs:
        if isinstance(what, list):
            word = typed(what)
        elif what.startswith("group:"):
            word = f"({PIECES if what == 'group:3' else ' '.join([OWL] * int(what[6:]))}:1.2)"
        else:
            word = {"w": FOX, "3-piece word": PIECES}.get(what, "tix" if what.startswith("TI:") else what)
        words += [word] * times
    return " ".join(words)


def chunks(call, vector, document, peer):
    """The content of each row, from BOS to the first EOS, and for `tail_pad` what stands behind."""
    prompt, expected, settings = typed(vector["runs"]), vector["expected"], vector.get("settings", {})
    if "tail_pad" in expected:
        for encoder, pad in expected["tail_pad"].items():
            row = list(call(prompt, vector["peer"], settings, encoder)[0])
            tail = row[row.index(EOS) + 1 :]
            if not tail or set(tail) != {pad}:
                return f"{encoder}: padded with {sorted(set(tail))}, expected {pad}"
        return ""
    contents = [_content(row) for row in call(prompt, vector["peer"], settings, "clip_l")]
    places = [[at for at, each in enumerate(content, 1) if each is None] for content in contents]
    if "wanted" in vector and not peer:
        wanted = [[], vector["wanted"]["positions"]]
        return "" if places == wanted else f"vectors at {places}, expected {wanted}"
    sizes = [len(content) for content in contents]
    filled = 75 if vector["runs"] and vector["runs"][-1][0] == "BREAK" else sizes[-1]
    found = {
        "chunks": len(sizes),
        "count": 75 * (len(sizes) - 1) + filled,
        "content_sizes": sizes,
        "cut": "full" if sizes[0] == 75 else "backtrack",
        "second_chunk_first_token_index": sizes[0],
        "first_chunk_content": sizes[0],
        "first_chunk_empty": sizes[0] == 0,
        "cut_inside_word": bool(sizes[0]) and contents[0][-1] in WITHIN,
        "peer_vector_positions": places,
        "chunk1_zero_ids": [at for at, each in enumerate(contents[-1], 1) if each == 0],
    }
    wrong = {key: found[key] for key in expected if found[key] != expected[key]}
    return f"{wrong}, expected {expected}" if wrong else ""


def _content(row):
    row = list(row)
    if row[0] != BOS or EOS not in row:
        raise ValueError(f"a row of {row[:3]}…, expected {BOS}, the content, {EOS} and padding")
    return row[1 : row.index(EOS)]


def weighting(call, vector, document, peer):
    """Numbers to the tolerance; of a property what it says, on made-up numbers."""
    if vector.get("property"):
        return PROPERTIES[vector["method"]](call)
    expected = vector["expected"] if isinstance(vector["expected"], list) else [vector["expected"]]
    got = call(vector["method"], **vector["input"])
    got = list(got) if isinstance(got, (list, tuple)) else [got]
    near = len(got) == len(expected) and all(
        abs(a - b) <= vector["tolerance"] for a, b in zip(got, expected, strict=True)
    )
    return "" if near else f"got {got}, expected {expected}"


STATES = [[math.sin(1.7 * at + number) for number in range(4)] for at in range(5)]


def _untouched(call):
    """weigh("comfy", states=…, empty=…, weights=…) -> states: rows of weight 1 as they are."""
    weights = [1, 1.3, 1, 0.5, 1]
    got = call(
        "comfy", states=[list(each) for each in STATES], empty=[list(each) for each in STATES[::-1]], weights=weights
    )
    moved = [at for at, weight in enumerate(weights) if weight == 1 and list(got[at]) != STATES[at]]
    return f"rows {moved} of weight 1 are touched" if moved else ""


def _repeated(call):
    """weigh("lcm_repeat", states=…, length=…) -> states, which attention reads as before."""
    got = call("lcm_repeat", states=[list(each) for each in STATES], length=3 * len(STATES))
    if len(got) != 3 * len(STATES):
        return f"{len(got)} positions, expected {3 * len(STATES)}"
    query = [0.3, -1.1, 0.7, 0.2]
    before, after = _attention(query, STATES), _attention(query, got)
    near = all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in zip(before, after, strict=True))
    return "" if near else f"attention gives {after}, expected {before}"


def _attention(query, states):
    shares = [math.exp(sum(a * b for a, b in zip(query, each, strict=True))) for each in states]
    return [sum(s * each[d] for s, each in zip(shares, states, strict=True)) / sum(shares) for d in range(len(query))]


PROPERTIES = {"comfy": _untouched, "lcm_repeat": _repeated}
CHECKS = {"grammar": grammar, "schedules": schedules, "chunks": chunks, "weighting": weighting, "numeric": numeric}
FILES = ("grammar_*.json", "schedules_*.json", "chunks.json", "weighting.json", "numeric.json")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
