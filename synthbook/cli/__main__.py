"""`python -m synthbook.cli`."""

import sys

from synthbook.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
