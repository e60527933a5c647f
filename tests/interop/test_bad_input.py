"""Messages that no worker can run: each is refused with a clear word, kept where `apium list dead` shows it, not delivered
again, and the worker lives on."""
import base64
import json
import unittest
import uuid

import harness
import kombu

servers = harness.Servers()
tearDownModule = servers.stop


def message(body=b"[[2, 3], {}, {}]", content_type="application/json", encoding="utf-8", **changes):
    """Body, properties and headers of a task message; a header of None is left out."""
    task_id = str(uuid.uuid4())
    headers = {"lang": "py", "task": "tasks.add", "id": task_id, "root_id": task_id, "parent_id": None, "group": None,
               "eta": None, "expires": None, "retries": 0, "timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}",
               "origin": "test", **changes}
    headers = {name: value for name, value in headers.items() if value is not ...}
    return body, content_type, encoding, headers


DEEP = b"[" * 10_000 + b"]" * 10_000

# name: (message, what the log must say)
REFUSED = {
    "an unknown task": (message(task="tasks.nowhere"), "unregistered task"),
    "an unregistered content type": (message(content_type="application/x-nothing"), "x-nothing"),
    "pickle": (message(body=b"\x80\x04]\x94.", content_type="application/x-python-serialize", encoding="binary"), "pickle"),
    "broken JSON": (message(body=b"[[2, 3], {}, "), "body"),
    "wrong UTF-8": (message(body=b'[["\xff\xfe"], {}, {}]'), "body"),
    "no task header": (message(task=...), "unknown message"),
    "no id header": (message(id=...), "id"),
    "a body that is an object": (message(body=b'{"x": 1}'), "body"),
    "a body of two": (message(body=b"[[1], {}]"), "body"),
    "kwargs that are no object": (message(body=b"[[], [], {}]"), "mapping"),
    "a garbage eta": (message(eta="garbage"), "eta"),
    "an absurd eta": (message(eta="99999-99-99T99:99:99"), "eta"),
    "an eta that is a number": (message(eta=12), "eta"),
    "garbage for expires": (message(expires="never ever"), "expires"),
    "10,000 levels deep": (message(body=b"[[" + DEEP + b"], {}, {}]"), "deep"),
    "an empty body": (message(body=b""), "body"),
    "compressed garbage": (message(compression="application/x-gzip"), ""),
    "an unknown compression": (message(compression="application/x-squeeze"), "squeeze"),
}

# These are odd, and run.
ACCEPTED = {
    "only task and id": message(**{name: ... for name in ("lang", "root_id", "parent_id", "group", "eta", "expires", "retries",
                                                          "timelimit", "argsrepr", "kwargsrepr", "origin")}),
    "headers from the future": message(stamps={"a": ["b"]}, x_future={"deep": [1, {"er": None}]}),
    "an eta long past": message(eta="1970-01-01T00:00:00+00:00"),
}


class BadInput:
    @classmethod
    def setUpClass(cls):
        cls.broker, cls.backend = cls.urls()
        cls.worker = harness.Worker(cls.broker, cls.backend, "-c", "1", conf=cls.conf).start()
        cls.app = harness.app(cls.broker, cls.backend, **cls.conf)

    @classmethod
    def tearDownClass(cls):
        cls.app.close()
        assert cls.worker.stop() == 0, cls.worker.log()

    conf = {}

    def publish(self, body, content_type, encoding, headers):
        with kombu.Connection(self.broker) as connection:
            producer = connection.Producer()
            if headers.get("compression"):
                headers, body = dict(headers), body
            producer.publish(body, content_type=content_type, content_encoding=encoding, headers=headers,
                             routing_key=self.queue, exchange="", correlation_id=headers.get("id"))

    queue = "celery"

    def dead(self):
        out = harness.apium("list", "dead", "--json", "-n", "1000", broker=self.broker, backend=self.backend, check=True,
                            env=harness.environment(self.broker, self.backend, self.conf)).stdout
        return [json.loads(line) for line in out.splitlines()]

    def works(self):
        self.assertEqual(self.app.send_task("tasks.add", (2, 3)).get(timeout=20), 5)

    def test_each_is_refused_once_and_kept(self):
        for name, (bad, word) in REFUSED.items():
            with self.subTest(name):
                mark = len(self.worker.log())
                before = len(self.dead())
                self.publish(*bad)
                self.works()
                harness.eventually(lambda: len(self.dead()) > before, 10, f"{name}: kept as refused")
                self.assertEqual(len(self.dead()), before + 1)
                said = self.worker.log()[mark:].lower()
                self.assertIn(word, said)
                self.assertNotIn("traceback", said)

    def test_odd_ones_run(self):
        for name, odd in ACCEPTED.items():
            with self.subTest(name):
                self.publish(*odd)
                self.assertEqual(self.app.AsyncResult(odd[3]["id"]).get(timeout=20), 5)

    def test_an_unknown_task_fails_for_the_caller(self):
        result = self.app.send_task("tasks.nobody_knows")
        result.get(timeout=20, propagate=False)
        self.assertEqual(result.state, "FAILURE")
        self.assertEqual(type(result.result).__name__, "NotRegistered")

    def test_args_that_are_no_list_fail_as_in_python(self):
        for args in (b'"abc"', b"5", b"null", b'{"a": 1}'):
            with self.subTest(args):
                bad = message(body=b"[" + args + b", {}, {}]")
                self.publish(*bad)
                result = self.app.AsyncResult(bad[3]["id"])
                result.get(timeout=20, propagate=False)
                self.assertEqual((result.state, type(result.result)), ("FAILURE", TypeError))

    def test_a_hundred_megabytes(self):
        big = "x" * 100_000_000
        self.publish(*message(body=json.dumps([[big, 1], {}, {}]).encode()))  # too many for add, or too big: both end
        self.works()
        self.assertTrue(self.worker.alive())


