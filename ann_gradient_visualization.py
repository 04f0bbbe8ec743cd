"""Train small networks and show their gradients vanish, flow or explode; see `--help`."""

import sys
from pathlib import Path

from kgrad.apps.command.run import main

if __name__ == "__main__":
    sys.exit(main(program=Path(__file__).name))
