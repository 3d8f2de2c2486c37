"""``python -m backupagent``."""

import sys

from backupagent.cli import main

if __name__ == "__main__":
    sys.exit(main())
