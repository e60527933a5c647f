"""Call a task and read its result with Celery's own client, as from any Python application:

    python3 celery_client.py redis://127.0.0.1:6379/0
"""
import sys

import celery

app = celery.Celery(broker=sys.argv[1], backend=sys.argv[1])
print(app.send_task("tasks.add", args=[2, 3]).get(timeout=20))
