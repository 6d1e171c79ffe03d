"""The exit codes of all commands.

0 done; 1 a check that was asked for failed; 2 wrong usage; 3 input, model or environment error; 130 interrupted;
141 the reader of the output went away (what a shell reports for any tool that dies of SIGPIPE).
"""

OK, CHECK_FAILED, USAGE, FAILED, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 130, 141
