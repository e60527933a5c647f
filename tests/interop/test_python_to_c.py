"""Python producers and a C worker: values, exceptions, states and options, over every pair of broker and backend."""
import datetime
import json
import math
import unittest

import harness
from celery import exceptions
from celery.result import AsyncResult

servers = harness.Servers()
tearDownModule = servers.stop


def every_plane():
    """One letter of each of Unicode's planes that has letters, and the ends of the others."""
    return "".join(chr(plane << 16 | low) for plane in range(17) for low in (0x1, 0xE9, 0x4E2D, 0xFFFD))


ECHOES = {
    "2**70": 2**70,
    "-(2**63)": -(2**63),
    "-(2**63) - 1": -(2**63) - 1,
    "1e308": 1e308,
    "tiny": 5e-324,
    "0.1": 0.1,
    "inf": math.inf,
    "-inf": -math.inf,
    "empties": [[], {}, ""],
    "int and float": [1, 1.0, -0.0, 0],
    "NUL": "a\0b",
    "lone surrogate": "x\ud800y",
    "every plane": every_plane(),
    "5 MB": "ä\n" * 2_500_000,
    "100,000 keys": {f"key-{n}": n for n in range(100_000)},
    "None, booleans": [None, True, False],
    "deep": json.loads("[" * 60 + "]" * 60),
    "quotes": "\"\\/\b\f\n\r\t'</script>\u2028",
}


