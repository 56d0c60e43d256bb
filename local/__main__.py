"""``python -m local`` serves the API with firing timers on this machine."""

import sys

from local.supervisor import main

sys.exit(main())
