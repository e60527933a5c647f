"""canvas_kit - what the canvas suites share: ids made comparable, the messages that Celery or apium would publish for a workflow, and
a result with everything that hangs on it.
"""
import base64
import contextlib
import json
import pathlib
import re
import subprocess

import canvas_expressions
import celery
import harness
from celery.backends.filesystem import FilesystemBackend
from celery.backends.redis import RedisBackend
from celery.result import GroupResult, result_from_tuple
from kombu.transport import TRANSPORT_ALIASES, memory

CANVAS = str(harness.BUILD / "tests" / "support" / "canvas")
CAPTURED = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "canvas-5.6"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Expressions in which a worker starts a chord: before 5.6 its body is not in the group of the header.
CHORDS_OF_WORKERS = {
    "link chord", "group in chain", "group in chain, more", "group in chain, retries", "two groups", "chord body chord", "chord | chord",
    "task | chord", "chain of task and chord", "chain of task, chord, task", "task | chord | task", "task | chord | chord | task",
    "task | chord with chain body", "task | chord of chains", "task | empty chord",
}


def otherwise(name):
    """What of the tree of an expression the installed Celery does otherwise than 5.6; in 5.7 some bodies have other parents."""
    if canvas_expressions.VERSION > (5, 6):
        return {"group", "in group", "after"}
    if canvas_expressions.VERSION < (5, 6) and name in CHORDS_OF_WORKERS:
        return {"group", "in group"}
    if canvas_expressions.VERSION < (5, 3) and name == "task | chord fails":  # the header is sent under another id than was told
        return {"group", "in group"}
    return set()


