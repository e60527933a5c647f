"""Results in CouchDB, Consul, Elasticsearch and S3: what an apium worker asks of the server is what Celery's own backend asks there for the
same tasks, and each reads what the other wrote. The servers are those of tests/support/recorder.py; for S3
there is a real one too.

Celery's side is the Celery of this machine where its client library is there, and tests/fixtures/presets-*.json, captured by
tests/interop/presets_kit.py.
"""
import importlib.util
import json
import subprocess
import unittest
import urllib.request

import harness
import presets_kit as kit
import recorder

servers = harness.Servers()
tearDownModule = servers.stop

SUM, FAIL, TEXT = "p-sum", "p-fail", "p-text"


class Preset:
    scheme = ""

    def setUp(self):
        self.server = recorder.ALL[self.scheme]()
        self.addCleanup(self.server.stop)

    def tearDown(self):
        self.assertEqual(getattr(self.server, "complaints", []), [])

    def conf(self, **more):
        return kit.settings(self.server, **more)

    def url(self, **where):
        return self.server.url(kit.PATHS[self.scheme], **where)

    def library(self):
        """Is Celery's backend at hand? Only pycouchdb is not in Debian."""
        there = importlib.util.find_spec(kit.LIBRARIES[self.scheme])
        if not there and self.scheme != "couchdb":
            harness.lacking(kit.LIBRARIES[self.scheme])
        return there

    def state(self, task_id):
        return kit.state(self.server, task_id)

    def client(self, *args, **more):
        return harness.apium(*args, env=harness.environment(servers.redis.url(9), self.url(), self.conf(**more)))

    def worker(self, *options, **more):
        module = more.pop("module", harness.TASKS)
        worker = harness.Worker(servers.redis.url(self.db), self.url(), "-c", "2", *options, module=module, conf=self.conf(**more),
                                env={"FLOWS": str(self.records)} if module == harness.FLOWS else None).start()
        self.addCleanup(worker.kill_group)
        return worker

    # ---- the same requests, the same documents ----

    def same(self, theirs, ours):
        theirs, ours = kit.by_key(self.scheme, theirs), kit.by_key(self.scheme, ours)
        for key in {f"celery-task-meta-{i}" for i in kit.TASKS} | {f"celery-taskset-meta-{kit.GROUP}"}:
            with self.subTest(key):
                self.assertEqual(ours[key], theirs[key])
        self.assertEqual(sorted(ours), sorted(theirs))

    def test_an_apium_worker_asks_what_celery_asked_when_it_was_captured(self):
        theirs = kit.fixture()[self.scheme]["asked"]
        self.same(theirs, kit.raw(kit.by_apium(self.server, servers.redis)))

    def test_an_apium_worker_asks_what_celery_asks(self):
        if not self.library():
            return  # the fixture has it
        with recorder.ALL[self.scheme]() as other:
            theirs = kit.raw(kit.by_celery(other, servers.redis))
        self.same(theirs, kit.raw(kit.by_apium(self.server, servers.redis)))

    def test_python_reads_what_apium_wrote(self):
        kit.by_apium(self.server, servers.redis)
        if not self.library():
            return
        app = harness.app(servers.redis.url(9), kit.celery_url(self.server), **self.conf())
        self.assertEqual(app.AsyncResult(SUM).get(timeout=10), 5)
        self.assertEqual(app.AsyncResult(TEXT).get(timeout=10)[0], 'é \U0001f600 "quoted" \\')
        with self.assertRaisesRegex(ValueError, "boom"):
            app.AsyncResult(FAIL).get(timeout=10)
        self.assertEqual(app.AsyncResult("never").state, "PENDING")
        self.assertEqual([r.id for r in app.GroupResult.restore(kit.GROUP).results], ["p-part-0", "p-part-1"])

    def reads(self):
        self.assertEqual(self.client("result", SUM).stdout, "5\n")
        self.assertEqual(json.loads(self.client("result", TEXT).stdout), ['é \U0001f600 "quoted" \\', 1.5, None, {"k": [True]}])
        done = self.client("result", FAIL)
        self.assertEqual(done.returncode, 1)
        self.assertIn("ValueError: boom", done.stderr)
        self.assertEqual(self.client("result", "never", "--state").stdout, "PENDING\n")

    def test_apium_reads_what_celery_had_written_when_it_was_captured(self):
        if self.scheme == "couchdb":
            self.server.databases.add("results")
        if self.scheme == "s3":
            self.server.signature_error = lambda *_: None
        kit.replay(self.server, kit.fixture()[self.scheme]["asked"])
        if self.scheme == "s3":
            del self.server.signature_error
        self.reads()

    def test_apium_reads_what_celery_writes(self):
        if self.library():
            kit.by_celery(self.server, servers.redis)
            self.reads()

    def test_a_prefix_is_celerys(self):
        options = {"result_backend_transport_options": {"global_keyprefix": "mine"}}
        done = harness.apium("result", "t", "--state", env=harness.environment("memory://", self.url(), self.conf(**options)))
        self.assertEqual(done.stdout, "PENDING\n", done.stderr)
        self.assertTrue(any(a.path.endswith("mine_celery-task-meta-t") for a in self.server.asked), self.server.asked)

    # ---- states ----

    db = 10
    DOCS = {s: json.dumps({"status": s, "result": {"exc_type": "E", "exc_message": ["x"], "exc_module": "m"} if s == "FAILURE" else s,
                           "traceback": None, "children": [], "date_done": None, "task_id": "t"}) for s in ("SUCCESS", "FAILURE", "STARTED")}

    def put(self, doc):
        """Somebody else stores a document, whatever is there."""
        key = kit.key_in_store(self.server, "celery-task-meta-t")
        if self.scheme == "couchdb":
            there = self.server.docs.get(("results", key))
            number = int(there["_rev"].split("-")[0]) + 1 if there else 1
            self.server.docs["results", key] = {"_id": key, "_rev": f"{number}-x", "value": doc}
        elif self.scheme == "consul":
            self.server.index += 1
            session = self.server.docs[key]["session"] if key in self.server.docs else f"of-{self.server.index}"
            self.server.sessions[session] = {"behavior": "delete"}
            self.server.docs[key] = {"value": doc.encode(), "index": self.server.index, "session": session, "locks": 1}
        elif self.scheme == "elasticsearch":
            self.server.number += 1
            self.server.docs["results", key] = {"source": {"result": doc}, "number": self.server.number}
        else:
            self.server.docs[key] = doc.encode()

    def send(self, task, *args, task_id="t"):
        harness.app(servers.redis.url(self.db), "disabled://").send_task(task, args, task_id=task_id, ignore_result=False, argsrepr="...")

    def run_one(self, task="tasks.echo", *args, until=None, **more):
        worker = self.worker(**more)
        self.send(task, *(args or ["new"]))
        harness.eventually(until or (lambda: "Task tasks" in worker.log() and ("succeeded" in worker.log() or "raised" in worker.log())), 20)
        self.assertEqual(worker.stop(), 0)
        return worker

    SLOWLY = "tasks.sleep", 0.5  # what ends soon is not told to have begun

    def test_states_follow_each_other(self):
        self.run_one(*self.SLOWLY, task_track_started=True)
        self.assertEqual(self.state("t"), "SUCCESS")
        states = [self.find_state(a) for a in kit.writes(self.server.asked)]
        self.assertEqual([s for s in states if s], ["STARTED", "SUCCESS"])

    def find_state(self, ask):
        for state in ("STARTED", "SUCCESS", "FAILURE"):
            if f'"status": "{state}"' in ask.body.decode().replace("\\", ""):
                return state
        return None

    def test_a_success_stays(self):
        self.put(self.DOCS["SUCCESS"])
        self.run_one("tasks.fail", "late", task_track_started=True)
        self.assertEqual(kit.stored(self.server, "celery-task-meta-t"), json.loads(self.DOCS["SUCCESS"]))

    def test_a_result_is_forgotten(self):
        self.put(self.DOCS["SUCCESS"])
        web = harness.Web(self.url(), env=harness.environment("memory://", self.url(), self.conf())).start()
        self.addCleanup(web.kill_group)
        with urllib.request.urlopen(urllib.request.Request(web.url("/celery-task-meta-t"), method="DELETE"), timeout=10) as answer:
            self.assertEqual(answer.status, 204)
        self.assertIsNone(kit.stored(self.server, "celery-task-meta-t"))
        self.assertEqual(self.client("result", "t", "--state").stdout, "PENDING\n")

    def test_a_caller_waits(self):
        worker = self.worker()
        done = harness.apium("call", "tasks.add", "-a", "[2, 3]", "--wait", "--timeout", "20",
                             env=harness.environment(servers.redis.url(self.db), self.url(), self.conf()))
        self.assertEqual((done.returncode, done.stdout.split()[-1:]), (0, ["5"]), done.stderr)
        self.assertEqual(worker.stop(), 0)

    def test_a_chord_is_unlocked_by_looking(self):
        self.records = harness.folder("flows") / "records"
        self.records.touch()
        conf = self.conf(result_chord_retry_interval=0.2)
        where = harness.environment(servers.redis.url(self.db), self.url(), conf)
        worker = self.worker(module=harness.FLOWS, result_chord_retry_interval=0.2)
        bodies = harness.send_chords(where, f"{self.scheme}-b", 2, 5)
        harness.eventually(lambda: set(harness.states(where, bodies).values()) == {"SUCCESS"}, 40, lambda: worker.log()[-2000:], every=0.2)
        begins = [line.split()[1] for line in self.records.read_text().splitlines() if line.startswith("begin ") and "." not in line.split()[1]]
        self.assertEqual(len(begins), len(set(begins)), "every body ran once")
        self.assertEqual(worker.stop(), 0)

    # ---- trouble ----

    def test_a_server_in_trouble_is_asked_again(self):
        troubles = [(503, {"Retry-After": "1"}, b""), (429, {}, b""), (500, {}, b"oops")]
        usual = self.server.answer
        self.server.answer = lambda *ask: troubles.pop(0) if troubles and ask[0] == "PUT" else usual(*ask)
        self.run_one(until=lambda: self.state("t") == "SUCCESS")
        self.assertEqual(troubles, [])

    def test_a_worker_waits_until_the_store_lets_it_begin(self):
        troubles = [(400, {}, b'{"error": {"reason": "not yet"}}')]
        usual = self.server.answer
        self.server.answer = lambda *ask: troubles.pop(0) if troubles else usual(*ask)
        self.run_one(until=lambda: self.state("t") == "SUCCESS")
        self.assertLess(len(self.server.asked), 12)

    def test_what_the_server_says_is_said(self):
        for status, headers, body, words in ((400, {}, b'{"error": {"reason": "no such thing"}}', "answers 400: no such thing"),
                                             (403, {}, b"<Error><Code>Closed</Code><Message>go</Message></Error>", "answers 403: Closed: go"),
                                             (301, {"Location": "/"}, b"", "redirections are not followed")):
            self.server.answer = lambda *_, s=status, h=headers, b=body: (s, h, b)
            done = self.client("result", "t", "--state")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)

    def test_an_answer_that_makes_no_sense_is_an_error(self):
        usual = self.server.answer
        for text in (b"", b"[", b"{}", b"[{}]", b'{"found": 7}', b'[{"ModifyIndex": "x"}]', b"null"):
            self.server.answer = lambda *ask, t=text: (200, {}, t) if ask[0] == "GET" else usual(*ask)
            done = self.client("result", "t", "--timeout", "2")
            self.assertNotEqual(done.returncode, 0, text)


