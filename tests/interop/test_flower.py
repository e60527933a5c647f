"""A script of Flower's API, answered by apium web: the same statuses, the same fields, and the same values of what results tell. What
real Flower answers is in tests/fixtures/flower-2.2 (capture_flower.py)."""
import json
import unittest

import flower_calls
import harness

CAPTURED = json.loads((harness.ROOT / "tests/fixtures/flower-2.2/answers.json").read_text())["answers"]
# Only events know these: null here, whatever Flower says.
EVENTS = {"received", "started", "runtime", "clock", "eta", "expires"}
# Results know it, Flower only with task-sent events.
MORE = {"routing_key"}
TIMES = {"succeeded", "failed", "retried", "revoked", "timestamp"}
# What nobody has run has no result yet, and is not listed here. And: what nobody sent, but has a state.
UNLISTED, LISTED = {"<async-apply-countdown>"}, {"aborted-id"}


class Case:
    """The calls are made once; every test looks at some of the answers."""

    @classmethod
    def setUpClass(cls):
        cls.redis = harness.Redis().start()
        where = cls.redis.url()
        cls.worker = cls.make_worker(where).start()
        cls.web = harness.Web(where, env=harness.environment(where, where))
        cls.web.argv[1:1] = ["-A", harness.TASKS]
        cls.web.start()
        cls.made = {}
        cls.answers = flower_calls.run(cls.web.port, flower_calls.FIRST, cls.made)
        cls.answers.update(flower_calls.run(cls.web.port, flower_calls.THEN, cls.made))
        text = json.dumps(cls.answers)
        for name, task in cls.made.items():
            text = text.replace(task, f"<{name}>")
        cls.answers = json.loads(text)

    @classmethod
    def tearDownClass(cls):
        cls.worker.kill_group()
        assert cls.web.stop() == 0, cls.web.log()[-4000:]
        cls.redis.stop()

    def pairs(self, calls):
        return [(name, CAPTURED[name], self.answers[name]) for name, *_ in calls]

    def test_every_status_is_flowers(self):
        for name, want, got in self.pairs(flower_calls.FIRST + flower_calls.THEN):
            self.assertEqual(got["status"], want["status"], (name, got))
            if want["status"] >= 400:  # Flower's text, in the one form of errors
                self.assertEqual(got["body"]["error"]["status"], want["status"])
                self.assertTrue(got["body"]["error"]["message"])
            elif want["type"] == "application/json":
                self.assertEqual(got["type"], want["type"])

    def test_calls_and_results_have_flowers_fields_and_values(self):
        for name, want, got in self.pairs(flower_calls.FIRST):
            if want["status"] != 200 or want["type"] != "application/json":
                continue
            want, got = dict(want["body"]), dict(got["body"])
            self.assertEqual(sorted(got), sorted(want), name)
            if name.startswith("result-wait"):  # Flower reads the state before it waits, and the result after that
                want["state"] = "FAILURE" if "traceback" in want else "SUCCESS"
            if name.startswith(("async-apply", "send-task")):  # as quick as the worker is
                self.assertIn(got["state"], ("PENDING", "SUCCESS", "FAILURE"))
                want["state"] = got["state"]
            if isinstance(want.get("traceback"), str):
                want["traceback"] = got["traceback"]
                self.assertIsInstance(got["traceback"], str)
            self.assertEqual(got, want, name)

    def compare(self, got, want):
        self.assertEqual(sorted(got), sorted(want))
        for field, value in want.items():
            if field in EVENTS:
                self.assertIsNone(got[field], field)
            elif field in TIMES:
                self.assertEqual(type(got[field]), type(value), field)
            elif field == "traceback":
                self.assertTrue(value is None or isinstance(got[field], str))
            elif field not in MORE:
                self.assertEqual(got[field], value, field)

    def test_infos_have_flowers_fields_and_values(self):
        for _, want, got in self.pairs(flower_calls.THEN):
            if want["status"] == 200 and "uuid" in want["body"]:
                self.compare(got["body"], want["body"])

    def test_lists_have_flowers_tasks_fields_and_values(self):
        for name, want, got in self.pairs(flower_calls.THEN):
            if want["status"] != 200 or not name.startswith("tasks"):
                continue
            want, got = want["body"], got["body"]
            if "limit" in name or "down" in name and len(want) < 5 or name == "tasks-offset":
                self.assertEqual(len(got), len(want))
            else:
                self.assertEqual(set(got) - LISTED, set(want) - UNLISTED, name)
            everything = CAPTURED["tasks"]["body"]
            for task, fields in got.items():
                if task not in LISTED:
                    self.compare(fields, everything[task])

    def test_lists_are_in_flowers_order(self):
        orders = {"tasks": ("timestamp", True), "tasks-by-name": ("name", False), "tasks-by-name-down": ("name", True),
                  "tasks-by-state": ("state", False), "tasks-by-received": ("timestamp", False)}
        for name, (field, down) in orders.items():
            values = [task[field] or "" if field != "timestamp" else task[field] or 0 for task in self.answers[name]["body"].values()]
            self.assertEqual(values, sorted(values, reverse=down), name)
            self.assertGreater(len(values), 10)
        first = list(self.answers["tasks"]["body"])
        self.assertEqual(list(self.answers["tasks-limit"]["body"]), first[:3])
        self.assertEqual(list(self.answers["tasks-offset"]["body"]), first[2:5])
        self.assertEqual(list(self.answers["tasks-by-received-down"]["body"]), first[:2])

    def test_types_are_those_of_the_module_and_of_results(self):
        types = self.answers["types"]["body"]["task-types"]
        self.assertEqual(types, sorted(set(types)))
        self.assertLessEqual(set(CAPTURED["types"]["body"]["task-types"]), set(types))

    def test_what_needs_remote_control_says_so(self):
        for method, path in (("GET", "/api/workers"), ("POST", "/api/worker/shutdown/w@h"), ("POST", "/api/worker/pool/grow/w@h"),
                             ("POST", "/api/task/rate-limit/tasks.add"), ("POST", "/api/task/timeout/tasks.add"),
                             ("GET", "/api/tasks?search=x")):
            got = flower_calls.call(self.web.port, method, path, None)
            self.assertEqual((got["status"], got["body"]["error"]["status"]), (501, 501), path)


class OfApium(Case, unittest.TestCase):
    @staticmethod
    def make_worker(where):
        return harness.Worker(where, where, "-c", "2", "-n", "flower@test", conf={"result_extended": True})


class OfCelery(Case, unittest.TestCase):
    @staticmethod
    def make_worker(where):
        return harness.CeleryWorker(where, where, "-c", "2", "-n", "flower@test")


if __name__ == "__main__":
    harness.main()
