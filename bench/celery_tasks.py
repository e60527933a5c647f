"""The Celery application that `./dev bench` measures apium against."""
import json
import os

from celery import Celery

app = Celery("tasks", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"] or None)
app.conf.worker_hijack_root_logger = True
app.conf.update(json.loads(os.environ.get("BENCH_CONF", "{}")))


@app.task(name="tasks.noop")
def noop():
    return None


@app.task(name="tasks.echo")
def echo(value):
    return value


@app.task(name="tasks.add")
def add(x, y):
    return x + y