class Conditional(Preset):
    """Those whose writes are under the version that was read."""

    def race(self, first, then, wanted):
        """`then` is stored between the worker's last look and its writing."""
        if first:
            self.put(first)

        def meanwhile(server, method, path):
            if method in ("PUT", "POST") and "celery-task-meta-t" in path:
                server.meanwhile = None
                self.put(then)
        self.server.meanwhile = meanwhile
        self.run_one("tasks.fail", "late")
        self.assertIsNone(self.server.meanwhile)
        self.assertEqual(self.state("t"), wanted)

    def test_a_success_that_comes_between_stays(self):
        self.race(None, self.DOCS["SUCCESS"], "SUCCESS")

    def test_a_success_that_comes_over_another_state_stays(self):
        self.race(self.DOCS["STARTED"], self.DOCS["SUCCESS"], "SUCCESS")

    def test_another_state_that_comes_between_is_overwritten(self):
        self.race(None, self.DOCS["STARTED"], "FAILURE")
        self.race(self.DOCS["STARTED"], self.DOCS["STARTED"], "FAILURE")

    def test_a_document_that_changes_all_the_time_is_given_up(self):
        def meanwhile(server, method, path):
            if method in ("PUT", "POST") and "celery-task-meta-t" in path:
                self.put(self.DOCS["STARTED"])
        self.server.meanwhile = meanwhile
        worker = self.worker()
        self.send("tasks.echo", 1)
        harness.eventually(lambda: "says each time that it has changed" in worker.log(), 20, worker.log)
        self.server.meanwhile = None
        self.assertEqual(worker.stop(), 0)


