"""canvas_run - runs the expressions of canvas_expressions.py, all at once, and gives what became of each."""
import json
import os
import subprocess
import time

import canvas_expressions
import canvas_kit
import harness
from celery.result import result_from_tuple


def send(app, names):
    """{name: result} of what was sent."""
    return {name: canvas_expressions.make(name, app).send() for name in names}


def replay(app, client, documents):
    """The same with captured messages."""
    for queue in ("celery", "python"):
        app.amqp.queues.add(queue)
    for document in documents.values():
        canvas_kit.replay(app, client, document["counted"][0])
    return {name: result_from_tuple(document["counted"][1], app) for name, document in documents.items()}


def compose(app, documents, broker, backend):
    """What was captured, built anew with the functions of C, and sent by them."""
    described = {name: {key: document[key] for key in ("signature", "args", "options")} for name, document in documents.items()}
    done = subprocess.run([harness.COMPOSE], input=json.dumps(described), text=True, check=True, stdout=subprocess.PIPE,
                          env={**os.environ, **harness.environment(broker, backend)})
    return {name: result_from_tuple(tree, app) for name, tree in json.loads(done.stdout).items()}


def trees(app, client, results, hidden):
    metas = canvas_kit.stored(client)
    return {name: canvas_kit.Tree(app, result, metas).canonical(hidden(name)) for name, result in results.items()}


def nothing(_name):
    return ()


def await_expected(app, client, results, expected, timeout, hidden=nothing, view=lambda tree: tree):
    """{name: tree} of those that did not become what was expected, seen by `view` and without what is hidden(name)."""
    wrong, deadline = dict(results), time.monotonic() + timeout
    while True:
        seen = {name: view(tree) for name, tree in trees(app, client, wrong, hidden).items()}
        wrong = {name: result for name, result in wrong.items() if seen[name] != expected[name]}
        if not wrong or time.monotonic() > deadline:
            return {name: seen[name] for name in wrong}
        time.sleep(0.2)


def await_rest(app, client, results, quiet, timeout, hidden=nothing):
    """{name: tree} of all, once nothing has changed for `quiet` seconds."""
    seen, deadline = trees(app, client, results, hidden), time.monotonic() + timeout
    since = time.monotonic()
    while time.monotonic() < min(deadline, since + quiet):
        time.sleep(0.3)
        again = trees(app, client, results, hidden)
        if again != seen:
            seen, since = again, time.monotonic()
    return seen
