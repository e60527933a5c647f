"""What a C worker stored, read by others: Node, redis-cli, and Celery in a process that knows no task."""
import json
import pathlib
import shutil
import subprocess
import unittest

import harness

servers = harness.Servers()
tearDownModule = servers.stop


class Readers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.redis = servers.redis
        cls.where = {"broker": cls.redis.url(0), "backend": cls.redis.url(1)}
        cls.worker = harness.Worker(cls.redis.url(0), cls.redis.url(1), "-c", "1").start()

    @classmethod
    def tearDownClass(cls):
        cls.worker.stop()

    def finished(self, *call):
        """Call a task, wait for it, give its id."""
        task_id = harness.apium("call", *call, check=True, **self.where).stdout.strip()
        harness.apium("result", task_id, "--timeout", "20", **self.where)
        return task_id

    def test_node_reads_it(self):
        node = shutil.which("node") or harness.lacking("node")
        task_id = self.finished("tasks.echo", "-a", '[{"text": "é\\ud83d\\ude00", "list": [1, 2.5, null]}]')
        script = pathlib.Path(__file__).with_name("readers.js")
        out = subprocess.run([node, script, str(self.redis.port), "1", task_id], stdout=subprocess.PIPE, check=True,
                             timeout=20).stdout
        self.assertEqual(json.loads(out), {"status": "SUCCESS", "task_id": task_id,
                                           "result": {"text": "é😀", "list": [1, 2.5, None]}})

    def test_redis_cli_reads_it(self):
        cli = shutil.which("redis-cli") or harness.lacking("redis-cli")
        task_id = self.finished("tasks.add", "-a", "[2, 3]")
        command = [cli, "-p", str(self.redis.port), "-n", "1"]
        out = subprocess.run([*command, "GET", f"celery-task-meta-{task_id}"], stdout=subprocess.PIPE, check=True, timeout=20)
        document = json.loads(out.stdout)
        self.assertEqual(document["result"], 5)
        self.assertEqual(set(document) >= {"status", "result", "traceback", "children", "date_done", "task_id"}, True)
        left = subprocess.run([*command, "TTL", f"celery-task-meta-{task_id}"], stdout=subprocess.PIPE, check=True, timeout=20)
        self.assertTrue(86000 < int(left.stdout) <= 86400, left.stdout)

    def test_celery_reads_a_failure_by_its_id_alone(self):
        task_id = self.finished("tasks.fail", "-a", '["é boom"]')
        app = harness.app(self.redis.url(0), self.redis.url(1))
        result = app.AsyncResult(task_id)
        self.assertEqual(result.state, "FAILURE")
        self.assertEqual(repr(result.result), "ValueError('é boom')")
        app.close()

    def test_apium_reads_and_forgets_nothing_by_reading(self):
        task_id = self.finished("tasks.add", "-a", "[1, 1]")
        for _ in range(2):
            self.assertEqual(harness.apium("result", task_id, check=True, **self.where).stdout, "2\n")


if __name__ == "__main__":
    harness.main()
