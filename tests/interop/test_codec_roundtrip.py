"""What apium writes of a message or a result is what real Celery reads of the original: messages made by Celery itself in every
serializer and compression that is installed here, and all captured ones."""
import base64
import datetime
import decimal
import glob
import json
import math
import os
import subprocess
import unittest
import uuid

import celery
import kombu
from celery.worker import strategy
from celery.worker.request import Request
from kombu.compression import compress
from kombu.transport.virtual import Message

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures")
CODEC = os.path.join(os.environ["APIUM_TEST_BUILD"], "tests", "support", "codec")
ACCEPT = ["json", "yaml", "msgpack"]

app = celery.Celery("roundtrip", broker="memory://", backend="cache+memory://", set_as_current=False)
app.conf.update(accept_content=ACCEPT)


@app.task(name="t.add")
def add(*args, **kwargs):
    return None


def works(call, *args, **kwargs):
    """Whether kombu can do it here: optional formats need packages of their own."""
    try:
        call(*args, **kwargs)
        return True
    except Exception:
        return False


SERIALIZERS = [name for name in ACCEPT if works(kombu.serialization.dumps, {}, serializer=name)]
COMPRESSIONS = [None] + [name for name in ("zlib", "bzip2", "lzma", "brotli", "zstd") if works(compress, b"x", name)]


def codec(mode, lines):
    """Each line as apium writes it again."""
    assert not any("\n" in line for line in lines)
    out = subprocess.run([CODEC, mode], input="\n".join(lines) + "\n", text=True, stdout=subprocess.PIPE, check=True,
                         timeout=100).stdout.splitlines()
    assert len(out) == len(lines), (len(out), len(lines))
    return out


def same(a, b):
    """Equal as Python sees it, with 1 and 1.0, 0.0 and -0.0 told apart, and NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


def received(channel, text):
    """The message as a consumer of kombu gets it."""
    message = Message(json.loads(text), channel=channel)
    message.accept = kombu.serialization.prepare_accept_content(ACCEPT)
    return message


def requested(message):
    """The request that Celery's worker makes of it."""
    body = message.decode()
    if isinstance(body, list):
        return Request(message, app=app, task=add)
    convert = strategy.hybrid_to_proto2 if "args" in body else strategy.proto1_to_proto2
    body, headers, decoded, utc = convert(message, body)
    return Request(message, app=app, task=add, body=body, headers=headers, decoded=decoded, utc=utc)


def captured(key):
    """What tests/fixtures has: (file, message as text) of the messages, or (file, document) of the results."""
    for path in sorted(glob.glob(os.path.join(FIXTURES, "*", "*.json"))):
        with open(path) as file:
            fixture = json.load(file)
        name = os.path.relpath(path, FIXTURES)
        if key == "messages":
            for message in fixture.get("messages", ()):
                body = base64.b64encode(message.get("body_text", "").encode()).decode()
                yield name, message["raw"].replace("$BASE64_OF_BODY_TEXT", body)
        else:
            for step in fixture.get("trace", ()):
                command = step["cmd"]
                if command[0] in ("SET", "SETEX") and "celery-task-meta-" in command[1] and isinstance(command[-1], str):
                    yield name, command[-1]


