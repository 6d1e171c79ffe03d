"""The jobs behind the commands, one module each: options in, events and a result out. No Typer, no Rich."""
