"""A gateway on a supervisor that is there already: `python -m onehop.wires SUPERVISOR_SOCKET`."""

from __future__ import annotations

import sys

from onehop.api.serve import main
from onehop.wires import Wires

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Wires))
