"""interop_app - the Python side: the same task names as the C modules have, for a Celery worker.

Configured by the environment that tests/support/harness.py makes.
"""
import json
import os
import time

from celery import Celery, chord, group

app = Celery("interop")
app.conf.update(broker_connection_retry_on_startup=True, result_extended=True)
app.conf.update(json.loads(os.environ.get("INTEROP_CONF", "{}")))


def put(word, key):
    """A record of tests/support/ledger.c: one length, one write."""
    record = f"{word} {key} {os.getpid()} {time.monotonic_ns() // 1_000_000}".encode().ljust(127) + b"\n"
    assert len(record) == 128, key
    with open(os.environ["LEDGER"], "ab", buffering=0) as ledger:
        ledger.write(record)


@app.task(name="tasks.add")
def add(x, y):
    return x + y


@app.task(name="tasks.mul")
def mul(x, y):
    return x * y


@app.task(name="tasks.xsum")
def xsum(numbers):
    return sum(numbers)


@app.task(name="tasks.noop")
def noop():
    return None


@app.task(name="tasks.echo")
def echo(value):
    return value


@app.task(name="tasks.fail")
def fail(message):
    raise ValueError(message)


@app.task(name="tasks.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return float(seconds)


@app.task(name="python.raise_key")
def raise_key(key):
    return {}[key]


@app.task(name="python.request", bind=True)
def request(self, *args, **kwargs):
    """What arrived, as this worker understands it."""
    r = self.request
    names = ("id root_id parent_id retries eta expires timelimit shadow reply_to origin argsrepr kwargsrepr "
             "ignore_result delivery_info tenant task").split()
    values = {name: getattr(r, name, None) for name in names}
    return json.loads(json.dumps({**values, "args": args, "kwargs": kwargs}, default=str))


@app.task(name="python.flaky", bind=True, max_retries=5, default_retry_delay=0.1)
def flaky(self, fails):
    if self.request.retries < fails:
        raise self.retry(exc=RuntimeError("again"))
    return self.request.retries


@app.task(name="tasks.flaky", bind=True, max_retries=3)
def tasks_flaky(self, key, fails=1):
    if self.request.retries < fails:
        # Celery sends the next attempt and stores RETRY then. Were that attempt over by then, its result would be lost.
        raise self.retry(exc=ConnectionError("the peer is down"), countdown=1)
    return {"key": key, "attempts": fails + 1}


@app.task(name="python.replace", bind=True)
def replace(self, kind, x):
    """Another workflow in the place of this task."""
    kinds = {
        "task": lambda: add.s(x, 10),
        "chain": lambda: add.s(x, 10) | mul.s(2),
        "group": lambda: group(add.s(x, 10), mul.s(x, 10)),
        "chord": lambda: chord([add.s(x, 10), mul.s(x, 10)], xsum.s()),
    }
    return self.replace(kinds[kind]())


@app.task(name="python.add_to_chord", bind=True)
def add_to_chord(self, x):
    """One part more, for the chord that this task is a part of."""
    self.add_to_chord(add.s(x, 100))
    return x


@app.task(name="ledger.work")
def work(key, ms=0):
    put("begin", key)
    time.sleep(ms / 1000)
    put("end", key)
    return os.getpid()


@app.task(name="ledger.sure", acks_late=True, reject_on_worker_lost=True)
def sure(key, ms=0):
    return work(key, ms)
