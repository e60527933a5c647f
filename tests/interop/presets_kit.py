"""presets_kit - the same tasks by a Celery worker and by an apium one, with results behind a recording server, and what the two asked of it.

    presets_kit.py FILE      what this Python's Celery asks, written to FILE: tests/fixtures/presets-<version>.json
"""
import contextlib
import importlib.metadata
import json
import re
import sys

import harness
import recorder

TASKS = {"p-sum": ("tasks.add", "[2, 3]"), "p-fail": ("tasks.fail", '["boom"]'),
         "p-text": ("tasks.echo", '[["\\u00e9 \\ud83d\\ude00 \\"quoted\\" \\\\", 1.5, null, {"k": [true]}]]')}
GROUP = "p-group"
CANVAS = {"task": "celery.group", "args": [], "options": {"task_id": GROUP}, "subtask_type": "group", "immutable": False, "chord_size": None,
          "kwargs": {"tasks": [{"task": "tasks.noop", "args": [], "kwargs": {}, "options": {"task_id": f"p-part-{n}"}, "subtask_type": None,
                                "immutable": False, "chord_size": None} for n in range(2)]}}
PATHS = {"couchdb": "/results", "consul": "/celery/results", "elasticsearch": "/results", "s3": ""}
LIBRARIES = {"couchdb": "pycouchdb", "consul": "consul", "elasticsearch": "elasticsearch", "s3": "boto3"}
SETTINGS = {"s3": {"s3_base_path": "some where/"}}


def settings(server, **more):
    return {**server.settings(), **SETTINGS.get(server.scheme, {}), "result_extended": True, **more}


def celery_url(server):
    """Celery 5.2 names a type of its own for Elasticsearch, which its URL can turn into the newer one's."""
    from celery.backends.elasticsearch import ElasticsearchBackend
    old = server.scheme == "elasticsearch" and ElasticsearchBackend.doc_type
    return server.url(PATHS[server.scheme] + ("/_doc" if old else ""))


def key_in_store(server, key):
    """What value() wants to know."""
    if server.scheme == "s3":
        return SETTINGS["s3"]["s3_base_path"] + key
    return "celery/results/" + key if server.scheme == "consul" else key


def stored(server, key):
    more = ("results",) if server.scheme in ("couchdb", "elasticsearch") else ()
    text = server.value(key_in_store(server, key), *more)
    return None if text is None else text if isinstance(text, dict) else json.loads(text)


def state(server, task_id):
    doc = stored(server, f"celery-task-meta-{task_id}")
    return doc and doc["status"]


def send(broker, conf):
    where = harness.environment(broker, "disabled://", conf)
    for task_id, (task, args) in TASKS.items():
        harness.apium("call", task, "--task-id", task_id, "-a", args, env=where, check=True)


def all_there(server):
    harness.eventually(lambda: all(state(server, i) in ("SUCCESS", "FAILURE") for i in TASKS), 60,
                       lambda: f"{ {i: state(server, i) for i in TASKS} }; {[a[:3] + a[5:] for a in server.asked][-5:]}", every=0.1)


def by_celery(server, redis, **more):
    conf = settings(server, **more)
    url = celery_url(server)
    send(redis.url(7), conf)
    worker = harness.CeleryWorker(redis.url(7), url, "-c", "1", "-P", "solo", conf=conf).start()
    try:
        all_there(server)
    finally:
        worker.stop()
    app = harness.app(redis.url(7), url, **conf)
    parts = [app.AsyncResult(part["options"]["task_id"]) for part in CANVAS["kwargs"]["tasks"]]
    app.GroupResult(GROUP, parts).save()
    return writes(server.asked)


def by_apium(server, redis, **more):
    conf = settings(server, **more)
    url = server.url(PATHS[server.scheme])
    send(redis.url(8), conf)
    worker = harness.Worker(redis.url(8), url, "-c", "1", conf=conf).start()
    try:
        all_there(server)
    finally:
        worker.stop()
    save(redis.url(9), url, conf)
    return writes(server.asked)


def save(broker, url, conf):
    import subprocess
    subprocess.run([harness.PROBE, "save"], env={**harness.os.environ, **harness.environment(broker, url, conf)}, input=json.dumps(CANVAS),
                   text=True, check=True, timeout=60, stdout=subprocess.DEVNULL)


def writes(asked):
    """Those that had an effect, in their order."""
    return [a for a in asked if a.method not in ("GET", "HEAD") and a.status < 300 and a.answer is not False]


# ---- the same but for what differs from run to run ----

def document(text):
    doc = json.loads(text) if isinstance(text, str) else dict(text)
    for name in ("date_done", "worker", "traceback", "queue"):
        doc.pop(name, None)
    return doc


def plain(scheme, ask):
    method, path, query, body = ask
    query = re.sub(r"(acquire|if_seq_no|if_primary_term|cas)=[^&]*", r"\1=...", query)
    query = "&".join(sorted(query.split("&")))
    path = re.sub(r"(session/(?:renew|destroy)/).*", r"\1...", path)
    path = path.replace("%20", " ")
    if scheme == "couchdb" and body:
        given = json.loads(body)
        body = {**given, "value": document(given["value"])}
        if "_rev" in body:
            body["_rev"] = "..."
    elif scheme == "elasticsearch" and body:
        given = json.loads(body)
        inner = given.get("doc", given)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", inner["@timestamp"]), inner
        inner.update({"@timestamp": "...", "result": document(inner["result"])})
        body = given
    elif body:
        body = document(body)
        if "ttl" in body:  # of 86400.0 seconds, in Python's way
            body["ttl"] = float(body["ttl"].rstrip("s"))
    return method, path, query, body


def by_key(scheme, asks):
    """{Celery's key: [what was asked about it]}"""
    keys = {}
    for ask in asks:
        key = re.search(r"celery-task(set)?-meta-[\w-]+", ask[1] + str(ask[3]))
        keys.setdefault(key[0] if key else ask[1], []).append(plain(scheme, ask))
    return {key: asks for key, asks in keys.items() if "p-part" not in key}


def raw(asks):
    """As they were, but for the folders in tracebacks."""
    return [[a.method, a.path, a.query, re.sub(r'(File \\+")[^"]*/', r"\1", a.body.decode())] for a in asks]


# ---- captured once ----

def fixture(version="5.6.2"):
    return json.loads((harness.ROOT / "tests" / "fixtures" / f"presets-{version}.json").read_text())


def replay(server, asks):
    """Ask the same of a server, as far as it goes: of a session the new name is told."""
    session = ""
    for method, path, query, body in asks:
        query = re.sub("acquire=.*", f"acquire={session}", query)
        _, _, answer = server.answer(method, path, dict(recorder.urllib.parse.parse_qsl(query)), {}, body.encode())
        if isinstance(answer, dict):
            session = answer.get("ID", session)


def main():
    redis = harness.Redis().start()
    captured = {}
    for scheme, make in recorder.ALL.items():
        with make() as server:
            asks = raw(by_celery(server, redis))
        library = LIBRARIES[scheme] if scheme != "consul" else "python-consul2"
        captured[scheme] = {"celery": importlib.metadata.version("celery"), "library": f"{library} {importlib.metadata.version(library)}",
                            "asked": asks}
    redis.stop()
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(captured, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
