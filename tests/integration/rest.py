"""apium web for those who ask: tasks, workflows, queues, sending, Flower's paths, the description of it all."""
import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

import harness


class Case(unittest.TestCase):
    """A server, a queue and a worker, all of them on SQLite."""

    @classmethod
    def setUpClass(cls):
        where = harness.folder("rest")
        cls.broker, cls.backend = f"sqlite:///{where}/queue.db", f"sqlite:///{where}/results.db"
        cls.web = harness.Web(cls.backend, env=harness.environment(cls.broker, cls.backend)).start()
        cls.worker = harness.Worker(cls.broker, cls.backend, "-c", "2", module=harness.FLOWS, env={"FLOWS": f"{where}/flows"},
                                    conf={"result_extended": True}).start()

    @classmethod
    def tearDownClass(cls):
        assert cls.worker.stop() == 0
        assert cls.web.stop() == 0, cls.web.log()[-4000:]

    def ask(self, method, path, body=None, status=200, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers or {})
            reply = connection.getresponse()
            text = reply.read()
            self.assertEqual(reply.status, status, text)
            self.headers = reply.headers
            if text and reply.headers["Content-Type"] == "application/json":
                return json.loads(text)
            return text.decode()
        finally:
            connection.close()

    def send(self, task, *args, **options):
        return self.ask("POST", "/tasks", {"task": task, "args": args, "options": options}, 201)["id"]


