"""``python -m flashflow``: the same as the ``flashflow`` command."""

import sys

from flashflow.command_line import main

sys.exit(main())
