"""What a worker does beside running tasks: Celery's built-in tasks, tasks that become workflows or add to their chord, and errbacks
that are functions of the worker. Called from Python, results read by Python."""
import json
import unittest
import uuid

import harness
from celery import chain, chord, group
from celery.exceptions import ChordError
from celery.result import GroupResult, result_from_tuple

servers = harness.Servers()
tearDownModule = servers.stop
TIMEOUT = 15


class Flows:
    workers = ()

    @classmethod
    def setUpClass(cls):
        cls.broker, cls.backend = cls.urls()
        cls.notes = harness.folder("flows") / "notes"
        cls.notes.touch()
        # At the end results are forgotten when the server is gone already: no use in trying for long.
        cls.app = harness.app(cls.broker, cls.backend, result_backend_transport_options={
            "retry_policy": {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}})
        cls.worker = harness.Worker(cls.broker, cls.backend, "-c", "3", "-Q", "celery", module=harness.FLOWS,
                                    env={"FLOWS": str(cls.notes)}).start()
        cls.python = harness.CeleryWorker(cls.broker, cls.backend, "-c", "2", "-Q", "python").start()

    @classmethod
    def tearDownClass(cls):
        cls.python.kill_group()
        code, log = cls.worker.stop(), cls.worker.log()
        assert code == 0 and "could not be delivered" not in log, log[-4000:]

    def sig(self, name, *args, **kwargs):
        return self.app.signature("flows." + name, args=args, kwargs=kwargs)

    def built_in(self, name, *args, **kwargs):
        return self.app.send_task("celery." + name, args, kwargs)

    def value(self, result):
        """What a result that others sent holds once it is there. Celery's own get() asks before its subscription is confirmed."""
        if isinstance(result, str):
            result = self.app.AsyncResult(result)
        harness.eventually(result.ready, TIMEOUT, "the result is there")
        return result.join(timeout=TIMEOUT) if isinstance(result, GroupResult) else result.get(timeout=TIMEOUT)

    def told(self, failed_id):
        """What the errback was told about that task: [request, exception, traceback, more]."""
        def found():
            lines = self.notes.read_text().splitlines()
            return [note for note in map(json.loads, lines) if note[0]["id"] == failed_id]
        return harness.eventually(found, TIMEOUT, "the errback is called")

    # ---- built-in tasks ----

    def test_accumulate_gives_all_arguments_or_one(self):
        self.assertEqual(self.value(self.built_in("accumulate", 1, "b", None)), [1, "b", None])
        self.assertEqual(self.value(self.built_in("accumulate", 1, "b", None, index=1)), "b")
        self.assertEqual(self.value(self.built_in("accumulate", 1, "b", index=-1)), "b")
        self.assertEqual(self.value(self.built_in("accumulate")), [])
        with self.assertRaises(IndexError):
            self.value(self.built_in("accumulate", 1, index=1))
        with self.assertRaises(TypeError):
            self.value(self.built_in("accumulate", 1, index="x"))

    def test_map_and_starmap_call_the_task_for_each_item(self):
        self.assertEqual(self.value(self.built_in("map", dict(self.sig("echo")), [1, [2, 3], "x", None])),
                         [1, [2, 3], "x", None])
        self.assertEqual(self.value(self.built_in("starmap", task=dict(self.sig("add")), it=[[1, 2], [3, 4]])), [3, 7])
        self.assertEqual(self.value(self.built_in("map", dict(self.sig("echo")), [])), [])
        with self.assertRaisesRegex(ValueError, "no"):
            self.value(self.built_in("map", dict(self.sig("fail")), ["no", "neither"]))
        with self.assertRaisesRegex(Exception, "flows.nothing"):
            self.value(self.built_in("map", dict(self.sig("nothing")), [1]))
        for args in ((), ([], 1), (dict(self.sig("add")), [1])):
            with self.assertRaises(TypeError, msg=str(args)):
                self.value(self.built_in("starmap", *args))

    def test_chunks_sends_a_group_of_starmaps(self):
        sent = self.built_in("chunks", dict(self.sig("add")), [[i, i] for i in range(10)], 4).get(timeout=TIMEOUT)
        result = result_from_tuple(sent, self.app)
        self.assertIsInstance(result, GroupResult)
        self.assertEqual(self.value(result), [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]])

    def test_chunks_from_python(self):
        @self.app.task(name="flows.add")
        def add(x, y):
            raise NotImplementedError("runs in the worker")
        self.assertEqual(self.value(add.chunks([(i, i) for i in range(5)], 2).apply_async()), [[0, 2], [4, 6], [8]])

    def test_group_sends_its_tasks_with_partial_arguments(self):
        members = [self.sig("add", n).set(task_id=str(uuid.uuid4())) for n in (1, 2)]
        gid = str(uuid.uuid4())
        tree = [[gid, None], [[[m.options["task_id"], None], None] for m in members]]
        made = self.built_in("group", [dict(m) for m in members], tree, gid, [10])
        self.assertEqual(self.value(made), tree)
        self.assertEqual(self.value(result_from_tuple(tree, self.app)), [11, 12])
        self.assertEqual([child.id for child in made.children], [gid])

    def test_chord_runs_its_header_and_body(self):
        sent = self.built_in("chord", [dict(self.sig("add", 1)), dict(self.sig("add", 2))], dict(self.sig("xsum")),
                             partial_args=[10]).get(timeout=TIMEOUT)
        self.assertEqual(self.value(result_from_tuple(sent, self.app)), 23)

    def test_chain_is_not_a_real_task(self):
        with self.assertRaisesRegex(NotImplementedError, "chain is not a real task"):
            self.value(self.built_in("chain"))

    def test_backend_cleanup_is_done(self):
        self.assertIsNone(self.built_in("backend_cleanup").get(timeout=TIMEOUT))

    def test_wrong_arguments_of_built_in_tasks_are_failures(self):
        for name, args in (("group", ()), ("chord", ([],)), ("chunks", (1, 2, 3)), ("chord_unlock", ())):
            result = self.built_in(name, *args)
            if name != "chord_unlock":  # which stores no result, as in Celery
                with self.assertRaises(TypeError, msg=name):
                    self.value(result)
        with self.assertRaisesRegex(ValueError, "no \"task\""):
            self.value(self.built_in("chord", [{}], dict(self.sig("xsum"))))

    # ---- celery.chord_unlock ----

    def unlock(self, parts, body, **options):
        body.freeze()
        self.app.send_task("celery.chord_unlock", (str(uuid.uuid4()), dict(body)),
                           {"result": [part.as_tuple() for part in parts], **options}, ignore_result=True)
        return body.id

    def test_chord_unlock_waits_for_the_parts_and_sends_the_body(self):
        parts = [self.sig("add", n, n).apply_async() for n in range(3)]
        parts.append(group(self.sig("add", 5, 5), self.sig("sleep", 0.7)).apply_async())
        self.assertEqual(self.value(self.unlock(parts, self.sig("echo"), interval=0.2)), [0, 2, 4, [10, 0.7]])

    def test_chord_unlock_tells_a_failure(self):
        parts = [self.sig("add", 1, 1).apply_async(), self.sig("fail", "boom").apply_async()]
        with self.assertRaisesRegex(ChordError, r"ValueError\('boom'\)"):
            self.value(self.unlock(parts, self.sig("echo"), interval=0.2))

    # ---- replace ----

    def test_a_task_becomes_a_task(self):
        self.assertEqual(self.value(self.sig("become", dict(self.sig("add", 1, 2))).apply_async()), 3)

    def test_a_task_becomes_each_kind_of_workflow(self):
        for sig, want in (
                (chain(self.sig("add", 1, 2), self.sig("add", 3)), 6),
                (group(self.sig("add", 1, 2), self.sig("add", 3, 4)), [3, 7]),
                (chord([self.sig("add", 1, 2), self.sig("add", 3, 4)], self.sig("xsum")), 10),
                (self.sig("become", dict(self.sig("add", 2, 2))), 4)):
            with self.subTest(sig=str(sig)):
                self.assertEqual(self.value(self.sig("become", dict(sig)).apply_async()), want)

    def test_what_was_to_follow_the_task_follows_its_replacement(self):
        for sig, want in (
                (self.sig("add", 1, 2), 103), (chain(self.sig("add", 1, 2), self.sig("add", 3)), 106),
                (chord([self.sig("add", 1, 2), self.sig("add", 3, 4)], self.sig("xsum")), 110)):
            with self.subTest(sig=str(sig)):
                flow = self.sig("become", dict(sig)) | self.sig("add", 100)
                self.assertEqual(self.value(flow.apply_async()), want)

    def test_a_part_of_a_chord_is_replaced(self):
        for sig, want in (
                (self.sig("add", 1, 2), 8), (chain(self.sig("add", 1, 2), self.sig("add", 3)), 11),
                (chord([self.sig("add", 1, 2), self.sig("add", 3, 4)], self.sig("xsum")), 15)):
            with self.subTest(sig=str(sig)):
                flow = chord([self.sig("become", dict(sig)), self.sig("add", 2, 3)], self.sig("xsum"))
                self.assertEqual(self.value(flow.apply_async()), want)

    def test_the_body_of_what_a_task_becomes_runs_in_python(self):
        body = self.app.signature("tasks.xsum", queue="python")
        sig = chord([self.sig("add", 1, 2), self.app.signature("tasks.add", args=(3, 4), queue="python")], body)
        result = self.sig("become", dict(sig)).apply_async()
        self.assertEqual(self.value(result), 10)
        harness.eventually(lambda: f"tasks.xsum[{result.id}] succeeded" in self.python.log(), TIMEOUT)

    def test_links_of_a_replaced_task_are_called_with_the_final_result(self):
        link = self.sig("echo").set(task_id=str(uuid.uuid4()))
        sig = chord([self.sig("add", 1, 2), self.sig("add", 3, 4)], self.sig("xsum"))
        self.sig("become", dict(sig)).apply_async(link=link)
        self.assertEqual(self.value(link.options["task_id"]), 10)

    def test_a_replacement_that_cannot_be_is_the_tasks_failure(self):
        part = dict(self.sig("add", 1, 2))
        part["options"] = {"chord": dict(self.sig("xsum"))}
        for sig, text in ((part, "must not be part of a chord"), (dict(chain(), task="celery.chain"), "chain")):
            with self.subTest(text=text), self.assertRaisesRegex(ValueError, text):
                self.value(self.sig("become", sig).apply_async())

    # ---- add_to_chord ----

    def test_a_part_adds_to_its_chord(self):
        flow = chord([self.sig("more", 1, dict(self.sig("add", 2, 3))), self.sig("add", 10, 10)], self.sig("xsum"))
        self.assertEqual(self.value(flow.apply_async()), 26)
        flow = chord([self.sig("more", 1, dict(self.sig("more", 2, dict(self.sig("add", 3, 3)))))], self.sig("xsum"))
        self.assertEqual(self.value(flow.apply_async()), 9)

    def test_who_is_not_a_part_of_a_chord_cannot_add_to_it(self):
        with self.assertRaisesRegex(ValueError, "not a member of any chord"):
            self.value(self.sig("more", 1, dict(self.sig("add", 2, 3))).apply_async())

    # ---- errbacks ----

    def test_an_errback_that_is_a_function_is_told_what_failed(self):
        result = self.sig("fail", "boom").apply_async(link_error=self.sig("note", "mine"))
        with self.assertRaises(ValueError):
            self.value(result)
        (request, exc, traceback, more), = self.told(result.id)
        self.assertEqual((request["task"], request["args"], request["kwargs"]), ("flows.fail", ["boom"], {}))
        self.assertEqual(exc, {"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"})
        self.assertIn("ValueError: boom", traceback)
        self.assertEqual(more, ["mine"])
        self.assertEqual(result.children or [], [])

    def test_an_errback_is_called_whoever_found_the_failure(self):
        crashed = self.sig("crash").apply_async(link_error=self.sig("note"))
        (_, exc, _, _), = self.told(crashed.id)
        self.assertEqual(exc["exc_type"], "WorkerLostError")
        late = self.sig("sleep", 20).apply_async(link_error=self.sig("note"), time_limit=1)
        (_, exc, _, _), = self.told(late.id)
        self.assertEqual(exc["exc_type"], "TimeLimitExceeded")

    def test_errbacks_of_both_kinds_get_along(self):
        sent = self.sig("echo").set(task_id=str(uuid.uuid4()))
        result = self.sig("fail", "boom").apply_async(link_error=[self.sig("note"), sent, self.sig("bad_note")])
        self.assertEqual(self.value(sent.options["task_id"]), result.id)
        self.assertEqual(len(self.told(result.id)), 1)
        harness.eventually(lambda: f"flows.bad_note of task {result.id} raised KeyError" in self.worker.log(), TIMEOUT,
                           "an errback that fails is logged")

    def test_the_errback_of_a_chords_body_is_told_of_the_chords_failure(self):
        body = self.sig("xsum").on_error(self.sig("note"))
        result = chord([self.sig("add", 1, 1), self.sig("fail", "boom")], body).apply_async()
        with self.assertRaises(ChordError):
            self.value(result.id)
        (request, exc, _, _), = self.told(result.id)
        self.assertEqual((request["task"], exc["exc_type"]), ("flows.xsum", "ChordError"))


class OnRedis(Flows, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.redis.url(0), servers.redis.url(0)


class OnRabbit(Flows, unittest.TestCase):
    @staticmethod
    def urls():
        return servers.rabbitmq.url(), servers.redis.url(1)


if __name__ == "__main__":
    harness.main()
