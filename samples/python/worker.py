"""The other direction: tasks in Python for `apium call` and C programs. Start it with

    python3 -m celery -A worker worker -Q python -l info
"""
import os

from celery import Celery

app = Celery("worker", broker=os.environ.get("BROKER", "redis://localhost/0"),
             backend=os.environ.get("BACKEND", "redis://localhost/0"))


@app.task(name="python.title")
def title(text):
    return text.title()