class CouchDB(Conditional, unittest.TestCase):
    scheme = "couchdb"
    db = 10

    def test_the_database_is_made(self):
        self.run_one()
        self.assertEqual(self.server.databases, {"results"})

    def test_a_password_is_sent_and_not_shown(self):
        done = harness.apium("result", "t", "--state", env=harness.environment("memory://", self.url(user="ann:hidden@")))
        self.assertEqual(done.stdout, "PENDING\n")
        self.assertEqual(self.server.asked[-1].headers["Authorization"], "Basic YW5uOmhpZGRlbg==")
        self.server.answer = lambda *_: (401, {}, {"error": "unauthorized", "reason": "Name or password is incorrect."})
        done = harness.apium("result", "t", "--state", env=harness.environment("memory://", self.url(user="ann:hidden@")))
        self.assertIn("401", done.stderr)
        self.assertNotIn("hidden", done.stderr)


class Consul(Conditional, unittest.TestCase):
    scheme = "consul"
    db = 11

    def key(self):
        return self.server.docs["celery/results/celery-task-meta-t"]

    def test_a_result_expires_with_its_session(self):
        self.run_one(*self.SLOWLY, task_track_started=True, result_expires=60)
        session = self.key()["session"]
        self.assertEqual((self.server.sessions[session]["ttl"], self.server.sessions[session]["behavior"]), ("60s", "delete"))
        self.assertEqual(list(self.server.sessions), [session])
        self.assertTrue(any(a.path.startswith("/v1/session/renew/") for a in self.server.asked))
        self.server.end_session(session)
        self.assertEqual(self.client("result", "t", "--state").stdout, "PENDING\n")

    def test_a_result_that_does_not_expire_has_no_session(self):
        self.run_one(*self.SLOWLY, task_track_started=True, result_expires=0)
        self.assertEqual((self.state("t"), self.server.sessions), ("SUCCESS", {}))

    def test_a_session_that_ended_too_soon_is_made_again(self):
        def meanwhile(server, method, path):
            if "celery-task-meta-t" in path and method == "PUT":
                server.meanwhile = None
                server.sessions.clear()
        self.server.meanwhile = meanwhile
        self.run_one(until=lambda: self.state("t") == "SUCCESS")
        self.assertEqual(len(self.server.sessions), 1)

    def test_a_key_that_cannot_be_locked_is_stored_all_the_same(self):
        usual = self.server.answer
        self.server.answer = lambda *ask: (200, {}, False) if "acquire" in ask[2] else usual(*ask)
        self.run_one(until=lambda: self.state("t") == "SUCCESS")
        self.assertEqual(self.server.sessions, {}, "those that were of no use are gone")

    def test_a_time_that_no_session_lives_is_refused(self):
        for seconds in (5, 100000):
            done = self.client("result", "t", "--state", result_expires=seconds)
            self.assertEqual(done.returncode, 78)
            self.assertIn("10 to 86400 seconds", done.stderr)

    def test_a_result_too_big_for_consul_fails_alone(self):
        usual = self.server.answer
        self.server.answer = lambda *ask: (413, {}, b"Value for key exceeds size limit") if len(ask[4]) > 524288 else usual(*ask)
        worker = self.worker()
        self.send("tasks.echo", "x" * 600000)
        self.send("tasks.echo", "x", task_id="small")
        harness.eventually(lambda: self.state("small") == "SUCCESS", 20)
        harness.eventually(lambda: "exceeds size limit" in worker.log(), 20, worker.log)
        self.assertEqual(worker.stop(), 0)