class Tasks(Case):
    def test_a_task_is_sent_and_waited_for(self):
        task = self.send("flows.add", 2, 3, task_id="rest-1")
        self.assertEqual(task, "rest-1")
        got = self.ask("GET", f"/tasks/{task}?wait=20")
        self.assertEqual((got["id"], got["state"], got["ready"], got["result"], got["name"]), (task, "SUCCESS", True, 5, "flows.add"))
        self.assertRegex(got["date_done"], r"^\d{4}-\d\d-\d\dT")
        tag = self.headers["ETag"]
        self.ask("GET", f"/tasks/{task}", status=304, headers={"If-None-Match": tag})
        self.ask("DELETE", f"/tasks/{task}", status=204)
        self.assertEqual(self.ask("GET", f"/tasks/{task}"), {"id": task, "state": "PENDING", "ready": False})

    def test_a_failure_says_why(self):
        got = self.ask("GET", f"/tasks/{self.send('flows.fail', 'boom')}?wait=20")
        self.assertEqual((got["state"], got["ready"]), ("FAILURE", True))
        self.assertTrue(got["error"]["type"])
        self.assertIn("boom", got["error"]["message"])
        self.assertNotIn("result", got)

    def test_a_wait_does_not_end_before_its_task(self):
        task = "rest-started"
        self.ask("PUT", f"/celery-task-meta-{task}", {"status": "STARTED", "result": None}, 204)
        start = time.monotonic()
        self.assertEqual(self.ask("GET", f"/tasks/{task}?wait=0.4")["state"], "STARTED")
        self.assertGreater(time.monotonic() - start, 0.35)

    def test_many_are_sent_and_asked_for_at_once(self):
        sent = self.ask("POST", "/tasks", [{"task": "flows.add", "args": [i, i]} for i in range(20)] + [{"no": "task"}])
        self.assertEqual(sent[20]["error"]["status"], 400)
        ids = [item["id"] for item in sent[:20]]
        for task in ids:
            self.ask("GET", f"/tasks/{task}?wait=20")
        got = self.ask("POST", "/tasks/states", ids + ["never-sent"])
        self.assertEqual([t.get("result") for t in got["tasks"]], [2 * i for i in range(20)] + [None])
        self.assertTrue(got["complete"])

    def test_a_chord_is_sent(self):
        part = {"task": "flows.add", "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
        chord = {"task": "celery.chord", "args": [], "options": {}, "subtask_type": "chord", "immutable": False,
                 "kwargs": {"kwargs": {}, "header": [{**part, "args": [1, i]} for i in range(3)],
                            "body": {**part, "task": "flows.xsum", "args": []}}}
        body = self.ask("POST", "/tasks", chord, 201)["id"]
        got = self.ask("GET", f"/tasks/{body}?wait=20")
        self.assertEqual((got["state"], got["result"]), ("SUCCESS", 6))
        tree = self.ask("GET", f"/tasks/{body}/tree")
        self.assertEqual([t["id"] for t in tree["tasks"]], [tree["root"], body])  # the part that completed it, and the body

    def test_a_tree_is_the_same_from_each_of_its_tasks(self):
        step = {"task": "flows.add", "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
        chain = {"task": "celery.chain", "args": [], "options": {}, "subtask_type": "chain", "immutable": False,
                 "kwargs": {"tasks": [{**step, "args": [1, 1]}, {**step, "args": [2]}, {**step, "args": [3]}]}}
        last = self.ask("POST", "/tasks", chain, 201)["id"]
        self.assertEqual(self.ask("GET", f"/tasks/{last}?wait=20")["result"], 7)
        tree = self.ask("GET", f"/tasks/{last}/tree")
        self.assertEqual([t["result"] for t in tree["tasks"]], [2, 4, 7])
        for task in tree["tasks"]:
            self.assertEqual([t["id"] for t in self.ask("GET", f"/tasks/{task['id']}/tree")["tasks"]][0], tree["root"])

    def test_a_saved_group_is_found(self):
        ids = [self.send("flows.add", i, 1) for i in range(3)]
        for task in ids:
            self.ask("GET", f"/tasks/{task}?wait=20")
        self.ask("PUT", "/celery-taskset-meta-gg", {"result": [["gg", None], [[[i, None], None] for i in ids]]}, 204)
        got = self.ask("GET", "/groups/gg")
        self.assertEqual(sorted(t["result"] for t in got["tasks"]), [1, 2, 3])
        self.assertEqual(got["tree"][0], ["gg", None])
        self.ask("GET", "/groups/none", status=404)

    def test_two_hundred_waiters_get_their_results_at_once(self):
        late = []
        stored = {}
        lock = threading.Barrier(201)

        def wait(task):
            connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=60)
            connection.request("GET", f"/tasks/{task}?wait=30")
            lock.wait()
            reply = connection.getresponse()
            late.append(time.monotonic() - stored.get(task, time.monotonic()))
            reply.read()
            connection.close()
        threads = [threading.Thread(target=wait, args=(f"rush-{i}",)) for i in range(200)]
        for thread in threads:
            thread.start()
        lock.wait()
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=60)
        for i in range(200):
            connection.request("PUT", f"/celery-task-meta-rush-{i}", json.dumps({"status": "SUCCESS", "result": i}))
            reply = connection.getresponse()
            stored[f"rush-{i}"] = time.monotonic()
            reply.read()
            self.assertEqual(reply.status, 204)
        connection.close()
        for thread in threads:
            thread.join(30)
        late.sort()
        print(f"200 waiters: median {late[100] * 1000:.1f} ms, p99 {late[197] * 1000:.1f} ms after it was stored")
        self.assertEqual(len(late), 200)
        self.assertLess(late[197], 1.0)

    def test_what_makes_no_sense_is_refused(self):
        for body in ({}, {"task": 1}, {"task": "x", "args": 5}, {"task": "x", "options": {"countdown": "soon"}}):
            self.ask("POST", "/tasks", body, 400)
        self.ask("POST", "/tasks", "text", 400)
        self.ask("POST", "/tasks", [{}] * 1001, 413)
        self.ask("POST", "/tasks/states", {"a": 1}, 400)
        self.ask("POST", "/tasks/states", [1], 400)
        self.ask("GET", "/tasks/x?wait=-1", status=400)
        self.ask("PUT", "/tasks/x", {}, 405)

    def test_a_broker_that_is_away_is_waited_for_once(self):
        env = {"APIUM_BROKER_URL": "redis://127.0.0.1:1/0", "APIUM_BROKER_CONNECTION_TIMEOUT": "1"}
        web = harness.Web(None, env=env).start()
        self.addCleanup(web.kill_group)
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
        self.addCleanup(connection.close)
        began = time.monotonic()
        connection.request("POST", "/tasks", json.dumps([{"task": "a"}] * 1000))
        answers = json.loads(connection.getresponse().read())
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual([a["error"]["status"] for a in answers], [503] * 1000)

    def test_revoking_needs_a_broker_with_broadcasts(self):
        self.assertIn("broadcast", self.ask("POST", "/tasks/x/revoke", status=501)["error"]["message"])
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        client = redis.client()
        web = harness.Web("memory://", env=harness.environment(redis.url(), "")).start()
        self.__class__.web, old = web, self.web
        try:
            heard = client.pubsub()
            heard.psubscribe("*pidbox*")
            heard.get_message(timeout=5)
            self.ask("POST", "/tasks/some-id/revoke?terminate=SIGUSR1", status=202)
            envelope = json.loads(harness.eventually(lambda: heard.get_message(timeout=1), 10)["data"])
            order = json.loads(base64.b64decode(envelope["body"]))
            self.assertEqual((order["method"], order["arguments"]["task_id"], order["arguments"]["signal"]), ("revoke", ["some-id"], "SIGUSR1"))
            self.assertEqual(self.ask("POST", "/api/task/revoke/other"), {"message": "Revoked 'other'"})
        finally:
            self.__class__.web = old
            self.assertEqual(web.stop(), 0)


