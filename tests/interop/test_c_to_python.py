"""`apium call` and a Python worker: what arrives there, and what comes back."""
import datetime
import json
import unittest

import harness

servers = harness.Servers()
tearDownModule = servers.stop


class CToPython:
    @classmethod
    def setUpClass(cls):
        cls.broker, cls.backend = cls.urls()
        cls.worker = harness.CeleryWorker(cls.broker, cls.backend, "-c", "2").start()

    @classmethod
    def tearDownClass(cls):
        cls.worker.stop()

    def call(self, *args, check=True):
        return harness.apium("call", *args, broker=self.broker, backend=self.backend, check=check)

    def wait(self, *args):
        return json.loads(self.call(*args, "--wait", "--timeout", "30").stdout)

    def request(self, *options):
        return self.wait("python.request", *options)

    def test_a_sum_comes_back(self):
        self.assertEqual(self.wait("tasks.add", "-a", "[2, 3]"), 5)
        self.assertEqual(self.wait("tasks.add", "-k", '{"x": 2, "y": 40}'), 42)

    def test_values_come_back_letter_by_letter(self):
        for text in ("1.0", "1180591620717411303424", '"\\ud83d\\ude00 \\u0000"', "[[], {}, \"\"]", "NaN", "-0.0", "1e+308"):
            with self.subTest(text):
                out = self.call("tasks.echo", "-a", f"[{text}]", "--wait", "--timeout", "30").stdout.strip()
                self.assertEqual(out, text)

    def test_what_python_raised_is_the_error(self):
        done = self.call("python.raise_key", "-a", '["gone"]', "--wait", "--timeout", "30", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("KeyError: 'gone'", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_the_request_is_what_was_asked_for(self):
        got = self.request("-a", '[1, "é"]', "-k", '{"k": [null]}', "--task-id", f"my-own-{type(self).__name__}", "--shadow",
                           "shady", "--retries", "2", "--time-limit", "60", "--soft-time-limit", "50", "--headers",
                           '{"tenant": "t1"}', "--priority", "3")
        self.assertEqual(got["id"], f"my-own-{type(self).__name__}")
        self.assertEqual(got["root_id"], got["id"])
        self.assertEqual(got["args"], [1, "é"])
        self.assertEqual(got["kwargs"], {"k": [None]})
        self.assertEqual(got["shadow"], "shady")
        self.assertEqual(got["retries"], 2)
        self.assertEqual(got["timelimit"], [60, 50])
        self.assertEqual(got["argsrepr"], "(1, 'é')")
        self.assertEqual(got["kwargsrepr"], "{'k': [None]}")
        self.assertEqual(got["delivery_info"]["priority"], 3)
        self.assertRegex(got["origin"], r"@")
        self.assertEqual(got["tenant"], "t1")

    def test_a_countdown_is_an_eta_in_python(self):
        before = datetime.datetime.now(datetime.timezone.utc)
        got = self.request("--countdown", "1")
        after = datetime.datetime.now(datetime.timezone.utc)
        eta = datetime.datetime.fromisoformat(got["eta"])
        self.assertGreaterEqual((after - before).total_seconds(), 1)
        self.assertTrue(before <= eta <= after, eta)

    def test_what_has_expired_is_revoked(self):
        done = self.call("tasks.add", "-a", "[1, 1]", "--expires", "2020-01-01T00:00:00Z", "--wait", "--timeout", "30",
                         check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("TaskRevokedError: expired", done.stderr)

    def test_every_compression_and_serializer_that_python_has_is_read(self):
        for option in (["--compression", "zlib"], ["--compression", "bzip2"], ["--compression", "lzma"]):
            with self.subTest(option):
                self.assertEqual(self.wait("tasks.add", "-a", "[2, 3]", *option), 5)

    def test_pythons_retries_end_in_success(self):
        self.assertEqual(self.wait("python.flaky", "-a", "[2]"), 2)

    def test_a_queue_of_ones_own(self):
        worker = harness.CeleryWorker(self.broker, self.backend, "-c", "1", "-Q", "elsewhere", "-n", "other@%h").start()
        try:
            got = self.request("--queue", "elsewhere")
            self.assertEqual(got["delivery_info"]["routing_key"], "elsewhere")
        finally:
            worker.stop()


class RedisRedis(CToPython, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.redis.url(0), servers.redis.url(1)

    def test_result_reads_what_python_stored(self):
        task_id = self.call("tasks.add", "-a", "[1, 2]").stdout.strip()
        read = harness.apium("result", task_id, "--timeout", "20", broker=self.broker, backend=self.backend, check=True)
        self.assertEqual(read.stdout, "3\n")
        document = harness.apium("result", task_id, "--json", broker=self.broker, backend=self.backend, check=True)
        self.assertEqual(json.loads(document.stdout)["status"], "SUCCESS")
        failed = self.call("tasks.fail", "-a", '["bang"]').stdout.strip()
        read = harness.apium("result", failed, "--timeout", "20", broker=self.broker, backend=self.backend)
        self.assertEqual(read.returncode, 1)
        self.assertIn("ValueError: bang", read.stderr)
        trace = harness.apium("result", failed, "--traceback", broker=self.broker, backend=self.backend)
        self.assertIn("Traceback (most recent call last)", trace.stdout)

    def test_nothing_known_is_a_timeout_and_pending(self):
        read = harness.apium("result", "no-such-id", "--timeout", "0.2", broker=self.broker, backend=self.backend)
        self.assertEqual(read.returncode, 75)
        state = harness.apium("result", "no-such-id", "--state", broker=self.broker, backend=self.backend, check=True)
        self.assertEqual(state.stdout, "PENDING\n")


class AmqpRpc(CToPython, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.rabbitmq.url(), "rpc://"


class AmqpRedis(CToPython, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.rabbitmq.url(), servers.redis.url(3)

    def test_a_task_that_nobody_could_receive_is_an_error(self):
        done = self.call("tasks.add", "-a", "[1, 2]", "--exchange", "amq.direct", "--routing-key", "nowhere", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "(?i)unroutable|no queue|no_route")


if __name__ == "__main__":
    harness.main()