class Elasticsearch(Conditional, unittest.TestCase):
    scheme = "elasticsearch"
    db = 12

    def test_a_failure_stays_when_an_older_state_comes(self):
        self.put(self.DOCS["FAILURE"])
        self.run_one(*self.SLOWLY, task_track_started=True)
        states = [self.find_state(a) for a in kit.writes(self.server.asked)]
        self.assertEqual(states, ["SUCCESS"], "STARTED was left out")

    def test_documents_that_can_be_searched(self):
        conf = {"elasticsearch_save_meta_as_text": False}
        kit.by_apium(self.server, servers.redis, **conf)
        ours = {i: kit.document(kit.stored(self.server, f"celery-task-meta-{i}")) for i in kit.TASKS}
        self.assertEqual(ours[SUM]["result"], "5")
        self.assertEqual(self.client("result", SUM, **conf).stdout, "5\n")
        self.assertEqual(self.client("result", SUM).stdout, "5\n")
        self.assertIn("ValueError: boom", self.client("result", FAIL).stderr)
        if not self.library():
            return
        with recorder.Elasticsearch() as other:
            kit.by_celery(other, servers.redis, **conf)
            theirs = {i: kit.document(kit.stored(other, f"celery-task-meta-{i}")) for i in kit.TASKS}
        for one in (*ours.values(), *theirs.values()):
            one["result"] = json.loads(one["result"])
        self.assertEqual(ours, theirs)

    def test_a_type_in_the_url(self):
        done = harness.apium("result", "t", "--state", env=harness.environment("memory://", self.server.url("/i/backend")))
        self.assertEqual((done.stdout, self.server.asked[-1].path), ("PENDING\n", "/i/backend/celery-task-meta-t"))


