"""``python -m local`` serves the API and fires timers on this machine."""

import sys

from local.supervisor import main

sys.exit(main())
