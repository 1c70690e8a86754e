"""`python -m solvers` takes the tour: one real problem per family, solved and certified."""

import sys

from solvers._tour._guide import main

if __name__ == "__main__":
    sys.exit(main())