class S3(Preset, unittest.TestCase):
    scheme = "s3"
    db = 13

    def test_the_alias_is_celerys(self):
        done = harness.apium("result", "t", "--state", env=harness.environment("memory://", "s3", self.conf()))
        self.assertEqual(done.stdout, "PENDING\n", done.stderr)

    def test_keys_of_the_environment(self):
        conf = self.conf()
        env = {"AWS_ACCESS_KEY_ID": conf.pop("s3_access_key_id"), "AWS_SECRET_ACCESS_KEY": conf.pop("s3_secret_access_key"),
               "AWS_SESSION_TOKEN": "t0ken", "AWS_DEFAULT_REGION": conf.pop("s3_region")}
        done = harness.apium("result", "t", "--state", env={**harness.environment("memory://", "s3://", conf), **env})
        self.assertEqual(done.stdout, "PENDING\n", done.stderr)
        self.assertEqual(self.server.asked[-1].headers["X-Amz-Security-Token"], "t0ken")
        self.assertIn("x-amz-security-token", self.server.asked[-1].headers["Authorization"])

    def test_ids_of_any_letters_are_signed(self):
        for task_id in ("a/b", "a b+c", "é%", "~.-_", "a//b", "x?y#z&", "a/../b", "a/./b/.."):
            done = self.client("result", task_id, "--state")
            self.assertEqual(done.stdout, "PENDING\n", done.stderr)

    def test_what_is_missing_is_named(self):
        for name, words in (("s3_bucket", "s3_bucket is not set"), ("s3_access_key_id", "s3_access_key_id is not set"),
                            ("s3_secret_access_key", "s3_secret_access_key is not set")):
            conf = self.conf()
            del conf[name]
            done = harness.apium("result", "t", "--state", env=harness.environment("memory://", "s3://", conf))
            self.assertEqual(done.returncode, 78, done.stderr)
            self.assertIn(words, done.stderr)
        done = harness.apium("result", "t", "--state", env=harness.environment("memory://", "s3://another", self.conf()))
        self.assertIn("the bucket is s3_bucket", done.stderr)
        done = self.client("result", "t", "--state", s3_endpoint_url="ftp://x")
        self.assertIn("s3_endpoint_url", done.stderr)

    def test_no_secret_is_shown(self):
        done = harness.apium("report", "--all", env=harness.environment("memory://", "s3://", self.conf()))
        self.assertEqual(done.returncode, 0)
        self.assertNotIn(self.server.SECRET, done.stdout)

    def test_a_wrong_secret_and_a_bucket_that_is_not_there_are_said(self):
        done = self.client("result", "t", "--state", s3_secret_access_key="wrong")
        self.assertIn("SignatureDoesNotMatch", done.stderr)
        done = self.client("result", "t", "--state", s3_bucket="nobody")
        self.assertIn("NoSuchBucket", done.stderr)
        self.server.complaints.clear()

    def test_a_big_result(self):
        worker = self.worker()
        self.send("tasks.echo", "x" * 3000000)
        harness.eventually(lambda: self.state("t") == "SUCCESS", 30, worker.log)
        self.assertEqual(worker.stop(), 0)


