"""The WSGI application that each of granian's workers loads."""

from __future__ import annotations

import os

from app import app
from local.gateway import Gateway
from local.parent import PARENT, exit_with

# granian restarts its workers, but nobody ends them when granian is killed.
exit_with(int(os.environ[PARENT]))
gateway = Gateway(app)
