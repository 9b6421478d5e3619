"""``python -m components.cli``: the command ``retinalogos`` where it is not installed."""

import sys

from components.cli import main

if __name__ == "__main__":
    sys.exit(main())
