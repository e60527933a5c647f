"""flower_calls - a script of calls of Flower's API, as its documentation has them: (name, method, path, body). {name} in a path is the
task that the call of that name made; a body of bytes is sent as it is. Real Flower's answers are in tests/fixtures/flower-2.2
(capture_flower.py); test_flower.py asks apium web the same."""
import http.client
import json
import re

FIRST = [
    ("apply", "POST", "/api/task/apply/tasks.add", {"args": [2, 3]}),
    ("apply-kwargs", "POST", "/api/task/apply/tasks.add", {"args": [2], "kwargs": {"y": 4}}),
    ("apply-text", "POST", "/api/task/apply/tasks.echo", {"args": ["it's"]}),
    ("apply-object", "POST", "/api/task/apply/tasks.echo", {"args": [{"a": [1, None, True, 1.5]}]}),
    ("apply-none", "POST", "/api/task/apply/tasks.noop", None),
    ("apply-failure", "POST", "/api/task/apply/tasks.fail", {"args": ["boom"]}),
    ("apply-timeout", "POST", "/api/task/apply/tasks.sleep", {"args": [2], "timeout": 0.3}),
    ("apply-unknown", "POST", "/api/task/apply/none.such", {"args": []}),
    ("apply-args-no-array", "POST", "/api/task/apply/tasks.add", {"args": 5}),
    ("apply-no-object", "POST", "/api/task/apply/tasks.add", [1]),
    ("apply-no-json", "POST", "/api/task/apply/tasks.add", b"{"),
    ("apply-bad-timeout", "POST", "/api/task/apply/tasks.add", {"args": [1, 1], "timeout": "soon"}),
    ("async-apply", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1]}),
    ("async-apply-countdown", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "countdown": 3600}),
    ("async-apply-countdown-text", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "countdown": "0.1"}),
    ("async-apply-eta", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "eta": "2020-01-02 03:04:05.000006"}),
    ("async-apply-bad-eta", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "eta": "tomorrow"}),
    ("async-apply-expires", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "expires": 60}),
    ("async-apply-expires-text", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "expires": "60"}),
    ("async-apply-expires-date", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "expires": "2999-01-02 03:04:05.000006"}),
    ("async-apply-bad-expires", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "expires": "never"}),
    ("async-apply-queue", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "queue": "nobody"}),
    ("async-apply-id", "POST", "/api/task/async-apply/tasks.add", {"args": [1, 1], "task_id": "flower-own-id"}),
    ("async-apply-failure", "POST", "/api/task/async-apply/tasks.fail", {"args": ["later"]}),
    ("async-apply-unknown", "POST", "/api/task/async-apply/none.such", {"args": []}),
    ("send-task", "POST", "/api/task/send-task/tasks.add", {"args": [5, 6]}),
    ("send-task-unknown", "POST", "/api/task/send-task/none.such", {"args": [], "queue": "nobody"}),
    ("send-task-args-no-array", "POST", "/api/task/send-task/tasks.add", {"args": "x"}),
    ("result", "GET", "/api/task/result/{apply}", None),
    ("result-text", "GET", "/api/task/result/{apply-text}", None),
    ("result-object", "GET", "/api/task/result/{apply-object}", None),
    ("result-none", "GET", "/api/task/result/{apply-none}", None),
    ("result-failure", "GET", "/api/task/result/{apply-failure}", None),
    ("result-wait", "GET", "/api/task/result/{async-apply}?timeout=20", None),
    ("result-wait-failure", "GET", "/api/task/result/{async-apply-failure}?timeout=20", None),
    ("result-wait-id", "GET", "/api/task/result/flower-own-id?timeout=20", None),
    ("result-wait-expires", "GET", "/api/task/result/{async-apply-expires}?timeout=20", None),
    ("result-wait-eta", "GET", "/api/task/result/{async-apply-eta}?timeout=20", None),
    ("result-wait-countdown", "GET", "/api/task/result/{async-apply-countdown-text}?timeout=20", None),
    ("result-wait-sent", "GET", "/api/task/result/{send-task}?timeout=20", None),
    ("result-wait-slept", "GET", "/api/task/result/{apply-timeout}?timeout=20", None),
    ("result-in-vain", "GET", "/api/task/result/never-sent?timeout=0.2", None),
    ("result-unknown", "GET", "/api/task/result/never-sent", None),
    ("result-bad-timeout", "GET", "/api/task/result/{apply}?timeout=soon", None),
    ("abort", "POST", "/api/task/abort/aborted-id", None),
    ("result-aborted", "GET", "/api/task/result/aborted-id", None),
    ("healthcheck", "GET", "/healthcheck", None),
    ("queues", "GET", "/api/queues/length", None),
    ("nothing", "GET", "/api/nothing", None),
]
# Asked once everything that was sent has ended, and Flower has heard of it.
THEN = [
    ("info", "GET", "/api/task/info/{apply}", None),
    ("info-kwargs", "GET", "/api/task/info/{apply-kwargs}", None),
    ("info-text", "GET", "/api/task/info/{apply-text}", None),
    ("info-object", "GET", "/api/task/info/{apply-object}", None),
    ("info-none", "GET", "/api/task/info/{apply-none}", None),
    ("info-failure", "GET", "/api/task/info/{apply-failure}", None),
    ("info-unknown", "GET", "/api/task/info/never-sent", None),
    ("types", "GET", "/api/task/types", None),
    ("tasks", "GET", "/api/tasks", None),
    ("tasks-limit", "GET", "/api/tasks?limit=3", None),
    ("tasks-offset", "GET", "/api/tasks?limit=3&offset=2", None),
    ("tasks-offset-beyond", "GET", "/api/tasks?offset=1000", None),
    ("tasks-limit-0", "GET", "/api/tasks?limit=0", None),
    ("tasks-bad-limit", "GET", "/api/tasks?limit=few", None),
    ("tasks-state", "GET", "/api/tasks?state=FAILURE", None),
    ("tasks-state-All", "GET", "/api/tasks?state=All&taskname=All&workername=All", None),
    ("tasks-name", "GET", "/api/tasks?taskname=tasks.echo", None),
    ("tasks-name-state", "GET", "/api/tasks?taskname=tasks.add&state=FAILURE", None),
    ("tasks-worker", "GET", "/api/tasks?workername=flower@test", None),
    ("tasks-no-worker", "GET", "/api/tasks?workername=nobody@test", None),
    ("tasks-by-name", "GET", "/api/tasks?sort_by=name", None),
    ("tasks-by-name-down", "GET", "/api/tasks?sort_by=-name", None),
    ("tasks-by-state", "GET", "/api/tasks?sort_by=state", None),
    ("tasks-by-received", "GET", "/api/tasks?sort_by=received", None),
    ("tasks-by-received-down", "GET", "/api/tasks?sort_by=-received&limit=2", None),
    ("tasks-by-nonsense", "GET", "/api/tasks?sort_by=nonsense", None),
    ("tasks-since", "GET", "/api/tasks?received_start=2020-01-01+00:00", None),
    ("tasks-until", "GET", "/api/tasks?received_end=2020-01-01+00:00", None),
    ("tasks-bad-since", "GET", "/api/tasks?received_start=yesterday", None),
]


def call(port, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, path, data)
        reply = connection.getresponse()
        text = reply.read().decode()
        kind = (reply.headers["Content-Type"] or "").split(";")[0]
        return {"status": reply.status, "type": kind, "body": json.loads(text) if kind == "application/json" else text}
    finally:
        connection.close()


def run(port, calls, made):
    """{name: answer}; `made` gets the ids of what was sent."""
    answers = {}
    for name, method, path, body in calls:
        path = re.sub(r"\{([\w-]+)\}", lambda match: made[match.group(1)], path)
        answers[name] = call(port, method, path, body)
        if isinstance(answers[name]["body"], dict) and "task-id" in answers[name]["body"] and method == "POST":
            made[name] = answers[name]["body"]["task-id"]
    return answers