class Events(Case):
    def listen(self, ids):
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=20)
        self.addCleanup(connection.close)
        connection.request("GET", f"/events?ids={ids}")
        reply = connection.getresponse()
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/event-stream"))
        self.assertEqual((reply.readline(), reply.readline()), (b": states\n", b"\n"))
        return connection, reply

    def next(self, reply):
        self.assertEqual(reply.readline(), b"event: state\n")
        data = reply.readline()
        self.assertTrue(data.startswith(b"data: "), data)
        self.assertEqual(reply.readline(), b"\n")
        return json.loads(data[6:])

    def put(self, task, state, **more):
        self.ask("PUT", f"/celery-task-meta-{task}", {"status": state, "result": None, **more}, 204)

    def waiting(self):
        return int(re.search(r"^apium_web_waiting (\d+)$", self.ask("GET", "/metrics"), re.M).group(1))

    def test_each_state_is_an_event(self):
        self.put("ev-1", "STARTED")
        _, reply = self.listen("ev-1,ev-2")
        self.assertEqual(self.next(reply)["state"], "STARTED")
        for i in range(50):
            self.put("ev-2", "PROGRESS", result={"n": i})
        self.put("ev-1", "SUCCESS", result="x" * 100000)
        for i in range(50):
            got = self.next(reply)
            self.assertEqual((got["id"], got["result"]), ("ev-2", {"n": i}))
        self.assertEqual(len(self.next(reply)["result"]), 100000)

    def test_a_document_of_several_lines_is_one_event(self):
        _, reply = self.listen("ev-3")
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=20)
        connection.request("PUT", "/celery-task-meta-ev-3", '{"status": "SUCCESS",\n"result": [1,\r\n\n2]}')
        self.assertEqual(connection.getresponse().status, 204)
        connection.close()
        self.assertEqual(self.next(reply)["result"], [1, 2])

    def test_a_listener_that_leaves_is_let_go(self):
        before = self.waiting()
        pairs = [self.listen(f"ev-leave-{i}") for i in range(20)]
        self.assertGreaterEqual(self.waiting(), 20)
        for connection, reply in pairs:
            reply.close()
            connection.close()
        harness.eventually(lambda: self.waiting() <= before)

    def test_a_listener_that_does_not_read_is_let_go(self):
        harness.eventually(lambda: self.waiting() == 0)  # those of other tests are gone
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self.web.port))
        sock.sendall(b"GET /events?ids=ev-slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        harness.eventually(lambda: self.waiting() == 1)
        _, reply = self.listen("ev-slow")
        for i in range(40):
            self.put("ev-slow", "PROGRESS", result=[i] * 100000)
            self.assertEqual(self.next(reply)["result"][0], i)  # others are served meanwhile
        harness.eventually(lambda: self.waiting() == 1, what="the one that reads is left")

    def test_what_makes_no_sense_is_refused(self):
        self.ask("GET", "/events", status=400)
        self.ask("GET", "/events?ids=", status=400)
        self.ask("GET", "/events?ids=a,,b", status=400)
        self.ask("GET", "/events?ids=" + ",".join(map(str, range(101))), status=413)

    def test_the_server_stops_with_listeners(self):
        web = harness.Web("memory://").start()
        with socket.create_connection(("127.0.0.1", web.port), 10) as sock:
            sock.sendall(b"GET /events?ids=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertIn(b"200 OK", sock.recv(4096))
            self.assertEqual(web.stop(), 0)


class Queues(Case):
    def test_depths_are_counted(self):
        for i in range(3):
            self.send("flows.add", i, 1, queue="lonely")
        got = self.ask("GET", "/queues?names=lonely,celery")["queues"]
        self.assertEqual([(q["name"], q["ready"]) for q in got], [("lonely", 3), ("celery", 0)])
        self.assertTrue(0 <= got[0]["oldest_age"] < 60, got)
        self.assertIsNone(got[1]["oldest_age"])
        listed = harness.apium("list", "--json", "-Q", "lonely", env=harness.environment(self.broker, self.backend), check=True).stdout
        self.assertGreaterEqual(json.loads(listed)["oldest_age"], got[0]["oldest_age"])
        self.assertEqual([q["name"] for q in self.ask("GET", "/queues")["queues"]], ["celery"])
        self.assertEqual(self.ask("GET", "/api/queues/length?names=lonely"), {"active_queues": [{"name": "lonely", "messages": 3}]})
        self.ask("GET", "/queues?names=", status=400)
        self.assertEqual([q["name"] for q in self.ask("GET", "/queues?names=lonely,celery,,lonely")["queues"]], ["lonely", "celery"])

    def test_an_age_that_nobody_knows_is_none(self):
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        where = harness.environment(redis.url(), redis.url())
        web = harness.Web("memory://", env=where)
        self.__class__.web, old = web.start(), self.web
        try:
            harness.apium("call", "t.first", "--queue", "mixed", env=where, check=True)
            age = self.ask("GET", "/queues?names=mixed")["queues"][0]["oldest_age"]
            self.assertTrue(0 <= age < 60, age)
            harness.app(redis.url(), None).send_task("t.python", queue="mixed")
            got = self.ask("GET", "/queues?names=mixed")["queues"][0]  # Celery's is served later
            self.assertEqual(got["ready"], 2)
            self.assertGreaterEqual(got["oldest_age"], age)
            harness.app(redis.url(), None).send_task("t.python", queue="mixed", priority=5)
            got = self.ask("GET", "/queues?names=mixed")["queues"][0]  # and this one is the next of its priority
            self.assertEqual((got["ready"], got["oldest_age"]), (3, None))
        finally:
            self.__class__.web = old
            self.assertEqual(web.stop(), 0)

    def test_the_server_says_how_it_is(self):
        self.assertEqual(self.ask("GET", "/health"), {"status": "ok"})
        self.assertEqual(self.ask("GET", "/healthcheck"), "OK")
        text = self.ask("GET", "/metrics")
        self.assertRegex(text, r'apium_web_requests_total\{method="GET",status="2xx"\} [1-9]')
        for i in range(3):
            self.send("flows.add", i, 1, queue="scraped")
        text += self.ask("GET", "/metrics?names=scraped,none%22%5C")
        self.assertIn('celery_queue_length{queue_name="scraped"} 3\n', text)
        self.assertIn('celery_queue_length{queue_name="none\\"\\\\"} 0\n', text)
        self.assertRegex(text, r'apium_queue_oldest_age_seconds\{queue_name="scraped"\} [0-9]')
        self.assertIn("apium_web_broker_up 1\n", text)
        accepted(self, self.ask("GET", "/metrics?names=scraped,none%22%5C"))

    def test_a_broker_that_is_stopped_keeps_no_question_for_ever(self):
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        web = harness.Web("memory://", env=harness.environment(redis.url(), "")).start()
        self.__class__.web, old = web, self.web
        try:
            self.assertIn("apium_web_broker_up 1\n", self.ask("GET", "/metrics"))
            redis.signal(signal.SIGSTOP)
            start = time.monotonic()
            text = self.ask("GET", "/metrics")
            self.assertLess(time.monotonic() - start, 8)
            self.assertIn("apium_web_broker_up 0\n", text)
            self.assertNotIn("celery_queue_length", text)
            accepted(self, text)
            self.assertRegex(self.ask("GET", "/queues", status=503)["error"]["message"], "the broker does not answer|cannot reach")
            with socket.create_connection(("127.0.0.1", web.port)) as sock:  # who leaves is not waited for
                sock.sendall(b"GET /queues HTTP/1.1\r\nHost: localhost\r\n\r\n")
            redis.signal(signal.SIGCONT)
            harness.eventually(lambda: "apium_web_broker_up 1\n" in self.ask("GET", "/metrics"))
            redis.signal(signal.SIGSTOP)
            for _ in range(3):
                sock = socket.create_connection(("127.0.0.1", web.port))
                self.addCleanup(sock.close)
                sock.sendall(b"GET /queues HTTP/1.1\r\nHost: localhost\r\n\r\n")
            harness.eventually(lambda: "apium_web_connections 4\n" in self.ask("GET", "/metrics"))
        finally:
            self.__class__.web = old
            self.assertEqual(web.stop(), 0)
            redis.signal(signal.SIGCONT)


def accepted(case, text):
    """Prometheus' own tool finds nothing to say against it."""
    promtool = shutil.which("promtool")
    if not promtool:
        harness.lacking("promtool")
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    case.assertEqual(done.returncode, 0, done.stdout)


class Flower(Case):
    def test_a_script_for_flower_finds_its_fields(self):
        got = self.ask("POST", "/api/task/apply/flows.add", {"args": [2, 3]})
        self.assertEqual((got["state"], got["result"], sorted(got)), ("SUCCESS", 5, ["result", "state", "task-id"]))
        info = self.ask("GET", f"/api/task/info/{got['task-id']}")
        self.assertEqual((info["uuid"], info["state"], info["name"], info["result"]), (got["task-id"], "SUCCESS", "flows.add", "5"))
        # It says the state at once, as Flower does: nobody may have begun with it.
        sent = self.ask("POST", "/api/task/async-apply/flows.fail", {"args": ["boom"], "kwargs": {}, "countdown": 1})
        self.assertEqual(sent["state"], "PENDING")
        failed = self.ask("GET", f"/api/task/result/{sent['task-id']}?timeout=20")
        self.assertEqual((failed["state"], sorted(failed)), ("FAILURE", ["result", "state", "task-id", "traceback"]))
        self.assertIn("boom", failed["result"])
        sent = self.ask("POST", "/api/task/send-task/flows.add", {"args": [1, 1], "countdown": 0.1})
        self.assertEqual(self.ask("GET", f"/api/task/result/{sent['task-id']}?timeout=20")["result"], 2)
        self.ask("POST", "/api/task/apply/flows.add", {"args": 5}, 400)
        self.ask("GET", "/api/task/info/never", status=404)
        self.assertEqual(self.ask("GET", "/api/task/result/never"), {"task-id": "never", "state": "PENDING"})
        self.assertEqual(self.ask("POST", "/api/task/abort/never"), {"message": "Aborted 'never'"})
        self.assertEqual(self.ask("GET", "/celery-task-meta-never")["status"], "ABORTED")
        self.assertLessEqual({"flows.add", "flows.fail"}, set(self.ask("GET", "/api/task/types")["task-types"]))

    def test_a_list_has_what_is_stored(self):
        web = harness.Web()
        web.argv[1:1] = ["-A", harness.FLOWS]
        self.__class__.web, old = web.start(), self.web
        try:
            for i in range(300):
                self.ask("PUT", f"/celery-task-meta-listed-{i}", {
                    "status": "FAILURE" if i % 3 else "SUCCESS", "result": i if i % 3 == 0 else {"exc_type": "E", "exc_message": [i], "exc_module": "m"},
                    "traceback": None, "children": [[["child", None], None]], "date_done": f"2026-11-28T10:{i // 60:02}:{i % 60:02}.000000",
                    "name": f"t{i % 4}", "args": ["x" * 5000], "kwargs": {}, "worker": "w@h", "retries": 0, "parent_id": "p"}, 204)
            self.ask("PUT", "/celery-taskset-meta-gg", {"result": [["gg", None], []]}, 204)
            self.assertEqual(len(self.ask("GET", "/api/tasks")), 300)
            self.assertEqual(self.headers["X-Apium-Complete"], "true")
            newest = self.ask("GET", "/api/tasks?limit=2")
            self.assertEqual(list(newest), ["listed-299", "listed-298"])
            task = newest["listed-299"]
            self.assertEqual((task["exception"], task["result"], task["root_id"], task["parent_id"], task["children"]),
                             ("E(299)", None, None, "p", ["child"]))
            self.assertLess(len(task["args"]), 1100)
            self.assertEqual(len(self.ask("GET", "/api/tasks?state=SUCCESS&taskname=t0")), 25)
            self.assertEqual(list(self.ask("GET", "/api/tasks?received_start=2026-11-28%2010:04&received_end=2026-11-28+10:04")), ["listed-240"])
            self.assertEqual(list(self.ask("GET", "/api/tasks?sort_by=-name&limit=1&offset=1").values())[0]["name"], "t3")
            self.assertEqual([t for t in self.ask("GET", "/api/task/types")["task-types"] if t[0] == "t"], ["t0", "t1", "t2", "t3"])
            for query in ("limit=x", "offset=-", "sort_by=nothing", "sort_by=-", "received_start=2026-11-28", "received_end=2026-11-28%2025:00",
                          "received_end=2026-11-28%2010:00x"):
                self.ask("GET", f"/api/tasks?{query}", status=400)
            self.ask("POST", "/api/worker/shutdown/w@h", {}, 501)
        finally:
            self.__class__.web = old
            self.assertEqual(web.stop(), 0)

    def test_the_tasks_of_a_module_are_known(self):
        web = harness.Web("memory://")
        web.argv[1:1] = ["-A", harness.FLOWS]
        self.__class__.web, old = web.start(), self.web
        try:
            self.assertIn("flows.add", self.ask("GET", "/api/task/types")["task-types"])
            self.ask("POST", "/api/task/async-apply/flows.nosuch", {}, 404)
        finally:
            self.__class__.web = old
            self.assertEqual(web.stop(), 0)


class Description(Case):
    def test_every_path_is_described_and_nothing_else(self):
        doc = self.ask("GET", "/openapi.json")
        self.assertEqual(doc["openapi"], "3.0.3")
        described = {(method.upper(), re.sub(r"\{\w+\}", ":", path)) for path, item in doc["paths"].items() for method in item}
        source = (harness.ROOT / "web" / "route.c").read_text()
        routes = set(re.findall(r'\{ "([A-Z]+)", "([^"]+)", [RW],', source))
        self.assertGreater(len(routes), 25)
        self.assertEqual(described, routes)

    def test_the_description_holds_together(self):
        doc = self.ask("GET", "/openapi.json")
        refs = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(doc))
        self.assertGreater(len(refs), 30)
        self.assertLessEqual(set(refs), set(doc["components"]["schemas"]))
        for path, item in doc["paths"].items():
            for operation in item.values():
                named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
                self.assertEqual(named, set(re.findall(r"\{(\w+)\}", path)), path)
                self.assertIn("default", operation["responses"])

    def test_answers_are_as_described(self):
        task = self.ask("GET", f"/tasks/{self.send('flows.add', 2, 3)}?wait=20")
        schema = self.ask("GET", "/openapi.json")["components"]["schemas"]["Task"]
        self.assertLessEqual(set(task), set(schema["properties"]))
        self.assertLessEqual(set(schema["required"]), set(task))
        kinds = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}
        for name, value in task.items():
            kind = schema["properties"][name].get("type")
            self.assertTrue(kind is None or isinstance(value, kinds[kind]), (name, value))


