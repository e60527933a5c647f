"""envelopes - task messages as a Celery producer writes them, made fast: for benchmarks and for tests with many tasks."""
import base64
import json
import uuid

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def headers(task_id, task="tasks.noop", **more):
    return {"lang": "py", "task": task, "id": task_id, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": task_id, "parent_id": None,
            "argsrepr": "()", "kwargsrepr": "{}", "origin": "envelopes", "ignore_result": False,
            "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}, **more}


def body(args=()):
    return json.dumps([list(args), {}, EMBED])


def redis(task_id, task="tasks.noop", args=(), queue="celery", **more):
    """A list element of Redis."""
    return json.dumps({
        "body": base64.b64encode(body(args).encode()).decode(), "content-encoding": "utf-8",
        "content-type": "application/json", "headers": headers(task_id, task, **more),
        "properties": {"correlation_id": task_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2,
                       "delivery_info": {"exchange": "", "routing_key": queue}, "priority": 0,
                       "body_encoding": "base64", "delivery_tag": str(uuid.uuid4())}})
