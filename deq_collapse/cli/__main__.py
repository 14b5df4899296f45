"""``python -m deq_collapse.cli``."""

import sys

from deq_collapse.cli.program import main

sys.exit(main())
