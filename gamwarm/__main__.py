"""``python -m gamwarm``: the command, also where its script is not on the PATH."""

import sys

from gamwarm.cli import main

sys.exit(main())
