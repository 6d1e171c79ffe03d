"""Brackets and quotes of a compel prompt: their partners, and the weights behind them."""

from __future__ import annotations

import re

from clipcond.prompt.dialects.reading import bounded

# no white space and no mark, or an escaped mark, or a sign in front of such a character; alternatives exclude each other
WORD = re.compile(r'(?:\\[()",.+=\-]|[+\-](?![\s()",.+=\-]|\Z)|[^\s()",.+=\-])+')
_PLUS, _MINUS = 1.1, 0.9
_MANY = 1000  # signs in a row; more change nothing
_SIGNS = re.compile(r"\++|-+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_ATTEND = re.compile(r"\.attend\((?:(\++|-+)|([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)))\)")


def suffix(prompt: str, at: int, limit: int, *, grouped: bool) -> tuple[float, int]:
    """Return the factor of a `++`, `-`, `.attend(1.3)` or, behind a bracket or quote, `1.3`, and its end."""
    mark = prompt[at] if at < limit else " "
    if mark in "+-":
        end = match.end() if (match := _SIGNS.match(prompt, at, limit)) else at
        return _signs(mark, end - at), end
    if grouped and (match := _NUMBER.match(prompt, at, limit) if "." <= mark <= "9" else None):
        return bounded(float(match[0])), match.end()
    if mark == "." and (match := _ATTEND.match(prompt, at, limit)):
        return _signs(match[1][0], len(match[1])) if match[1] else bounded(float(match[2])), match.end()
    return 1.0, at


def _signs(sign: str, count: int) -> float:
    return bounded((_PLUS if sign == "+" else _MINUS) ** min(count, _MANY))


class Pairs:
    """Finds the partner of a bracket or quote, if compel can read all that is between. Each is worked out once."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._close: dict[int, int] = {}  # of each bracket and quote that was looked at; -1 where it is text

    def close(self, start: int) -> int:
        """Return the place where the bracket or quote at `start` closes; -1 where it is text."""
        if start not in self._close:
            self._look(start)
        return self._close[start]

    def _look(self, start: int) -> None:
        prompt, known = self._prompt, self._close
        stack, quote = [start], 0 if prompt[start] == '"' else -1  # quote: the open one's place in the stack
        at, end = start + 1, len(prompt)
        while stack:
            mark = prompt[at] if at < end else "="
            if (mark.isspace() and (mark != "\n" or quote < 0)) or mark in ",.":
                at += 1
            elif mark == "(" or (mark == '"' and quote < 0):
                if known.get(at, 0) < 0:
                    break
                if at in known:
                    _, at = suffix(prompt, known[at] + 1, end, grouped=True)
                    continue
                if mark == '"':
                    quote = len(stack)
                stack.append(at)
                at += 1
            elif mark in ')"' and prompt[stack[-1]] == ("(" if mark == ")" else '"'):
                known[stack.pop()] = at
                if mark == '"':
                    quote = -1
                _, at = suffix(prompt, at + 1, end, grouped=True)
            elif word := WORD.match(prompt, at):
                _, at = suffix(prompt, word.end(), end, grouped=False)
            else:
                break
        # a quote ends at the next one and at the line's end, whatever is open inside: that says nothing about the inside
        lost = stack[: quote + 1] if quote >= 0 and at < end and prompt[at] in '"\n' else stack
        known.update(dict.fromkeys(lost, -1))