class Swift(unittest.TestCase):
    """A real server that speaks S3, and checks signatures: OpenStack Swift."""

    @classmethod
    def setUpClass(cls):
        python = "/usr/bin/python3"  # Debian's, to which Swift belongs
        if subprocess.run([python, "-c", "import swift.common.middleware.s3api"], check=False, stderr=subprocess.DEVNULL).returncode:
            harness.lacking("python3-swift")
        port = harness.free_port()
        cls.server = harness.Process("swift", None)
        cls.server.argv = [python, str(harness.ROOT / "tests" / "support" / "swift_s3.py"), str(cls.server.folder), str(port)]
        cls.server.start()
        cls.addClassCleanup(cls.server.kill_group)
        harness.eventually(lambda: "ready" in cls.server.log() or not cls.server.alive(), 60)
        if not cls.server.alive():
            raise AssertionError(cls.server.log())
        cls.conf = {"s3_bucket": "results", "s3_endpoint_url": f"http://127.0.0.1:{port}", "s3_region": "us-east-1", "s3_base_path": "a b/+/",
                    "s3_access_key_id": "test:tester", "s3_secret_access_key": "testing", "result_extended": True}
        import boto3
        cls.boto = boto3.client("s3", endpoint_url=cls.conf["s3_endpoint_url"], aws_access_key_id="test:tester", aws_secret_access_key="testing",
                                region_name="us-east-1")
        cls.boto.create_bucket(Bucket="results")
        cls.app = harness.app(servers.redis.url(14), "s3://", **cls.conf)

    def client(self, *args, **more):
        return harness.apium(*args, env=harness.environment(servers.redis.url(14), "s3://", {**self.conf, **more}))

    def test_results_go_both_ways(self):
        worker = harness.Worker(servers.redis.url(14), "s3://", "-c", "2", conf={**self.conf, "task_track_started": True}).start()
        self.addCleanup(worker.kill_group)
        runs = [self.app.send_task("tasks.add", (n, 1)) for n in range(50)]
        self.assertEqual([run.get(timeout=30) for run in runs], [n + 1 for n in range(50)])
        text = "\u00e9 \U0001f600" + "x" * 2000000
        self.assertEqual(self.app.send_task("tasks.echo", (text,)).get(timeout=30), text)
        with self.assertRaisesRegex(ValueError, "boom"):
            self.app.send_task("tasks.fail", ("boom",)).get(timeout=30)
        self.assertEqual(worker.stop(), 0)
        self.assertIn(f"a b/+/celery-task-meta-{runs[0].id}", [o["Key"] for o in self.boto.list_objects_v2(Bucket="results")["Contents"]])
        self.app.backend.store_result("theirs", {"k": [1, None]}, "SUCCESS")
        self.assertEqual(json.loads(self.client("result", "theirs").stdout), {"k": [1, None]})
        self.assertEqual(self.client("result", "never", "--state").stdout, "PENDING\n")

    def test_ids_of_any_letters(self):
        for task_id in ("a/b", "a b+c", "é%", "~.-_", "x?y#z&", "(a)*'!"):
            self.app.backend.store_result(task_id, task_id, "SUCCESS")
            done = self.client("result", task_id)
            self.assertEqual(done.stdout, json.dumps(task_id) + "\n", done.stderr)

    def test_a_result_is_forgotten(self):
        self.app.backend.store_result("old", 1, "SUCCESS")
        web = harness.Web("s3://", env=harness.environment("memory://", "s3://", self.conf)).start()
        self.addCleanup(web.kill_group)
        with urllib.request.urlopen(urllib.request.Request(web.url("/celery-task-meta-old"), method="DELETE"), timeout=10) as answer:
            self.assertEqual(answer.status, 204)
        self.assertEqual(self.app.AsyncResult("old").state, "PENDING")

    def test_what_is_wrong_is_said(self):
        self.assertIn("SignatureDoesNotMatch", self.client("result", "t", "--state", s3_secret_access_key="wrong").stderr)
        self.assertIn("NoSuchBucket", self.client("result", "t", "--state", s3_bucket="nobody").stderr)


if __name__ == "__main__":
    harness.main()