class Messages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.connection = app.connection_for_write()
        cls.channel = cls.connection.default_channel

    @classmethod
    def tearDownClass(cls):
        cls.connection.close()

    def compare(self, was_text, now_text):
        """Both read by kombu and by Celery's worker give the same."""
        self.assertFalse(now_text.startswith("!"), now_text)
        was, now = received(self.channel, was_text), received(self.channel, now_text)
        if isinstance(was.decode(), list):
            self.assertTrue(same(was.decode(), now.decode()), (was.decode(), now.decode()))
            for name, value in was.headers.items():
                if name != "redelivered":
                    self.assertTrue(same(value, now.headers.get(name)), (name, value, now.headers.get(name)))
        for name in ("correlation_id", "reply_to", "delivery_mode", "priority"):
            if was.properties.get(name) is not None:  # messages made by hand leave some out, which are filled in
                self.assertEqual(was.properties[name], now.properties.get(name), name)
        self.assertGreaterEqual("expiration" in now.properties, "expiration" in was.properties)
        self.assertEqual((was.content_type, was.content_encoding), (now.content_type, now.content_encoding))
        a, b = requested(was), requested(now)
        for name in ("id", "name", "root_id", "parent_id", "eta", "expires", "reply_to", "correlation_id", "group",
                     "time_limits", "task_id", "task_name"):
            if name == "root_id" and a.root_id is None:
                continue  # none is the task's own, as Celery's producers write it
            if name == "correlation_id" and a.correlation_id is None:
                continue  # the same
            x, y = getattr(a, name, None), getattr(b, name, None)
            if name == "time_limits":
                x, y = (tuple(limits or (None, None)) for limits in (x, y))
            self.assertEqual(x, y, name)
        for name in ("args", "kwargs"):
            self.assertTrue(same(a.request_dict[name], b.request_dict[name]), name)

    def sent(self, *args, **options):
        """What Celery's own producer puts on the queue."""
        app.send_task("t.add", *args, connection=self.connection, **options)
        return json.dumps(self.channel._get("celery"))

    def test_messages_made_by_celery_mean_the_same_in_every_format(self):
        plain = ([1, 1.0, -0.0, 1e22, 1e-7, 2**63 - 1, -2**63, "h\u00e9llo \U0001F600", "", "no", "12", "a: b", None, True, [[], {}]],
                 {"k": {"nested": [1, [2, {"x": None}]]}, "text": "line\nline\n"})
        sent = [self.sent(*plain, serializer=serializer, compression=compression)
                for serializer in SERIALIZERS for compression in COMPRESSIONS]
        for was, now in zip(sent, codec("message", sent)):
            self.compare(was, now)
        self.assertIn("json", SERIALIZERS)
        self.assertGreaterEqual(len(sent), 4)

    def test_options_of_a_call_mean_the_same(self):
        soon = datetime.datetime(2099, 1, 2, 3, 4, 5, 678, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)))
        calls = [dict(eta=soon), dict(eta=soon.replace(tzinfo=None)), dict(countdown=10), dict(expires=120), dict(expires=-5),
                 dict(expires=soon), dict(priority=0), dict(priority=9), dict(priority=-3), dict(time_limit=30, soft_time_limit=2.5),
                 dict(headers={"custom": {"n": 1.0}, "u": "\u00e9"}), dict(shadow="sh"), dict(reply_to="me"),
                 dict(ignore_result=True), dict(task_id="odd id \u00e9"), dict(root_id="r", parent_id="p"), dict(group_id="g", group_index=3),
                 dict(link=app.signature("t.add", (1.0,))), dict(link_error=[app.signature("t.add")]),
                 dict(chain=[app.signature("t.add")]), dict(chord=app.signature("t.add")), dict(retries=2), dict(delivery_mode=1)]
        sent = [self.sent(([2, 3.0]), {"big": 2**80, "nan": float("nan"), "surrogate": "\ud800", "nul": "a\0b"}, **options)
                for options in calls]
        for options, was, now in zip(calls, sent, codec("message", sent)):
            with self.subTest(options=options):
                self.compare(was, now)

    def test_values_of_python_mean_the_same(self):
        """From kombu 5.3 on these are objects with a __type__ in JSON, and its reader makes the values of them again."""
        values = [datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc),
                  datetime.date(2020, 1, 2), datetime.time(3, 4, 5), uuid.UUID(int=5), decimal.Decimal("1.50"), b"abc", b"\xff\xfe"]
        sent = [self.sent([value], serializer=serializer) for serializer in SERIALIZERS for value in values
                if works(kombu.serialization.dumps, value, serializer=serializer)]
        for was, now in zip(sent, codec("message", sent)):
            self.compare(was, now)
        self.assertGreater(len(sent), 5)

    def test_captured_messages_mean_the_same(self):
        names, texts = zip(*((name, text) for name, text in captured("messages") if not refused(self.channel, text)))
        for name, was, now in zip(names, texts, codec("message", texts)):
            with self.subTest(file=name):
                self.compare(was, now)
        self.assertGreater(len(texts), 550)


def refused(channel, text):
    """Whether Celery's own worker cannot make a request of it."""
    try:
        message = received(channel, text)
        if message.errors:
            return True
        request = requested(message)
        if not isinstance(request.request_dict["kwargs"], dict) or not isinstance(request.request_dict["args"], list):
            return True  # fails when it is called
        if not request.id:
            return True  # runs, and cannot be stored
        json.loads(text)["properties"]["delivery_info"]
        limits = request.time_limits or (None, None)
        return len(limits) != 2 or isinstance(limits, str) or not message.content_type
    except Exception:
        return True


class Results(unittest.TestCase):
    def test_captured_results_mean_the_same(self):
        names, texts = zip(*((name, text) for name, text in captured("results") if "foreign_error" not in name))
        for name, was, now in zip(names, texts, codec("result", texts)):
            with self.subTest(file=name):
                self.assertFalse(now.startswith("!"), now)
                a, b = (app.backend.meta_from_decoded(json.loads(text)) for text in (was, now))
                for key in ("status", "traceback", "children", "task_id", "group_id", "parent_id", "name", "args", "kwargs",
                            "worker", "retries", "queue"):
                    self.assertEqual(a.get(key), b.get(key), key)
                if isinstance(a["result"], BaseException):
                    self.assertEqual((type(a["result"]).__name__, a["result"].args),
                                     (type(b["result"]).__name__, b["result"].args))
                else:
                    self.assertTrue(same(a["result"], b["result"]))
                if a.get("date_done"):
                    self.assertTrue(b["date_done"].startswith(a["date_done"][:19]) or "tz_" in name)
        self.assertGreater(len(texts), 350)


if __name__ == "__main__":
    unittest.main()
