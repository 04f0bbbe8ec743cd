"""The `kgrad` command and its subcommands."""
