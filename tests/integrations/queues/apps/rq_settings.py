"""What `rq worker -c rq_settings` reads before it forks: the one place where capture can be installed for RQ's own command."""

import os

import rq_app as rq_app

REDIS_URL = "unix://" + os.environ["REDIS"]
