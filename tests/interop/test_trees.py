"""Trees of results, picked up by either language where the other one left them: sent, saved, handed over as a tuple. The tasks run in a
Python worker, so what C has sent is what Python understands."""
import json
import os
import subprocess
import unittest

import harness
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult, result_from_tuple

servers = {}


def setUpModule():
    servers["redis"] = harness.Redis().start()
    url = servers["redis"].url()
    servers["worker"] = harness.CeleryWorker(url, url, "-c", "2").start()


def tearDownModule():
    servers["worker"].stop()
    servers["redis"].stop()


class Trees(unittest.TestCase):
    def setUp(self):
        self.url = servers["redis"].url()
        self.app = Celery("trees", broker=self.url, backend=self.url, set_as_current=False)
        self.addCleanup(self.app.close)

    def add(self, *args):
        return self.app.signature("tasks.add", args=args)

    def sum(self):
        return self.app.signature("tasks.xsum")

    def flows(self):
        return {"chain": (chain(self.add(1, 2), self.add(3), self.add(4)), 10),
                "group": (group([self.add(1, 1), self.add(2, 2) | self.add(1)], app=self.app), [2, 5]),
                "chord": (chord([self.add(1, 1), self.add(2, 2)], self.sum(), app=self.app), 6),
                "group in a chain": (chain(self.add(1, 1), group([self.add(1), self.add(2)], app=self.app), self.sum(), self.add(1)), 8),
                "chain that ends in a group": (chain(self.add(1, 1), group([self.add(1), self.add(2)], app=self.app)), [3, 4])}

    def probe(self, *args, **options):
        env = {**os.environ, **harness.environment(self.url, self.url)}
        return subprocess.run([harness.PROBE, *args], env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=60,
                              **options).stdout

    def test_what_python_composed_is_sent_from_c_and_run_by_python(self):
        for name, (flow, value) in self.flows().items():
            with self.subTest(name):
                done = harness.apium("call", "--canvas", "-", "--wait", "--timeout", "30", broker=self.url, backend=self.url,
                                     stdin=json.dumps(flow))
                self.assertEqual((done.stderr, json.loads(done.stdout or "null")), ("", value))

    def test_a_tuple_from_python_is_opened_in_c(self):
        for name, (flow, value) in self.flows().items():
            with self.subTest(name):
                result = flow.apply_async()
                self.assertEqual(json.loads(self.probe("open", json.dumps(result.as_tuple()))), value)

    def test_a_group_that_c_has_saved_is_restored_in_python(self):
        flow = group([self.add(1, 1), self.add(2, 2) | self.add(1)], app=self.app)
        saved = json.loads(self.probe("save", input=json.dumps(flow)))
        restored = GroupResult.restore(saved[0][0], app=self.app)
        self.assertEqual(restored.get(timeout=30), [2, 5])
        self.assertEqual(json.loads(json.dumps(restored.as_tuple())), saved)
        self.assertEqual(result_from_tuple(saved, self.app).get(timeout=30), [2, 5])
        self.assertEqual(restored.results[1].parent.get(timeout=30), 4)

    def test_a_group_that_python_has_saved_is_restored_in_c(self):
        result = group([self.add(1, 1), self.add(2, 2) | self.add(1)], app=self.app).apply_async()
        result.save()
        self.assertEqual(self.probe("restore", result.id), "[2, 5]\n")
        drawn = harness.apium("canvas", "show", result.id, broker=self.url, backend=self.url, env={"LC_ALL": "C"}, check=True).stdout
        self.assertRegex(drawn, f"^group {result.id}  SUCCESS  2 of 2\n.- tasks.add [-0-9a-f]*  SUCCESS  2\n.- tasks.add ")

    def test_a_tree_is_revoked_from_c(self):
        header = group([self.add(1, 1).set(countdown=3), self.add(2, 2).set(countdown=3)], app=self.app)
        result = header.apply_async()
        self.probe("revoke", json.dumps(result.as_tuple()))
        for member in result.results:
            with self.assertRaises(TaskRevokedError):
                member.get(timeout=30)


if __name__ == "__main__":
    harness.main()
