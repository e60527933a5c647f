"""The ten lines a Celery project needs to call tasks that run in C, and to read their results."""
import sys

from celery import Celery

url = sys.argv[1] if len(sys.argv) > 1 else "redis://localhost/0"
app = Celery("client", broker=url, backend="rpc://" if url.startswith("amqp") else url)

print("2 + 3 =", app.send_task("tasks.add", (2, 3)).get(timeout=10))
print("2**70 comes back as", app.send_task("tasks.echo", (2**70,)).get(timeout=10))
try:
    app.send_task("tasks.fail", ("no such size",)).get(timeout=10)
except ValueError as why:
    print("what C raises as ValueError is one here:", why)
