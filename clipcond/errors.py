"""The errors of clipcond. Each says what was given, what was expected and what to do, in one line.

ClipCondError
├── ResourceMissing      a file that ships with clipcond or one that was named is not there
├── ModelError           a model cannot be loaded, or is not of the kind that is needed
├── ShapeError           a tensor has the wrong axes
├── ImageError           a picture cannot be read
├── DataError            training data is unusable
├── ConfigError          a setting is unknown, out of range or contradicts another
│   └── OptionsError     the options of a job contradict one another, or one is missing: the command line exits with 2
├── OutputExists         a file or folder would be overwritten
└── PromptSyntaxError    raised with `strict=True` only: a prompt never raises by default
"""

from __future__ import annotations


class ClipCondError(Exception):
    """Base of all errors that clipcond raises on purpose; the command line prints it as one line."""


class ResourceMissing(ClipCondError, FileNotFoundError):
    """A shipped or named file does not exist."""

    def __str__(self) -> str:  # FileNotFoundError would treat the arguments as errno and path
        return str(self.args[0])


class ModelError(ClipCondError, ValueError):
    """A model could not be loaded, or lacks what was asked of it."""


class ShapeError(ClipCondError, ValueError):
    """A tensor's axes do not fit."""


class ImageError(ClipCondError, ValueError):
    """A picture could not be read."""


class DataError(ClipCondError, ValueError):
    """Training or evaluation data cannot be used."""


class ConfigError(ClipCondError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class OptionsError(ConfigError):
    """The options of a job contradict one another, name what does not exist, or lack one: wrong usage of a command."""


class OutputExists(ClipCondError, FileExistsError):
    """Something is in the way of an output, and nothing is ever overwritten unasked."""

    def __str__(self) -> str:
        return str(self.args[0])


class PromptSyntaxError(ClipCondError, ValueError):
    """A finding about a prompt, raised only by `strict=True`."""

    def __init__(self, problem: str, source: str, start: int, end: int) -> None:
        super().__init__(problem, source, start, end)
        self.problem, self.source, self.start, self.end = problem, source, start, end

    def __str__(self) -> str:
        return f"{self.problem} (characters {self.start} to {self.end}: {self.source[self.start : self.end]!r})"
