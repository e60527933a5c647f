"""A reading report on a text: a workflow whose steps alternate between C and Python workers. In three terminals, with a
Redis server on this machine:

    build/apium -A build/samples/mixed.so -b redis://localhost/0 --result-backend redis://localhost/0 worker -Q c -l info
    cd samples/mixed && python3 -m celery -A steps worker -Q python -l info
    python3 samples/mixed/flow.py README.md /tmp/report.txt

URL=redis://other/1 in the environment of the last two is another server. With --json the workflow is not sent but printed,
for `apium call --canvas FILE --wait`.
"""
import json
import os
import sys

from celery import group
from celery.exceptions import TimeoutError
from steps import app, grade, vocabulary


def c(name, *args):
    """A call of a task that runs in C; its name is all that Python knows of it."""
    return app.signature(name, args=args, queue="c")


def flow(path, report):
    return (c("mixed.read", path)
            | group(vocabulary.s().set(queue="python"), c("mixed.measure"))
            | grade.s().set(queue="python")
            | c("mixed.save", report))


def main():
    paths = [os.path.abspath(arg) for arg in sys.argv[1:] if arg != "--json"]
    if len(paths) != 2:
        sys.exit("usage: flow.py [--json] TEXT REPORT")
    if "--json" in sys.argv:
        print(json.dumps(flow(*paths), indent=2))
        return
    result = flow(*paths).apply_async()
    try:
        saved = result.get(timeout=30)
    except TimeoutError:
        sys.exit(f"flow.py: no answer: do both workers run? {__file__} says how")
    except Exception as why:  # of whichever step, in C or in Python
        sys.exit(f"flow.py: {type(why).__name__}: {why}")
    with open(saved["file"]) as report:
        print(report.read(), end="")


if __name__ == "__main__":
    main()
