"""The `whimbrel` command: argument parsing, and the list of commands. Imported by nothing else."""