def canonical(value, names=None):
    """The same with ids replaced by numbers in the order in which they are met; members of objects are met in the order of their
    names."""
    names = {} if names is None else names
    if isinstance(value, str):
        return UUID.sub(lambda found: f"#{names.setdefault(found[0], len(names))}", value)
    if isinstance(value, dict):
        return {key: canonical(value[key], names) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [canonical(one, names) for one in value]
    return value


# ---- messages ----

# What says nothing about a workflow: who wrote it and when, and what is absent there and a default here.
NOT_COMPARED = {"lang", "origin", "delivery_tag", "delivery_info", "body_encoding"}
DEFAULTS = {"ignore_result": (False, None), "replaced_task_nesting": (0,), "stamped_headers": (None,), "stamps": ({},),
            "delivery_mode": (2,), "priority": (0,), "chain": (None, []), "group_index": (None,), "stamped_tasks": (None,)}


def told(members):
    return {key: value for key, value in members.items()
            if key not in NOT_COMPARED and not any(value is d or value == d and type(value) is type(d) for d in DEFAULTS.get(key, ()))}


def signature(value):
    """A signature, wherever one is in `value`, without what is absent said with null. Nor does the id of a chain matter, which is that of
    its last task: 5.6.3 leaves it out, its successors do not."""
    if isinstance(value, list):
        return [signature(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {key: signature(one) for key, one in value.items()}
    if "subtask_type" in value and isinstance(value.get("options"), dict):
        options = {key: one for key, one in value["options"].items() if one is not None}
        if value["subtask_type"] == "chain":
            options.pop("task_id", None)
        value["options"] = options
    return value


def body_of(envelope):
    """args, kwargs and embed; an envelope in the fixtures has them as they are."""
    body = envelope["body"]
    if not isinstance(body, str):
        return json.loads(json.dumps(body))
    return json.loads(base64.b64decode(body) if envelope["properties"].get("body_encoding") == "base64" else body)


def message(envelope):
    """A message as the headers, properties and body that matter."""
    args, kwargs, embed = body_of(envelope)
    headers = told(envelope["headers"])
    for key in ("eta", "expires"):  # moments of this run
        headers[key] = headers[key] is not None
    if headers["task"].startswith("celery."):  # shown are tuples, which JSON does not know
        headers.pop("argsrepr")
        headers.pop("kwargsrepr")
    if headers["task"] == "celery.chord_unlock":  # nobody looks at the parents
        kwargs["result"] = [without_parents(one) for one in kwargs["result"]]
    return {"headers": headers, "properties": told(envelope["properties"]), "args": signature(args), "kwargs": signature(kwargs),
            "embed": signature(told(embed)), "queue": envelope["properties"]["delivery_info"]["routing_key"]}


def without_parents(result):
    (task_id, _parent), members = result
    return [task_id, members and [without_parents(one) for one in members]]


class _Channel(memory.Channel):
    """A memory channel that notes what is put on a queue."""
    log = []

    def _put(self, queue, message, **kwargs):
        self.log.append({"message": json.loads(json.dumps(message))})


class Transport(memory.Transport):
    Channel = _Channel


TRANSPORT_ALIASES["canvas"] = f"{__name__}:Transport"


class _Nowhere:
    """A result store that nobody asks."""

    def on_task_call(self, producer, task_id):
        return {}

    def add_pending_result(self, result, weak=False):
        return result

    def remove_pending_result(self, result):
        return result


class _Counting(_Nowhere, RedisBackend):
    """Celery's own code for a store that counts the parts of chords, without the store."""

    def set_chord_size(self, group_id, chord_size):
        _Channel.log.append({"size": [group_id, chord_size]})

    def save_group(self, group_id, result):
        _Channel.log.append({"tree": [group_id, json.loads(json.dumps(result.as_tuple()))]})


class _Polled(_Nowhere, FilesystemBackend):
    """The same for one that cannot count."""


class _App(celery.Celery):
    def _get_backend(self):
        return self.store


def celery_app(polled=False):
    """An app whose messages go to _Channel.log."""
    app = _App("canvas", broker="canvas://", set_as_current=True)
    app.store = _Polled(app=app, url="file:///tmp") if polled else _Counting(app=app, url="redis://127.0.0.1:1/0")
    return app


def operations(log, result):
    """Comparable operations, and the result that there will be."""
    return [[{"message": message(op["message"])} if "message" in op else op for op in log], result]


def celery_log(app, call):
    """What sending does with Celery, as it is: operations and the result."""
    _Channel.log.clear()
    result = call.send()
    for op in _Channel.log:
        if "message" in op:
            op["message"]["body"] = body_of(op["message"])
    return [list(_Channel.log), json.loads(json.dumps(result.as_tuple()))]


def celery_operations(app, call):
    return operations(*celery_log(app, call))


def replay(app, client, log):
    """Send once more what celery_log() has seen, with the same ids."""
    with app.producer_or_acquire() as producer:
        for op in log:
            if "size" in op:
                client.set(f"celery-taskset-meta-{op['size'][0]}.s", op["size"][1])
            elif "tree" in op:
                client.set(f"celery-taskset-meta-{op['tree'][0]}", json.dumps({"result": op["tree"][1]}))
            else:
                told, properties = op["message"], op["message"]["properties"]
                queue = properties["delivery_info"]["routing_key"]
                producer.publish(json.dumps(told["body"]), exchange="", routing_key=queue, declare=[app.amqp.queues[queue]],
                                 headers=told["headers"], content_type="application/json", content_encoding="utf-8",
                                 **{name: properties[name] for name in ("correlation_id", "reply_to", "priority", "delivery_mode")})


def apium_canvas(requests):
    """The answers of tests/support/canvas.c."""
    lines = "".join(json.dumps(one) + "\n" for one in requests)
    out = subprocess.run([CANVAS], input=lines, text=True, stdout=subprocess.PIPE, check=True, timeout=100).stdout.splitlines()
    assert len(out) == len(requests), (len(out), len(requests))
    return [json.loads(line) for line in out]


def apium_operations(requests):
    """What sending does with apium; an error is its text."""
    return [one["error"] if "error" in one else operations(one["ops"], one["result"]) for one in apium_canvas(requests)]


def captured(name):
    """A file of what Celery 5.6 did: see capture_canvas.py."""
    with open(CAPTURED / name) as file:
        return json.load(file)


def differences(left, right, path=""):
    """Where two documents differ, a line each."""
    if type(left) is not type(right) or not isinstance(left, (dict, list)):
        return [] if left == right and type(left) is type(right) else [f"{path}: {json.dumps(left)} != {json.dumps(right)}"]
    found = []
    if isinstance(left, dict):
        for key in sorted(left.keys() | right.keys()):
            if key not in left or key not in right:
                found.append(f"{path}.{key}: only {'left' if key in left else 'right'}: {json.dumps(left.get(key, right.get(key)))}")
            else:
                found += differences(left[key], right[key], f"{path}.{key}")
        return found
    if len(left) != len(right):
        found.append(f"{path}: {len(left)} != {len(right)} items")
    for i, (one, other) in enumerate(zip(left, right)):
        found += differences(one, other, f"{path}[{i}]")
    return found


# ---- results ----


class Tree:
    """A result with everything that hangs on it: of each task its state, value, group and children; its parents; and what ran because of
    it without being its child (errbacks). Ids are numbers; children are a set."""

    def __init__(self, app, result, metas):
        self.app, self.metas, self.seen = app, metas, {}
        self.shape = self._of(result)
        self._add_strays()

    def _meta(self, task_id):
        return self.metas.get(task_id, {"status": "PENDING", "result": None})

    def _of(self, result, parents=True):
        if result is None:
            return None
        if isinstance(result, GroupResult):
            shape = {"group": result.id, "members": [self._of(one) for one in result.results]}
            if result.id in self.metas:
                shape["state"] = self._meta(result.id)["status"]
        elif result.id in self.seen:
            return {"again": result.id}
        else:
            shape = self._task(result)
        if parents and result.parent is not None:
            shape["parent"] = self._of(result.parent)
        return shape

    def _task(self, result):
        meta = self._meta(result.id)
        shape = self.seen[result.id] = {"id": result.id, "state": meta["status"]}
        value = meta["result"]
        if isinstance(value, dict) and "exc_type" in value:
            value = [value["exc_type"], value["exc_message"]]
        shape["value"] = value
        if meta.get("group_id"):
            shape["in group"] = meta["group_id"]
        if meta.get("parent_id"):
            shape["after"] = meta["parent_id"]
        children = [self._of(result_from_tuple(c, self.app), False) for c in meta.get("children") or ()]
        if children:
            shape["children"] = children
        return shape

    def _add_strays(self):
        strays, more = [], True
        while more:
            more = [task_id for task_id, meta in self.metas.items() if task_id not in self.seen and meta.get("parent_id") in self.seen]
            strays += [self._task(self.app.AsyncResult(task_id)) for task_id in sorted(more)]
        if strays:
            self.shape["strays"] = strays

    def canonical(self, hidden=()):
        """Comparable; without what is named in `hidden`."""
        shape = without(self.shape, hidden)
        return canonical(_sorted(_raced(shape, _parts(shape))))


def _sorted(shape):
    """Children and strays are sets: in the order of what they are, ids aside."""
    if isinstance(shape, list):
        return [_sorted(value) for value in shape]
    if not isinstance(shape, dict):
        return shape
    shape = {key: _sorted(value) for key, value in shape.items()}
    for key in {"children", "strays"} & shape.keys():
        shape[key] = sorted(shape[key], key=lambda one: UUID.sub("#", json.dumps(one, sort_keys=True)))
    return shape


def without(shape, hidden):
    if isinstance(shape, list):
        return [without(value, hidden) for value in shape]
    if not isinstance(shape, dict):
        return shape
    return {key: without(value, hidden) for key, value in shape.items() if key not in hidden}


def _parts(shape, within=False):
    """Ids of what may be a part of a chord."""
    if isinstance(shape, list):
        return set().union(*(_parts(one, within) for one in shape))
    if not isinstance(shape, dict):
        return set()
    found = {shape["id"]} if "id" in shape and (within or "in group" in shape) else set()
    return found.union(*(_parts(value, within or key in ("members", "strays")) for key, value in shape.items()))


def _raced(shape, parts):
    """With the one choice hidden that only a race makes: which part of a chord was the last, and so is the parent of the body."""
    if isinstance(shape, list):
        return [_raced(value, parts) for value in shape]
    if not isinstance(shape, dict):
        return shape
    return {key: "a part" if key == "after" and value in parts else _raced(value, parts) for key, value in shape.items()}


def stored(client):
    """Every result in a Redis database."""
    keys = [key for key in client.scan_iter("celery-task-meta-*", count=1000)]
    metas = {}
    for key, text in zip(keys, client.mget(keys) if keys else ()):
        with contextlib.suppress(TypeError, ValueError):
            metas[key.decode()[len("celery-task-meta-"):]] = json.loads(text)
    return metas
