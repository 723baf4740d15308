"""`python -m zoo` is the `zoo` command, for launchers that start modules: `torchrun -m zoo train ...`."""

import sys

from zoo.cli import main

sys.exit(main())
