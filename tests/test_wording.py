"""Text of others made fit to show."""

from __future__ import annotations

from clipcond.wording import first_line, html_table


def test_a_librarys_colours_are_taken_out_and_what_steers_a_terminal_is_made_visible() -> None:
    assert first_line(ValueError("\x1b[1mMissing\x1b[0m keys: \x1b[38;5;9ma\x1b[m")) == "Missing keys: a"
    assert first_line(ValueError("\x1b]0;title\x07 \u202eback")) == "␛]0;title␇ �back"
    assert first_line(ValueError("\n \n")) == "ValueError"
    assert (
        first_line(ValueError("Error(s) in loading:\n\tsize mismatch.\n\tmore")) == "Error(s) in loading: size mismatch"
    )


def test_a_table_for_a_notebook_escapes_everything() -> None:
    table = html_table("<a> & b\x1b", ("n", "t"), [(1, "<script>"), (2, "b")], notes=["<i>"])
    assert table.count("<tr>") == 3
    assert "&lt;script&gt;" in table
    assert "<strong>&lt;a&gt; &amp; b␛</strong>" in table
    assert "<li>&lt;i&gt;</li>" in table
    assert "<ul>" not in html_table("t", ("n",), [])
