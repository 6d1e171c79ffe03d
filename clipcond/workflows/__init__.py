"""The jobs behind the commands, one module each: options in, events and a result out. No Typer, no Rich.

Options are frozen dataclasses that raise OptionsError for what contradicts itself; messages name an option as the
command line does, so that `--batch-size` is the field `batch_size`. `events` takes what a job says on its way.
"""