class OnRedis(BadInput, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.redis.url(0), servers.redis.url(1)

    def test_what_is_no_envelope_is_kept_too(self):
        client = servers.redis.client(0)
        good = json.dumps({"body": base64.b64encode(b"[[], {}, {}]").decode(), "headers": {}, "properties": {}})
        for name, raw in {"not JSON": b"hello", "no object": b"[1]", "no properties": b'{"body": "e30="}',
                          "bad base64": good.replace('"body": "', '"body": "!!').encode(), "bytes": bytes(range(256)),
                          "empty": b"", "deep": DEEP}.items():
            with self.subTest(name):
                before = len(self.dead())
                client.lpush("celery", raw)
                self.works()
                harness.eventually(lambda: len(self.dead()) > before, 10, f"{name}: kept as refused")
        self.assertEqual(client.hlen("unacked"), 0)

    def test_nothing_is_left_or_delivered_again(self):
        client = servers.redis.client(0)
        self.publish(*REFUSED["no id header"][0])
        self.works()
        harness.eventually(lambda: client.hlen("unacked") == 0 and client.llen("celery") == 0, 10)

    def test_a_queue_key_of_the_wrong_type_stops_nothing(self):
        client = servers.redis.client(0)
        client.set("other-queue", "a string")
        other = harness.Worker(self.broker, self.backend, "-c", "1", "-Q", "celery,other-queue", "-n", "o@%h").start()
        try:
            self.works()
            self.assertTrue(other.alive())
        finally:
            client.delete("other-queue")
            other.stop()


class OnRabbit(BadInput, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.rabbitmq.url(), servers.redis.url(3)


class FollowUps(unittest.TestCase):
    """What a message asks for after its task cannot be sent: with a late ack the message is kept, and never comes again."""

    def test_a_link_to_nowhere(self):
        broker = servers.rabbitmq.url()
        for backend in (servers.redis.url(4), "rpc://"):
            with self.subTest(backend):
                app = harness.app(broker, backend)
                worker = harness.Worker(broker, backend, "-c", "1", "-Q", "followups", conf={"task_acks_late": True}).start()

                def rows():
                    said = harness.apium("list", "dead", "--json", "-n", "1000", broker=broker, backend=backend, check=True)
                    return [row for row in map(json.loads, said.stdout.splitlines()) if row["queue"] == "followups"]
                try:
                    before = len(rows())
                    nowhere = app.signature("tasks.add", args=(1,), options={"exchange": "nowhere", "routing_key": "x"})
                    app.send_task("tasks.add", (1, 2), queue="followups", link=nowhere)
                    harness.eventually(lambda: len(rows()) > before, 10, "it is kept")
                    self.assertIn("nowhere", json.dumps(rows()))
                    self.assertEqual(app.send_task("tasks.add", (2, 3), queue="followups").get(timeout=20), 5)
                    self.assertEqual(worker.stop(), 0)
                    with kombu.Connection(broker) as connection:
                        queue = connection.channel().queue_declare("followups", passive=True)
                    self.assertEqual(queue.message_count, 0, "nothing went back")
                finally:
                    app.close()
                    worker.kill_group()

    def test_a_part_whose_errback_is_none_where_no_parts_are_counted(self):
        broker = servers.rabbitmq.url()
        for backend in ("rpc://", "disabled://"):
            with self.subTest(backend):
                worker = harness.Worker(broker, backend, "-c", "1", "-Q", "uncounted").start()
                embed = {"callbacks": None, "errbacks": [{"no": "signature"}], "chain": None,
                         "chord": {"task": "tasks.xsum", "args": [], "kwargs": {}, "options": {"task_id": "body"}}}
                try:
                    with kombu.Connection(broker) as connection:
                        for task, args in (("tasks.fail", ["no"]), ("tasks.add", [2, 3])):
                            headers = message(task=task, group="header")[3]
                            connection.Producer().publish(json.dumps([args, {}, embed]), routing_key="uncounted", headers=headers,
                                                          content_type="application/json", content_encoding="utf-8")
                    harness.eventually(lambda: "tasks.add" in worker.log() and "succeeded" in worker.log(), 10, "the next one runs")
                    self.assertIn("Cannot call the errbacks", worker.log())
                    self.assertEqual(worker.stop(), 0)
                finally:
                    worker.kill_group()


if __name__ == "__main__":
    harness.main()
