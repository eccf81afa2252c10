"""Start FlashFlow from a checkout or a Flet build: ``python main.py``; the same as the ``flashflow`` command."""

import sys

from flashflow.command_line import main

if __name__ == "__main__":
    sys.exit(main())