def same(a, b):
    """Equal in Python, with types, and -0.0 told from 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return repr(a) == repr(b)
    return a == b


# A result that Python collects while redis-py connects again for another one unsubscribes in the middle of that, and both hang.
alive = []


class PythonToC:
    """What holds on every broker and backend."""

    @classmethod
    def setUpClass(cls):
        cls.broker, cls.backend = cls.urls()
        cls.app = harness.app(cls.broker, cls.backend, **cls.conf)
        cls.worker = harness.Worker(cls.broker, cls.backend, "-c", "2", conf=cls.worker_conf).start()

    @classmethod
    def tearDownClass(cls):
        cls.app.close()
        assert cls.worker.stop() == 0, cls.worker.log()

    conf = {}
    worker_conf = {}

    def send(self, name, *args, **options):
        result = self.app.send_task(name, args, **options)
        alive.append(result)
        return result

    def test_a_sum_comes_back(self):
        self.assertEqual(self.send("tasks.add", 2, 3).get(timeout=20), 5)
        self.assertEqual(self.app.send_task("tasks.add", (), {"x": 40, "y": 2}).get(timeout=20), 42)

    def test_every_value_comes_back_equal(self):
        for name, value in ECHOES.items():
            with self.subTest(name):
                back = self.send("tasks.echo", value).get(timeout=60)
                self.assertTrue(same(back, value), f"{repr(back)[:200]} instead of {repr(value)[:200]}")

    def test_nan_comes_back_as_nan(self):
        self.assertTrue(math.isnan(self.send("tasks.echo", math.nan).get(timeout=20)))

    def test_an_exception_arrives_as_the_class_that_was_raised(self):
        result = self.send("tasks.fail", "no such size")
        with self.assertRaises(ValueError) as caught:
            result.get(timeout=20)
        self.assertIs(type(caught.exception), ValueError)
        self.assertEqual(caught.exception.args, ("no such size",))
        self.assertEqual(result.state, "FAILURE")

    def test_wrong_arguments_are_a_type_error_that_names_them(self):
        for args, name in ((("two", 3), "x"), ((1,), "y")):
            with self.assertRaises(TypeError) as caught:
                self.send("tasks.add", *args).get(timeout=20)
            self.assertIn(name, str(caught.exception))
        with self.assertRaises(TypeError):
            self.send("tasks.add", 1, 2, 3).get(timeout=20)
        with self.assertRaises(OverflowError):
            self.send("tasks.add", 2**70, 1).get(timeout=20)

    def test_an_unknown_task_is_not_registered(self):
        with self.assertRaises(exceptions.NotRegistered):
            self.send("tasks.nowhere").get(timeout=20)

    def test_retries_end_in_success(self):
        key = f"{id(self)}-{type(self).__name__}"
        self.assertIsNotNone(self.send("tasks.flaky", key, 2).get(timeout=60))
        self.assertIn("retry: Retry in", self.worker.log())

    def test_a_countdown_is_waited_for(self):
        begin = datetime.datetime.now()
        self.assertEqual(self.send("tasks.add", 1, 1, countdown=1.5).get(timeout=20), 2)
        self.assertGreaterEqual((datetime.datetime.now() - begin).total_seconds(), 1.5)

    def test_an_eta_in_any_zone_is_waited_for(self):
        zone = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
        eta = datetime.datetime.now(zone) + datetime.timedelta(seconds=1)
        self.assertEqual(self.send("tasks.add", 1, 2, eta=eta).get(timeout=20), 3)
        self.assertGreaterEqual(datetime.datetime.now(zone), eta)

    def test_what_has_expired_is_revoked(self):
        past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=5)
        with self.assertRaises(exceptions.TaskRevokedError):
            self.send("tasks.add", 1, 1, expires=past).get(timeout=20)

    def test_compressed_messages_are_read(self):
        for name in ("gzip", "bzip2", "lzma"):
            with self.subTest(name):
                self.assertEqual(self.send("tasks.echo", "x" * 5000, compression=name).get(timeout=20), "x" * 5000)

    def test_protocol_1_is_read(self):
        old = harness.app(self.broker, self.backend, task_protocol=1, **self.conf)
        try:
            self.assertEqual(old.send_task("tasks.add", (20, 3)).get(timeout=20), 23)
        finally:
            old.close()

    def test_many_at_once(self):
        results = [self.send("tasks.add", n, n) for n in range(300)]
        self.assertEqual([r.get(timeout=60) for r in results], [2 * n for n in range(300)])


class Stored:
    """What holds where results are stored for anybody to read."""

    def test_a_state_of_ones_own_is_seen(self):
        result = self.send("tasks.progress", 8)
        seen = set()

        def over():
            info = result.backend.get_task_meta(result.id)
            if info["status"] == "PROGRESS":
                seen.add((info["result"]["current"], info["result"]["total"]))
            return info["status"] == "SUCCESS"
        harness.eventually(over, 30, every=0.002)
        self.assertTrue(seen, "no PROGRESS was seen")
        self.assertTrue(all(total == 8 and 0 <= current <= 8 for current, total in seen), seen)

    def test_retry_is_a_state_with_its_exception(self):
        result = self.send("tasks.flaky", f"state-{id(self)}", 1)
        states = []

        def over():
            meta = result.backend.get_task_meta(result.id)
            if not states or states[-1] != meta["status"]:
                states.append(meta["status"])
            return meta["status"] in ("SUCCESS", "FAILURE")
        harness.eventually(over, 60, every=0.002)
        self.assertEqual(states[-1], "SUCCESS")
        self.assertIn("RETRY", states)

    def test_an_ignored_result_is_not_stored(self):
        ignored = self.send("tasks.add", 1, 2, ignore_result=True)
        self.send("tasks.add", 1, 2).get(timeout=20)
        self.send("tasks.add", 1, 2).get(timeout=20)
        self.assertEqual(AsyncResult(ignored.id, app=self.app).state, "PENDING")

    def test_the_traceback_is_there(self):
        result = self.send("tasks.fail", "boom")
        result.get(timeout=20, propagate=False)
        self.assertIn("ValueError: boom", result.traceback)

    def test_the_document_says_what_celery_says(self):
        result = self.send("tasks.add", 4, 5)
        result.get(timeout=20)
        meta = result.backend.get_task_meta(result.id)
        self.assertEqual(meta["status"], "SUCCESS")
        self.assertEqual(meta["result"], 9)
        self.assertEqual(meta["task_id"], result.id)
        self.assertEqual(meta["name"], "tasks.add")
        self.assertEqual(meta["args"], [4, 5])
        self.assertEqual(meta["kwargs"], {})
        self.assertIn("@", meta["worker"])
        self.assertIsNotNone(result.date_done)

    worker_conf = {"result_extended": True}


class RedisRedis(Stored, PythonToC, unittest.TestCase):
    @staticmethod
    def urls():
        redis = servers.redis
        return redis.url(0), redis.url(1)


class AmqpRpc(PythonToC, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.rabbitmq.url(), "rpc://"


class AmqpRedis(Stored, PythonToC, unittest.TestCase):
    conf = {"task_default_queue": "over-redis"}
    worker_conf = {"result_extended": True, "task_default_queue": "over-redis"}

    @staticmethod
    def urls():
        return servers.rabbitmq.url(), servers.redis.url(2)


class Priorities(unittest.TestCase):
    """Messages sent by Python are begun in the order that the broker promises."""

    def order(self, broker, conf, priorities, backend):
        ledger = harness.Ledger()
        app = harness.app(broker, backend, **conf)
        for n, priority in enumerate(priorities):
            app.send_task("ledger.work", (f"{n}:{priority}",), priority=priority)
        worker = harness.Worker(broker, backend, "-c", "1", "--prefetch-multiplier", "1", module=harness.LEDGER,
                                env=ledger.env, conf=conf).start()
        try:
            harness.eventually(lambda: len(ledger.count("end")) == len(priorities), 30)
        finally:
            app.close()
            worker.stop()
        return [int(key.split(":")[1]) for word, key, *_ in ledger.lines() if word == "begin"]

    def test_the_lowest_number_is_first_on_redis(self):
        redis = servers.redis
        given = [9, 6, 3, 0] * 5
        self.assertEqual(self.order(redis.url(4), {}, given, redis.url(5)), sorted(given))

    def test_the_highest_number_is_first_on_rabbitmq(self):
        given = [0, 5, 9, 1] * 5
        conf = {"task_queue_max_priority": 10, "task_default_queue": "by-priority"}
        began = self.order(servers.rabbitmq.url(), conf, given, servers.redis.url(6))
        self.assertEqual(began, sorted(given, reverse=True))


if __name__ == "__main__":
    harness.main()
