"""Speed and cost, measured on processes as users start them."""

import os

from tests.support import gateway_forks

os.environ[gateway_forks.ANEW] = "1"
