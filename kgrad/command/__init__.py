"""What `kgrad` and `python -m kgrad` do in a terminal."""
