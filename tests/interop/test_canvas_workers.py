"""Workflows built in Python, run by a Python worker, by a C worker, and by both sharing the queue: equal results, states, parents,
children and errors."""
import json
import os
import unittest

import canvas_expressions
import canvas_kit
import canvas_run
import harness

servers = harness.Servers()
TIMEOUT = 40 if harness.SANITIZED else 20


def tearDownModule():
    servers.stop()


# Where Celery hangs or loses something, and what is right: the state and value of the result. Nothing else may be pending then.
DIED = "ValueError", ["no"]
RIGHT = {
    # 5.6.3 and 5.2 forget the steps behind a chord; 5.7 does as is written here
    "chain fails before chord": ("FAILURE", *DIED),
    "chain fails before chord, more": ("FAILURE", *DIED),
    # 5.6.3 and 5.2 know no id for a body that is a chain, and so mark nothing
    "group in chain, one fails": ("FAILURE", "ChordError", ["Dependency # raised ValueError('late')"]),
    "task | chord fails | task": ("FAILURE", "ChordError", ["Dependency # raised ValueError('late')"]),
    # the upper chord waits for ever in any Celery
    "chord of failing chord": ("FAILURE", "ChordError",
                               ["Dependency # raised ChordError('Dependency # raised ValueError(\\'no\\')')"]),
    "chord of unknown task": ("FAILURE", "ChordError", ["Dependency # raised NotRegistered('tasks.no_such')"]),
    # any Celery takes the chain for a function of three arguments and fails the task again
    "link_error chain": ("FAILURE", *DIED),
    # 5.3 and later revoke the members as well, which hides why they did not run
    "chord body group, part fails": ("FAILURE", *DIED),
}
