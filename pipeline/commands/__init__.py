"""One file per subcommand: the file name is the command, with `-` for `_`.

Each has a docstring (its help), `arguments(parser)` and `main(args) -> exit code`.
"""
