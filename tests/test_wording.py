"""Text of others made fit to show."""

from __future__ import annotations

from clipcond.wording import first_line


def test_a_librarys_colours_are_taken_out_and_what_steers_a_terminal_is_made_visible() -> None:
    assert first_line(ValueError("\x1b[1mMissing\x1b[0m keys: \x1b[38;5;9ma\x1b[m")) == "Missing keys: a"
    assert first_line(ValueError("\x1b]0;title\x07 \u202eback")) == "␛]0;title␇ �back"
    assert first_line(ValueError("\n \n")) == "ValueError"
    assert (
        first_line(ValueError("Error(s) in loading:\n\tsize mismatch.\n\tmore")) == "Error(s) in loading: size mismatch"
    )