class WorkersOwn(unittest.TestCase):
    """A worker with --http."""

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def test_a_worker_shows_what_it_did_and_how_it_is(self):
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        self.port = harness.free_port()
        worker = harness.Worker(redis.url(), redis.url(), "-c", "2", "-n", "m@test", "--http", f"127.0.0.1:{self.port}", module=harness.FLOWS).start()
        self.addCleanup(worker.kill_group)
        harness.eventually(lambda: self.get("/healthz") == (200, "ok\n"), 5)
        where = harness.environment(redis.url(), redis.url())
        ids = []
        for task, args in (("flows.add", "[1, 2]"), ("flows.add", "[3, 4]"), ("flows.fail", '["boom"]'), ("flows.sleep", "[0.3]")):
            ids.append(harness.apium("call", task, "-a", args, env=where, check=True).stdout.strip())
        harness.eventually(lambda: all(not s.startswith(("PENDING", "STARTED")) for s in harness.states(where, ids).values()), 20)
        status, text = self.get("/metrics")
        self.assertEqual(status, 200)

        def value(name, task):
            found = re.search(rf'^{name}{{name="{task}",queue_name="celery",hostname="m@test"(,exception="\w*")?}} (\S+)$', text, re.M)
            self.assertTrue(found, f"{name} of {task}:\n{text}")
            return float(found.group(2))
        for name, task, count in (("celery_task_received_total", "flows.add", 2), ("celery_task_started_total", "flows.add", 2),
                                  ("celery_task_succeeded_total", "flows.add", 2), ("celery_task_failed_total", "flows.add", 0),
                                  ("celery_task_failed_total", "flows.fail", 1), ("celery_task_runtime_count", "flows.fail", 0),
                                  ("celery_task_runtime_count", "flows.add", 2), ("apium_task_held_seconds_count", "flows.add", 2),
                                  ("apium_task_queued_seconds_count", "flows.add", 2)):
            self.assertEqual(value(name, task), count, f"{name} of {task}")
        self.assertGreater(value("celery_task_runtime_sum", "flows.sleep"), 0.25)
        self.assertIn('exception="ValueError"} 1', text)
        for line in ('celery_worker_up{hostname="m@test"} 1', 'apium_worker_pool_processes{hostname="m@test"} 2',
                     'celery_queue_length{queue_name="celery"} 0', 'apium_queue_oldest_age_seconds{queue_name="celery"} 0',
                     'flower_worker_prefetched_tasks{task="flows.add",queue_name="celery",worker="m@test"} 0',
                     'apium_worker_broker_up{hostname="m@test"} 1'):
            self.assertIn(line + "\n", text)
        accepted(self, text)
        # What waits: one runs, two wait here, one waits for its eta in the broker, and Celery's message has no age.
        for args in ('["-a", "[20]"]', '["-a", "[20]"]', '["-a", "[20]"]', '["-a", "[0]"]', '["-a", "[0]", "--countdown", "60"]'):
            harness.apium("call", "flows.sleep", *json.loads(args), env=where, check=True)
        harness.app(redis.url(), None).send_task("none.such", queue="other")
        def lines():
            return self.get("/metrics")[1].splitlines()
        for line in ('celery_worker_tasks_active{hostname="m@test"} 2', 'apium_worker_tasks_parked_total{hostname="m@test"} 1',
                     'flower_worker_prefetched_tasks{task="flows.sleep",queue_name="celery",worker="m@test"} 2'):
            harness.eventually(lambda line=line: line in lines(), what=line)
        self.assertEqual(self.get("/nothing")[0], 404)
        self.assertEqual(self.get("/metrics", "POST")[0], 405)
        redis.kill()
        harness.eventually(lambda: self.get("/healthz")[0] == 503, 20)
        accepted(self, self.get("/metrics")[1])
        self.assertIn('celery_worker_up{hostname="m@test"} 0', self.get("/metrics")[1])
        redis.start()
        harness.eventually(lambda: self.get("/healthz")[0] == 200, 20)
        self.assertEqual(worker.stop(), 0)

    def stopped(self, pid, why, *others):
        """While these processes are stopped the worker is not well, within ten seconds, and says why; and then it is again."""
        harness.eventually(lambda: self.get("/healthz") == (200, "ok\n"), 20)
        for one in (pid, *others):
            os.kill(one, signal.SIGSTOP)
        try:
            start = time.monotonic()
            harness.eventually(lambda: self.get("/healthz")[0] == 503, 30)
            took = time.monotonic() - start
            self.assertRegex(self.get("/healthz")[1], why)
            self.assertIn('celery_worker_up{hostname="h@test"} 0', self.get("/metrics")[1])
        finally:
            for one in (pid, *others):
                os.kill(one, signal.SIGCONT)
        start = time.monotonic()
        harness.eventually(lambda: self.get("/healthz") == (200, "ok\n"), 30)
        print(f"{why}: not well {took:.1f} s after the stop, well {time.monotonic() - start:.1f} s after its end")
        self.assertLess(took, 10 if not harness.SANITIZED else 20)

    def healthy(self, broker, *options):
        self.port = harness.free_port()
        worker = harness.Worker(broker, broker, "-n", "h@test", "--http", f"127.0.0.1:{self.port}", *options, module=harness.FLOWS).start()
        self.addCleanup(worker.kill_group)
        return worker

    def test_a_worker_is_well_while_its_broker_and_its_pool_answer(self):
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        worker = self.healthy(redis.url(), "-c", "2")
        server, pool = worker.children()
        self.stopped(pool[0], r"ForkPoolWorker-\d \(pid \d+\) is stopped")
        self.stopped(redis.pid, "the broker has not answered|cannot be reached")
        self.stopped(server, "the fork server does not answer")
        # One that runs a task may be silent; one that is stopped in it may not.
        harness.apium("call", "flows.sleep", "-a", "[9]", env=harness.environment(redis.url(), redis.url()), check=True)
        active = 'celery_worker_tasks_active{hostname="h@test"} 1'
        harness.eventually(lambda: active in self.get("/metrics")[1])
        end = time.monotonic() + 8
        while time.monotonic() < end and active in self.get("/metrics")[1]:
            self.assertEqual(self.get("/healthz"), (200, "ok\n"))
            time.sleep(0.2)
        harness.apium("call", "flows.sleep", "-a", "[60]", env=harness.environment(redis.url(), redis.url()), check=True)
        harness.eventually(lambda: active in self.get("/metrics")[1])
        for pid in pool:
            self.stopped(pid, "is stopped")
        worker.kill_group()

    def test_a_worker_on_rabbitmq_is_well_while_that_answers(self):
        rabbitmq = harness.RabbitMQ().start()
        self.addCleanup(rabbitmq.stop)
        self.port = harness.free_port()
        worker = harness.Worker(rabbitmq.url(), None, "-n", "h@test", "-c", "1", "--http", f"127.0.0.1:{self.port}", module=harness.FLOWS).start()
        self.addCleanup(worker.kill_group)
        harness.eventually(lambda: 'celery_queue_length{queue_name="celery"} 0\n' in self.get("/metrics")[1], 10)
        text = self.get("/metrics")[1]
        self.assertIn('apium_queue_consumers{queue_name="celery"} 1\n', text)
        accepted(self, text)
        web = harness.Web("memory://", env=harness.environment(rabbitmq.url(), "")).start()
        self.addCleanup(web.kill_group)
        self.port, port = web.port, self.port
        text = self.get("/metrics?names=celery,none")[1]
        self.assertIn('apium_queue_consumers{queue_name="celery"} 1\n', text)
        self.assertIn('celery_queue_length{queue_name="none"} 0\n', text)
        self.assertNotIn('apium_queue_dead', text)
        accepted(self, text)
        self.port = port
        self.stopped(*harness.tree(rabbitmq.pid)[:1], "the broker has not answered|cannot be reached", *harness.tree(rabbitmq.pid)[1:])
        self.assertEqual(worker.stop(), 0)

    def test_pools_of_threads_and_other_brokers_answer_too(self):
        where = harness.folder("well")
        for broker, options in ((f"sqlite:///{where}/q.db", ("-P", "threads", "-c", "2")), (f"sqlite:///{where}/q.db", ("-c", "1", "--max-tasks-per-child", "1"))):
            worker = self.healthy(broker, *options)
            harness.eventually(lambda: self.get("/healthz") == (200, "ok\n"), 5)
            for _ in range(5):
                harness.apium("call", "flows.add", "-a", "[1, 2]", env=harness.environment(broker, broker), check=True)
            end = time.monotonic() + 8
            while time.monotonic() < end:
                self.assertEqual(self.get("/healthz"), (200, "ok\n"))
                time.sleep(0.2)
            accepted(self, self.get("/metrics")[1])
            self.assertEqual(worker.stop(), 0)

    def test_an_address_that_is_none_or_taken_keeps_a_worker_from_starting(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for address in ("nonsense", "127.0.0.1:", "1.2.3.4.5:80", "127.0.0.1:99999", f"127.0.0.1:{taken.getsockname()[1]}"):
                done = harness.apium("-A", harness.FLOWS, "-b", "memory://", "worker", "--http", address, "-c", "1")
                self.assertNotEqual(done.returncode, 0, address)
                self.assertIn("cannot listen on", done.stderr, address)


if __name__ == "__main__":
    harness.main()
