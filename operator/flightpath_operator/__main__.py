"""`python -m flightpath_operator` starts the operator."""

import sys

from flightpath_operator.runtime.app import main

sys.exit(main())
