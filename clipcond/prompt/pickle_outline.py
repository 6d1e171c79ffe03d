"""The outline of a pickle, without running it: containers, strings, numbers, and notes of whatever it would call.

A small stack machine follows the instructions that files of tensors need. What a pickle would call is written down with
its arguments and never called; all other instructions are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

MOST_INSTRUCTIONS = 500_000  # about a second; the pickle of an embedding has some hundred
_MARK = object()


@dataclass(slots=True)
class Noted:
    """A call that a pickle would make, with its arguments, and what the pickle would put into the result."""

    name: str
    arguments: tuple[object, ...] = ()
    items: dict[object, object] = field(default_factory=dict)
    state: object = None


def outline(stream: BinaryIO) -> object:
    """The object that one pickle describes, with `Noted` in the place of everything that would be called.

    Raises ValueError for instructions that files of tensors do not need and for more than 500,000 of them, and
    IndexError, KeyError or TypeError for a damaged pickle.
    """
    machine = _Machine()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if number >= MOST_INSTRUCTIONS:
            raise ValueError(f"a pickle of more than {MOST_INSTRUCTIONS:,} instructions")
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.follow(opcode.name, argument)
    raise ValueError("a pickle without an end")


class _Machine:
    """The stack and the memo of a pickle that is followed."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self._memo: dict[int, object] = {}

    def follow(self, name: str, argument: object) -> None:
        """Follow one instruction. Raises ValueError for one that is not needed."""
        if name in _PLAIN_VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self._tuple(_TUPLES[name])
        elif (method := _METHODS.get(name)) is not None:
            method(self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"a pickle with {name}, which embeddings do not need")

    def _since_mark(self) -> list[object]:
        """Take off the values above the last mark, and the mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a pickle without its mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def _put(self, pairs: list[object]) -> None:
        """Put keys and values, one after the other, into the dict on top."""
        top = self.stack[-1]
        target = top.items if isinstance(top, Noted) else top
        if isinstance(target, dict):
            target.update(
                (key, value) for key, value in zip(pairs[::2], pairs[1::2], strict=True) if isinstance(key, (str, int))
            )

    def _tuple(self, size: int) -> None:
        values = tuple(self.stack[-size:])
        del self.stack[-size:]
        self.stack.append(values)

    def _remember(self, argument: object) -> None:
        at = len(self._memo) if argument is None else int(str(argument))
        self._memo[at] = self.stack[-1]

    def _recall(self, argument: object) -> None:
        self.stack.append(self._memo[int(str(argument))])

    def _mark(self, argument: object) -> None:
        self.stack.append(_MARK)

    def _marked_tuple(self, argument: object) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _marked_list(self, argument: object) -> None:
        self.stack.append(self._since_mark())

    def _marked_dict(self, argument: object) -> None:
        pairs = self._since_mark()
        self.stack.append({})
        self._put(pairs)

    def _set_items(self, argument: object) -> None:
        self._put(self._since_mark())

    def _set_item(self, argument: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _drop_marked(self, argument: object) -> None:
        self._since_mark()

    def _drop(self, argument: object) -> None:
        self.stack.pop()

    def _global(self, argument: object) -> None:
        self.stack.append(Noted(str(argument)))

    def _stack_global(self, argument: object) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Noted(f"{module} {attribute}"))

    def _call(self, argument: object) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Noted) or not isinstance(arguments, tuple):
            raise ValueError("a pickle that calls what it must not")
        self.stack.append(Noted(called.name, arguments))

    def _build(self, argument: object) -> None:
        state = self.stack.pop()
        if isinstance(top := self.stack[-1], Noted):
            top.state = state

    def _storage(self, argument: object) -> None:
        self.stack[-1] = Noted("storage")


_PLAIN_VALUES = frozenset({
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1",
    "LONG4", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING", "STRING",
})  # fmt: skip
_CONSTANTS: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": lambda: Noted("set"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_METHODS: Mapping[str, Callable[[_Machine, object], None]] = {
    "BINPUT": _Machine._remember,
    "LONG_BINPUT": _Machine._remember,
    "PUT": _Machine._remember,
    "MEMOIZE": _Machine._remember,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "GET": _Machine._recall,
    "MARK": _Machine._mark,
    "TUPLE": _Machine._marked_tuple,
    "LIST": _Machine._marked_list,
    "DICT": _Machine._marked_dict,
    "SETITEMS": _Machine._set_items,
    "SETITEM": _Machine._set_item,
    "APPENDS": _Machine._drop_marked,
    "ADDITEMS": _Machine._drop_marked,
    "APPEND": _Machine._drop,
    "POP": _Machine._drop,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._storage,
}
