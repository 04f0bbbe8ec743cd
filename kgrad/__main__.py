"""`python -m kgrad` is `kgrad`."""

import sys

from kgrad.apps.command.main import main

if __name__ == "__main__":
    sys.exit(main())
