"""apium web, from outside: the result protocol, and input that means harm."""
import base64
import concurrent.futures
import http.client
import json
import os
import random
import re
import socket
import ssl
import subprocess
import threading
import time
import unittest

import harness


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def ask(web, method, path, body=None, headers=None, timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=timeout)
    try:
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def raw(web, data, timeout=10):
    """Send bytes as they are; what comes back until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", web.port), timeout) as sock:
        sock.sendall(data)
        got = b""
        try:
            while chunk := sock.recv(65536):
                got += chunk
                if b"\r\n\r\n" in got:
                    head, _, rest = got.partition(b"\r\n\r\n")
                    length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                    if length and len(rest) >= length[0]:
                        break
        except (TimeoutError, ConnectionResetError):
            pass
        return got


class Case(unittest.TestCase):
    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.web = harness.Web(None, *cls.OPTIONS).start()

    @classmethod
    def tearDownClass(cls):
        assert cls.web.stop() == 0, cls.web.log()[-4000:]

    def ask(self, *args, **kwargs):
        return ask(self.web, *args, **kwargs)

    def refused(self, status, *args, **kwargs):
        """The answer is an error in the one form that errors have."""
        reply = self.ask(*args, **kwargs)
        self.assertEqual(reply.status, status, reply.body)
        self.assertEqual(reply.json()["error"]["status"], status)
        self.assertTrue(reply.json()["error"]["message"])
        return reply

    def alive(self):
        self.assertTrue(self.web.alive(), self.web.log()[-4000:])
        self.assertEqual(self.ask("GET", "/").json()["apium"], 1)


class Keys(Case):
    def test_a_document_comes_back_byte_for_byte(self):
        text = '{"status": "SUCCESS",  "result": [1, 1.0, NaN, 12345678901234567890123, "\\ud83d"]}'
        self.assertEqual(self.ask("PUT", "/celery-task-meta-a", text).status, 204)
        self.assertEqual(self.ask("GET", "/celery-task-meta-a").body.decode(), text)

    def test_nothing_overwrites_a_success(self):
        self.ask("PUT", "/celery-task-meta-b", {"status": "STARTED"})
        self.ask("PUT", "/celery-task-meta-b", {"status": "SUCCESS", "result": 1})
        self.assertEqual(self.ask("PUT", "/celery-task-meta-b", {"status": "FAILURE"}).status, 204)
        self.assertEqual(self.ask("GET", "/celery-task-meta-b").json()["status"], "SUCCESS")
        self.assertEqual(self.ask("DELETE", "/celery-task-meta-b").status, 204)
        self.refused(404, "GET", "/celery-task-meta-b")

    def test_a_document_that_has_not_changed_is_not_sent(self):
        self.ask("PUT", "/celery-task-meta-c", {"status": "STARTED"})
        tag = self.ask("GET", "/celery-task-meta-c").headers["ETag"]
        same = self.ask("GET", "/celery-task-meta-c", headers={"If-None-Match": tag})
        self.assertEqual((same.status, same.body), (304, b""))
        self.ask("PUT", "/celery-task-meta-c", {"status": "RETRY"})
        self.assertEqual(self.ask("GET", "/celery-task-meta-c", headers={"If-None-Match": tag}).status, 200)

    def test_many_come_in_one_request(self):
        for i in range(3):
            self.ask("PUT", f"/celery-task-meta-many{i}", {"status": "SUCCESS", "result": i})
        got = self.ask("POST", "/keys", ["many0", "many2", "none"]).json()
        self.assertEqual({k: v["result"] for k, v in got.items()}, {"many0": 0, "many2": 2})

    def test_a_result_expires(self):
        self.ask("PUT", "/celery-task-meta-brief?expires=1", {"status": "SUCCESS"})
        self.assertEqual(self.ask("GET", "/celery-task-meta-brief").status, 200)
        harness.eventually(lambda: self.ask("GET", "/celery-task-meta-brief").status == 404)

    def test_an_id_may_be_any_text(self):
        for path in ("..%2F..%2Fetc%2Fpasswd", "%22%27%3B--", "%C3%A9", "a%20b"):
            self.assertEqual(self.ask("PUT", f"/celery-task-meta-{path}", {"status": "SUCCESS"}).status, 204, path)
            self.assertEqual(self.ask("GET", f"/celery-task-meta-{path}").status, 200, path)

    def test_results_outlive_the_server(self):
        web = harness.Web().start()
        self.addCleanup(web.kill_group)
        ask(web, "PUT", "/celery-task-meta-kept", {"status": "SUCCESS", "result": 5})
        web.kill()
        web.start()
        self.assertEqual(ask(web, "GET", "/celery-task-meta-kept").json()["result"], 5)
        self.assertEqual(web.stop(), 0)


class Leaving(Case):
    def test_who_leaves_in_the_midst_of_a_request_is_let_go(self):
        for part in (b"", b"GET /celery-task-meta-a HTTP/1.1\r\nHo", b"PUT /celery-task-meta-a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"):
            with socket.create_connection(("127.0.0.1", self.web.port), 10) as sock:
                sock.sendall(part)
                sock.shutdown(socket.SHUT_WR)
                self.assertNotIn(b" 200 ", sock.recv(65536))


class Waiting(Case):
    def wait_for(self, path, then, **kwargs):
        """Ask, and store once the question waits; the answer and how long it took after that."""
        out = []
        thread = threading.Thread(target=lambda: out.append((self.ask("GET", path, **kwargs), time.monotonic())))
        before = connections(self.web.port)
        thread.start()
        harness.eventually(lambda: connections(self.web.port) > before)
        start = time.monotonic()
        then()
        thread.join(15)
        return out[0][0], out[0][1] - start

    def test_a_wait_ends_with_the_document(self):
        reply, took = self.wait_for("/celery-task-meta-w1?wait=10",
                                    lambda: self.ask("PUT", "/celery-task-meta-w1", {"status": "SUCCESS"}))
        self.assertEqual(reply.status, 200)
        self.assertLess(took, 2)

    def test_a_wait_for_another_document_passes_over_the_same(self):
        self.ask("PUT", "/celery-task-meta-w2", {"status": "STARTED"})
        tag = self.ask("GET", "/celery-task-meta-w2").headers["ETag"]
        reply, _ = self.wait_for("/celery-task-meta-w2?wait=10",
                                 lambda: self.ask("PUT", "/celery-task-meta-w2", {"status": "SUCCESS"}),
                                 headers={"If-None-Match": tag})
        self.assertEqual((reply.status, reply.json()["status"]), (200, "SUCCESS"))

    def test_a_wait_is_over_in_time(self):
        start = time.monotonic()
        self.refused(404, "GET", "/celery-task-meta-never?wait=0.3")
        self.assertGreater(time.monotonic() - start, 0.25)
        self.ask("PUT", "/celery-task-meta-same", {"status": "STARTED"})
        tag = self.ask("GET", "/celery-task-meta-same").headers["ETag"]
        self.assertEqual(self.ask("GET", "/celery-task-meta-same?wait=0.3", headers={"If-None-Match": tag}).status, 304)
        self.refused(400, "GET", "/celery-task-meta-never?wait=long")

    def test_a_session_sees_every_state_in_order(self):
        first = self.ask("POST", "/watches/s1?wait=10", {"add": ["x", "y"]}).json()
        self.assertEqual(first, {"fresh": True, "changes": []})
        for i in range(5):
            self.ask("PUT", "/celery-task-meta-x", {"status": "PROGRESS", "result": i})
        seen, states = 0, []
        while len(states) < 5:
            for number, task, doc in self.ask("POST", "/watches/s1?wait=10", {"seen": seen}).json()["changes"]:
                self.assertEqual((number, task), (seen + 1, "x"))
                seen = number
                states.append(doc["result"])
        self.assertEqual(states, list(range(5)))
        self.assertEqual(self.ask("POST", "/watches/s1?wait=0.1", {"seen": seen, "remove": ["x"]}).json(),
                         {"fresh": False, "changes": []})

    def test_changes_are_given_again_until_they_are_confirmed(self):
        self.ask("POST", "/watches/s2?wait=0", {"add": ["z"]})
        self.ask("PUT", "/celery-task-meta-z", {"status": "SUCCESS"})
        for _ in range(2):
            self.assertEqual(len(self.ask("POST", "/watches/s2?wait=10", {"seen": 0}).json()["changes"]), 1)
        self.assertEqual(self.ask("POST", "/watches/s2?wait=0.1", {"seen": 1}).json()["changes"], [])

    def test_whoever_leaves_frees_its_wait(self):
        sock = socket.create_connection(("127.0.0.1", self.web.port))
        before = connections(self.web.port)
        sock.sendall(b"GET /celery-task-meta-left?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.close()
        harness.eventually(lambda: connections(self.web.port) < before, what="the connection is gone")
        self.alive()

    def test_a_thousand_idle_waits_cost_little(self):
        before = harness.pss_kib(self.web.pid)
        socks = []
        try:
            for i in range(1000):
                sock = socket.create_connection(("127.0.0.1", self.web.port))
                sock.sendall(b"GET /celery-task-meta-idle%d?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n" % i)
                socks.append(sock)
            self.ask("PUT", "/celery-task-meta-idle999", {"status": "SUCCESS"})
            self.assertIn(b"200 OK", socks[999].recv(4096))
            grown = harness.pss_kib(self.web.pid) - before
            print(f"1,000 idle long polls: {grown} KiB")
            if not harness.SANITIZED:
                self.assertLess(grown, 20000)
        finally:
            for sock in socks:
                sock.close()
        self.alive()


def connections(port):
    """Established connections to a port, as the kernel sees them on the server's side."""
    count = 0
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            words = line.split()
            count += words[1].endswith(f":{port:04X}") and words[3] == "01"
    return count


class Races(Case):
    def test_deletes_race_with_waits(self):
        """Each wait ends with a document that was there, or with none in time; none is left."""
        stop, bad, ended = threading.Event(), [], [0, 0]

        def write(n):
            i = 0
            while not stop.is_set():
                i += 1
                task = f"race-{(i + n) % 7}"
                self.ask("PUT", f"/celery-task-meta-{task}", {"status": "SUCCESS" if i % 2 else "STARTED", "result": i})
                self.ask("DELETE", f"/{'tasks/' if i % 3 else 'celery-task-meta-'}{task}")

        def wait(n):
            i = 0
            while not stop.is_set():
                i += 1
                path = (f"/celery-task-meta-race-{(i + n) % 7}?wait=0.3", f"/tasks/race-{(i + n) % 7}?wait=0.3")[i % 2]
                start = time.monotonic()
                reply = self.ask("GET", path)
                ended[reply.status == 200] += 1
                if reply.status not in (200, 404) or time.monotonic() - start > 5:
                    bad.append((path, reply.status, reply.body))
                if reply.status == 200 and path.startswith("/celery") and "result" not in reply.json():
                    bad.append((path, reply.body))
        threads = [threading.Thread(target=f, args=(n,)) for n in range(4) for f in (write, wait, wait)]
        for thread in threads:
            thread.start()
        time.sleep(4)
        stop.set()
        for thread in threads:
            thread.join(20)
        self.assertEqual(bad, [])
        self.assertGreater(ended[1], 20, ended)
        waiting = lambda: int(re.search(rb"^apium_web_waiting (\d+)$", self.ask("GET", "/metrics").body, re.M).group(1))
        harness.eventually(lambda: waiting() == 0, 5)

    def test_watches_and_streams_of_what_is_deleted_go_on(self):
        self.ask("POST", "/watches/del?wait=0", {"add": ["gone"]})
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=10)
        self.addCleanup(connection.close)
        connection.request("GET", "/events?ids=gone")
        stream = connection.getresponse()
        for state in ("STARTED", "SUCCESS"):
            self.ask("PUT", "/celery-task-meta-gone", {"status": state})
            self.ask("DELETE", "/tasks/gone")
        seen, states = 0, []
        while states[-1:] != ["SUCCESS"]:
            for number, _, doc in self.ask("POST", "/watches/del?wait=10", {"seen": seen}).json()["changes"]:
                seen = number
                states.append(doc["status"])
        text = b""
        while b"SUCCESS" not in text:
            text += stream.readline()


class Full(Case):
    OPTIONS = ("--max-connections", "50")

    def test_a_server_that_is_full_serves_again(self):
        socks = []
        for _ in range(120):
            sock = socket.socket()
            sock.settimeout(2)
            sock.connect(("127.0.0.1", self.web.port))
            sock.sendall(b"GET /celery-task-meta-x?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            socks.append(sock)
        harness.eventually(lambda: connections(self.web.port) >= 50)
        for sock in socks:
            sock.close()
        harness.eventually(lambda: self.answers(), 20)
        self.alive()

    def answers(self):
        try:
            return self.ask("GET", "/", timeout=2).status == 200
        except OSError:
            return False


class Chords(Case):
    def test_parts_count_once_and_the_claimant_may_repeat_itself(self):
        group = "/celery-taskset-meta-g1"
        self.assertEqual(self.ask("PUT", f"{group}/size", "2").status, 204)
        for _ in range(2):
            self.assertEqual(self.ask("PUT", f"{group}/parts/a?index=1", [1, "a", "SUCCESS", 5]).json(), {"parts": 1, "complete": False})
        for _ in range(2):
            self.assertEqual(self.ask("PUT", f"{group}/parts/b?index=0", [1, "b", "SUCCESS", 6]).json(), {"parts": 2, "complete": True})
        for _ in range(2):
            self.assertEqual(self.ask("PUT", f"{group}/claim", '"me"').status, 204)
            self.refused(409, "PUT", f"{group}/claim", '"you"')
            self.assertEqual([m[3] for m in self.ask("GET", f"{group}/parts").json()["parts"]], [6, 5], "a claim keeps the parts")
        self.web.kill()
        self.web.start()
        self.refused(409, "PUT", f"{group}/claim", '"you"')
        self.assertEqual(self.ask("DELETE", f"{group}/parts").status, 204)
        self.refused(404, "GET", f"{group}/parts")
        self.refused(404, "DELETE", f"{group}/parts")
        self.assertEqual(self.ask("PUT", f"{group}/claim", '"me"').status, 204, "a late repetition")
        self.refused(409, "PUT", f"{group}/claim", '"you"')
        self.refused(409, "PUT", "/celery-taskset-meta-nobody/claim", '"me"')
        self.assertEqual(self.ask("PUT", f"{group}/size", "1").status, 204, "the same chord is sent again")
        self.assertEqual(self.ask("PUT", f"{group}/parts/c", [1, "c", "SUCCESS", 7]).json(), {"parts": 1, "complete": True})
        self.assertEqual(self.ask("PUT", f"{group}/claim", '"you"').status, 204)
        self.refused(409, "PUT", f"{group}/claim", '"me"')
        for body in ("5", '""', "[]", json.dumps("x" * 513), ""):
            self.refused(400, "PUT", f"{group}/claim", body)

    def test_a_claim_has_one_claimant_of_many(self):
        self.ask("PUT", "/celery-taskset-meta-g9/size", "1")
        self.ask("PUT", "/celery-taskset-meta-g9/parts/a", [1, "a", "SUCCESS", 5])
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda n: (n % 8, self.ask("PUT", "/celery-taskset-meta-g9/claim", json.dumps(f"n{n % 8}")).status), range(64)))
        self.assertEqual(len({n for n, status in got if status == 204}), 1, got)
        self.assertEqual({status for _, status in got}, {204, 409})

    def test_a_claim_in_units_is_by_name(self):
        self.ask("POST", "/units", [{"ops": [["expect", "g8", 300]]}])
        for n in range(300):
            self.ask("POST", "/units", [{"ops": [["arrive", "g8", f"p{n}", n, [1, f"p{n}", "SUCCESS", n]]]}])
        claim = lambda who: self.ask("POST", "/units", [{"ops": [["claim", "g8", who]]}]).json()[0]  # noqa: E731
        self.assertEqual([claim("a"), claim("a")], [{"completed": 0}] * 2)
        self.assertEqual(claim("b")["error"]["status"], 409)
        self.assertEqual(len(self.ask("GET", "/celery-taskset-meta-g8/parts").json()["parts"]), 300)
        self.assertEqual(self.ask("POST", "/units", [{"id": "t", "ops": [["take", "g8"]]}]).json(), [{"completed": 0}])
        self.assertEqual(claim("a"), {"completed": 0})
        self.assertEqual(claim("b")["error"]["status"], 409)

    def test_a_group_is_kept_with_its_parts(self):
        group = "/celery-taskset-meta-g2"
        self.assertEqual(self.ask("PUT", group, {"result": [["g2", None], []]}).status, 204)
        self.assertEqual(self.ask("GET", group).json()["result"], [["g2", None], []])
        self.ask("PUT", f"{group}/size", "1")
        self.ask("PUT", f"{group}/parts/a", [1, "a", "SUCCESS", 5])
        self.assertEqual(self.ask("GET", f"{group}/parts").json()["tree"], {"result": [["g2", None], []]})
        self.assertEqual(self.ask("DELETE", group).status, 204)
        self.refused(404, "GET", group)

    def test_a_unit_that_comes_again_extends_once(self):
        self.ask("POST", "/units", [{"ops": [["expect", "g3", 1]]}])
        for _ in range(3):
            self.assertEqual(self.ask("POST", "/units", [{"id": "once", "ops": [["extend", "g3", 1]]}]).json(), [{"completed": 0}])
        self.assertEqual(self.ask("POST", "/units", [{"ops": [["arrive", "g3", "a", 0, [1]]]}]).json(), [{"completed": 0}])
        self.assertEqual(self.ask("POST", "/units", [{"ops": [["arrive", "g3", "b", 0, [1]]]}]).json(), [{"completed": 1}])

    def test_what_the_store_does_not_tell_of_a_unit_is_no_success(self):
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        web = harness.Web(redis.url()).start()
        self.addCleanup(web.stop)
        redis.client().lpush("celery-task-meta-apium-once/k", "no document")
        units = [{"ops": [["record", "t1", "SUCCESS", {"status": "SUCCESS"}]]}, {"id": "k", "ops": [["extend", "g", 1]]}]
        for n in range(2):
            self.assertEqual(ask(web, "POST", "/units", units).status, 500)
            self.assertEqual(ask(web, "GET", "/celery-task-meta-t1").status, 404)
        redis.client().delete("celery-task-meta-apium-once/k")
        self.assertEqual(ask(web, "POST", "/units", units[:1]).json(), [{"completed": 0}])

    def test_a_refused_claim_takes_its_unit_with_it(self):
        got = self.ask("POST", "/units", [{"id": "k", "ops": [["record", "t1", "SUCCESS", {"status": "SUCCESS"}], ["take", "none"]]},
                                          {"ops": [["record", "t2", "SUCCESS", {"status": "SUCCESS"}]]}]).json()
        self.assertEqual(got[0]["error"]["status"], 409)
        self.assertEqual(got[1], {"completed": 0})
        self.refused(404, "GET", "/celery-task-meta-t1")
        self.assertEqual(self.ask("GET", "/celery-task-meta-t2").status, 200)


class BadInput(Case):
    OPTIONS = ("--max-body", "1")

    def test_what_is_no_json_is_refused(self):
        for body in ("", "{", "[1", '{"status"}', "nonsense", "[]", '{"status": 1}', "{}", "[" * 600, b"\xff\xfe",
                     '{"status": "SUCCESS"} x'):
            self.refused(400, "PUT", "/celery-task-meta-bad", body)
        self.refused(404, "GET", "/celery-task-meta-bad")

    def test_units_that_make_no_sense_change_nothing(self):
        good = ["record", "never", "SUCCESS", {"status": "SUCCESS"}]
        for unit in (1, None, {}, {"ops": 1}, {"ops": [1]}, {"ops": [[]]}, {"ops": [["nosuch"]]}, {"ops": [["claim"]]},
                     {"ops": [["take", 5]]}, {"ops": [["take", ""]]}, {"ops": [["take", "a\0b"]]}, {"ops": [["take"]]},
                     {"ops": [["claim", "g"]]}, {"ops": [["claim", "g", ""]]}, {"ops": [["claim", "g", 5]]}, {"ops": [["claim", "g", "me"], good]},
                     {"ops": [["claim", "g", "x" * 513]]}, {"ops": [["expect", "g", -1]]},
                     {"ops": [["expect", "g", 1.5]]}, {"ops": [["expect", "g", 10**30]]}, {"ops": [["check", "g"], good]},
                     {"ops": [["arrive", "g", str(i), i, [1]] for i in range(33)]}, {"id": "", "ops": [["take", "g"]]},
                     {"id": "x" * 999, "ops": [["take", "g"]]}, {"expires": "x", "ops": []}, {"expires": 1e300, "ops": []}):
            reply = self.ask("POST", "/units", [{"ops": [good]}, unit])
            self.assertIn(reply.status, (400, 413), unit)
        self.refused(404, "GET", "/celery-task-meta-never")
        self.refused(413, "POST", "/units", [{"ops": []}] * 2001)
        self.assertEqual(self.ask("POST", "/units", []).json(), [])

    def test_hostile_ids_are_refused(self):
        for path in ("", "a%00b", "%00", "x" * 513, "%FF%FE", "%", "%2", "%zz", "group%2Fx", "apium-once%2Fx", "apium-claim%2Fx"):
            self.refused(400, "GET", "/celery-task-meta-" + path)
        for path in ("/../../etc/passwd", "/celery-task-meta-../../x", "//", "/nothing", "/watches", "/celery-task-meta-a/b"):
            self.assertEqual(raw(self.web, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())[:12], b"HTTP/1.1 404", path)
        self.assertRegex(raw(self.web, b"GET /celery-task-meta-" + b"x" * 10240 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                         rb"^HTTP/1.1 4(00|14|31)|^$")
        self.refused(400, "POST", "/keys", ["a", "b\0c"])
        self.refused(400, "POST", "/keys", [{"a": 1}])
        self.refused(413, "POST", "/keys", ["a"] * 1001)
        self.alive()

    def test_hostile_ids_are_refused_wherever_they_may_stand(self):
        hostile = ("a%00b", "%00", "x" * 513, "%FF%FE", "%", "%zz", "group%2Fx", "apium-once%2Fx")
        for method, form in (("GET", "/tasks/%s"), ("DELETE", "/tasks/%s"), ("GET", "/tasks/%s/tree"), ("POST", "/tasks/%s/revoke"),
                             ("GET", "/groups/%s"), ("GET", "/celery-taskset-meta-%s/parts"), ("POST", "/watches/%s"),
                             ("PUT", "/celery-taskset-meta-g/parts/%s"), ("GET", "/api/task/info/%s"), ("GET", "/api/task/result/%s"),
                             ("POST", "/api/task/abort/%s"), ("POST", "/api/task/revoke/%s"), ("POST", "/api/task/send-task/%s")):
            for text in hostile:
                self.refused(400, method, form % text, "{}" if method in ("POST", "PUT") else None)
            self.assertEqual(raw(self.web, f"{method} {form % '../../etc/passwd'} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())[:12],
                             b"HTTP/1.1 404", form)
            self.assertRegex(raw(self.web, f"{method} {form % ('x' * 10240)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
                             rb"^HTTP/1.1 4(00|14|31)|^$", form)
        for query in ("%00", "a,%00", "%FF", "x" * 513, "group%2Fx"):
            self.refused(400, "GET", f"/events?ids={query}")
        self.refused(400, "POST", "/tasks/states", ["a\0b"])
        self.refused(400, "POST", "/tasks/states", ["x" * 513])
        self.refused(400, "POST", "/tasks", {"task": "a\0b"})
        self.refused(400, "POST", "/tasks", {"task": "t", "options": {"task_id": "a\0b"}})
        step = {"task": "t", "args": [], "kwargs": {}, "options": {"task_id": "a\0b"}, "subtask_type": None, "immutable": False}
        self.refused(400, "POST", "/tasks", {"task": "celery.chain", "args": [], "options": {}, "subtask_type": "chain", "immutable": False,
                                             "kwargs": {"tasks": [step, {**step, "options": {}}]}})
        self.alive()

    def test_two_lengths_of_one_body_are_no_second_request(self):
        hidden = b"PUT /celery-task-meta-hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 21\r\n\r\n{\"status\": \"SUCCESS\"}"
        for head in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(hidden),
                     b"Content-Length: %d\r\nContent-Length: 0\r\n\r\n" % len(hidden),
                     b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n" % len(hidden),
                     b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n\r\n" % len(hidden),
                     b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
                     b"Content-Length: +%d\r\n\r\n" % len(hidden), b"Content-Length: 0x%x\r\n\r\n" % len(hidden)):
            # A proxy that goes by the other length would have let the second request through as a body.
            self.assertIn(b"HTTP/1.1 400", raw(self.web, b"POST /keys HTTP/1.1\r\nHost: localhost\r\n" + head + hidden, 2), head)
            self.refused(404, "GET", "/celery-task-meta-hidden")
        self.alive()

    def test_a_method_that_does_not_fit_is_named(self):
        for method in ("POST", "PATCH", "TRACE", "CONNECT", "FOO"):
            reply = self.refused(405, method, "/celery-task-meta-a")
            self.assertEqual(reply.headers["Allow"], "GET, PUT, DELETE")
        self.assertEqual(self.ask("HEAD", "/").status, 200)

    def test_a_body_that_is_too_big_is_refused(self):
        self.refused(413, "PUT", "/celery-task-meta-big", b"x" * (1 << 20) + b"y")
        reply = raw(self.web, b"PUT /celery-task-meta-big HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
        self.assertTrue(reply.startswith(b"HTTP/1.1 413"), reply)
        reply = raw(self.web, b"PUT /celery-task-meta-big HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
                    b"10000\r\n" + b"x" * 65536 + b"\r\n" + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 16 + b"0\r\n\r\n")
        self.assertIn(b" 413 ", reply)
        self.assertNotIn(b" 200 ", raw(self.web, b"PUT /celery-task-meta-big HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"))
        self.alive()

    def test_what_is_no_http_is_refused(self):
        for data in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 20000, b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                     b"PUT /celery-task-meta-a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                     b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20000 + b"\r\n\r\n"):
            raw(self.web, data, 1)
        self.alive()

    def test_an_answer_has_no_header_of_the_askers(self):
        reply = raw(self.web, b"GET /celery-task-meta-a%0d%0aSet-Cookie:%20x=1 HTTP/1.1\r\nHost: localhost\r\n"
                    b"Origin: http://x%0d%0aSet-Cookie: y\r\n\r\n")
        self.assertNotIn(b"Set-Cookie", reply)

    def test_pages_of_other_origins_may_not_write(self):
        self.refused(403, "PUT", "/celery-task-meta-a", {"status": "SUCCESS"}, headers={"Origin": "http://evil.example"})
        for host in ("evil.example", "localhost.evil.example", "127.evil.example", "127.0.0.1.evil.example:8280", "[::1].evil.example", "127.0.0.1x"):
            reply = self.refused(403, "GET", "/health", headers={"Host": host})
            self.assertIn("Host", reply.json()["error"]["message"])
        for host in ("localhost", "LOCALHOST:8280", "127.0.0.1", "127.1.2.3:8280", "[::1]", "[::1]:8280"):
            self.assertEqual(self.ask("GET", "/health", headers={"Host": host}).status, 200, host)

    def test_memory_is_bounded_under_big_bodies(self):
        for _ in range(50):
            self.ask("PUT", "/celery-task-meta-fat", json.dumps({"status": "STARTED", "result": "x" * 900000}))
        before = harness.pss_kib(self.web.pid)
        for _ in range(50):
            self.ask("PUT", "/celery-task-meta-fat", json.dumps({"status": "STARTED", "result": "x" * 900000}))
        if not harness.SANITIZED:
            self.assertLess(harness.pss_kib(self.web.pid) - before, 20000)


class Fuzz(Case):
    """$WEB_FUZZ_SECONDS (3) seconds, from $WEB_FUZZ_SEED on, of requests that were good before somebody sat on the keyboard."""

    SEEDS = [
        ("GET", "/", ""), ("GET", "/celery-task-meta-a?wait=0.01", ""), ("PUT", "/celery-task-meta-a?expires=5", '{"status": "SUCCESS", "result": 1}'),
        ("PUT", "/celery-taskset-meta-g/parts/a?index=1", '[1, "a", "SUCCESS", 5]'), ("PUT", "/celery-taskset-meta-g/size", "2"),
        ("GET", "/celery-taskset-meta-g/parts", ""), ("PUT", "/celery-taskset-meta-g/claim", '"me"'), ("POST", "/keys", '["a", "b"]'),
        ("POST", "/units", '[{"id": "x", "expires": 5, "ops": [["record", "a", "SUCCESS", {"status": "SUCCESS"}], ["extend", "g", 1], '
                           '["arrive", "g", "a", 0, [1]], ["claim", "g"]]}, {"ops": [["check", "g"]]}]'),
        ("POST", "/watches/w?wait=0.01", '{"add": ["a", "b"], "remove": ["c"], "seen": 1}'), ("POST", "/tasks/states", '["a", "b"]'),
        ("GET", "/tasks/a?wait=0.01", ""), ("GET", "/tasks/a/tree", ""), ("GET", "/groups/g", ""), ("DELETE", "/tasks/a", ""),
        ("GET", "/api/task/info/a", ""), ("GET", "/api/task/result/a?timeout=0.01", ""), ("POST", "/api/task/abort/a", ""),
        ("PUT", "/celery-taskset-meta-t", '{"result": [["t", null], [[["a", null], null]]]}'), ("GET", "/groups/t", ""),
        ("PUT", "/celery-task-meta-p", '{"status": "SUCCESS", "parent_id": "a", "children": [[["a", null], [[["b", null], null]]]]}'),
        ("GET", "/tasks/p/tree", ""), ("GET", "/events?ids=a,b", ""), ("GET", "/metrics?names=a,b", ""), ("GET", "/openapi.json", ""),
        ("PUT", "/celery-task-meta-f", '{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["a", 1], "exc_module": "builtins"}, '
                                       '"traceback": "t", "children": [[["c", null], null]], "date_done": "2026-11-28T10:00:00.5+00:00", "name": "t.f", '
                                       '"args": [1, {"a": null}], "kwargs": {"k": "v"}, "worker": "w@h", "retries": 2, "queue": "q"}'),
        ("GET", "/api/task/info/f", ""), ("GET", "/api/tasks?limit=5&offset=1&sort_by=-name&state=FAILURE&taskname=t.f&workername=w@h", ""),
        ("GET", "/api/tasks?received_start=2026-11-28+10:00&received_end=2026-11-29%2010:00&sort_by=received", ""), ("GET", "/api/task/types", ""),
        ("POST", "/api/task/apply/t.f", '{"args": [1], "kwargs": {"a": 2}, "timeout": 0.01, "countdown": "5", "eta": "2026-11-28 10:00:00.0"}'),
        ("POST", "/api/task/async-apply/t.f", '{"args": [], "expires": "2026-11-28 10:00:00.5", "queue": "q", "priority": 3}'),
        ("POST", "/api/task/send-task/t.f", '{"args": [[[]]], "task_id": "own"}'), ("POST", "/api/task/revoke/a?terminate=true&signal=SIGKILL", ""),
        ("POST", "/api/worker/pool/grow/w@h?n=1", ""), ("GET", "/queues?names=a,b", ""), ("GET", "/api/queues/length?names=q", ""),
        ("POST", "/tasks", '[{"task": "t.f", "args": [1], "options": {"countdown": 1}}, {"task": "celery.chord", "args": [], "options": {}, '
                           '"subtask_type": "chord", "immutable": false, "kwargs": {"kwargs": {}, "header": [{"task": "t", "args": [], "kwargs": {}, '
                           '"options": {}, "subtask_type": null, "immutable": false}], "body": {"task": "b", "args": [], "kwargs": {}, "options": {}, '
                           '"subtask_type": null, "immutable": false}}}]'),
    ]

    def mutate(self, data):
        data = bytearray(data)
        for _ in range(self.random.choice((0, 1, 1, 2, 5))):
            at = self.random.randrange(len(data) + 1)
            what = self.random.randrange(5)
            if what == 0:
                data[at:at + self.random.randrange(1, 9)] = b""
            elif what == 1:
                data[at:at] = self.random.choice((b"\0", b"%00", b"%2e%2e%2f", b"[" * 300, b"{}", b'"', b"1e999", b"-1", b"\xff\xfe", b"\r\n", b"\\ud800"))
            elif what == 2 and at < len(data):
                data[at] = self.random.randrange(256)
            elif what == 3:
                data[at:at] = data[self.random.randrange(len(data) + 1):][:50]
            else:
                del data[at:]
        return bytes(data)

    def request(self, connection):
        method, path, body = self.random.choice(self.SEEDS)
        body = self.mutate(body.encode()) if body else b""
        framing = f"Content-Length: {len(body)}"
        if self.random.random() < 0.1:
            framing, at = "Transfer-Encoding: chunked", self.random.randrange(len(body) + 1)
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part) + b"0\r\n\r\n"
        request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n{framing}\r\n\r\n".encode()
        return (self.mutate(request) if self.random.random() < 0.5 else request) + body

    def ask_for(self, seconds, seed, counts):
        self.random.seed(seed)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            data = self.request("close")
            while self.random.random() < 0.2:  # several on one connection
                data = self.request("keep-alive") + data
            with socket.create_connection(("127.0.0.1", self.web.port), 10) as sock:
                try:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    sock.settimeout(0.1)  # of what is half a request no answer is waited for
                    while sock.recv(65536):
                        pass
                except OSError:
                    pass
            counts.append(data.count(b"HTTP/1.1"))

    @property
    def random(self):
        if not hasattr(self.each, "random"):
            self.each.random = random.Random()
        return self.each.random

    def test_nothing_brings_it_down(self):
        self.each, counts = threading.local(), []
        seconds, seed = float(os.environ.get("WEB_FUZZ_SECONDS", "3")), int(os.environ.get("WEB_FUZZ_SEED", "20261128"))
        threads = [threading.Thread(target=self.ask_for, args=(seconds, seed + i, counts)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{len(counts)} connections, {sum(counts)} requests")
        self.assertGreater(len(counts), 50)
        self.alive()


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        where = harness.folder("tls")
        cls.cert, cls.key = str(where / "cert"), str(where / "key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=127.0.0.1",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout", cls.key, "-out", cls.cert],
                       check=True, stderr=subprocess.DEVNULL)
        cls.web = harness.Web(None, "--certificate", cls.cert, "--key", cls.key).start()

    @classmethod
    def tearDownClass(cls):
        assert cls.web.stop() == 0, cls.web.log()[-4000:]

    def ask(self, method, path, body=None, timeout=20):
        context = ssl.create_default_context(cafile=self.cert)
        connection = http.client.HTTPSConnection("127.0.0.1", self.web.port, timeout=timeout, context=context)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def test_documents_go_and_come_whole(self):
        self.assertIn("Listening on https://", self.web.log())
        for size in (10, 100000, 20000000):
            text = json.dumps({"status": "STARTED", "result": "x" * size})
            self.assertEqual(self.ask("PUT", f"/celery-task-meta-tls{size}", text).status, 204)
            self.assertEqual(self.ask("GET", f"/celery-task-meta-tls{size}").body.decode(), text)

    def test_a_wait_ends_with_the_document_and_who_leaves_is_let_go(self):
        out = []
        thread = threading.Thread(target=lambda: out.append(self.ask("GET", "/celery-task-meta-tw?wait=20")))
        before = connections(self.web.port)
        thread.start()
        harness.eventually(lambda: connections(self.web.port) > before)
        self.ask("PUT", "/celery-task-meta-tw", '{"status": "SUCCESS"}')
        thread.join(20)
        self.assertEqual(out[0].status, 200)
        context = ssl.create_default_context(cafile=self.cert)
        sock = context.wrap_socket(socket.create_connection(("127.0.0.1", self.web.port)), server_hostname="127.0.0.1")
        sock.sendall(b"GET /celery-task-meta-tl?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        waiting = lambda: re.search(rb"^apium_web_waiting (\d+)$", self.ask("GET", "/metrics").body, re.M).group(1)
        harness.eventually(lambda: waiting() == b"1")
        sock.close()
        harness.eventually(lambda: waiting() == b"0")

    def test_events_are_streamed(self):
        context = ssl.create_default_context(cafile=self.cert)
        connection = http.client.HTTPSConnection("127.0.0.1", self.web.port, timeout=20, context=context)
        self.addCleanup(connection.close)
        connection.request("GET", "/events?ids=te")
        stream = connection.getresponse()
        for i in range(30):
            self.ask("PUT", "/celery-task-meta-te", json.dumps({"status": "PROGRESS", "result": i}))
        seen = 0
        while seen < 30:
            line = stream.readline()
            seen += line.startswith(b"data: ") and json.loads(line[6:])["result"] == seen

    def test_what_is_no_tls_harms_nobody(self):
        for data in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"x" * 600, b"\x16\x03\x01\xff\xff" + b"\0" * 70000, b"\0"):
            self.assertNotIn(b"200", raw(self.web, data, 1))
        self.assertEqual(self.ask("GET", "/").status, 200)

    def test_a_worker_keeps_results_behind_it(self):
        where = harness.folder("tls-worker")
        broker, backend = f"sqlite:///{where}/q.db", f"https://127.0.0.1:{self.web.port}/"
        conf = {"result_backend_transport_options": {"http_ca": self.cert}}
        env = harness.environment(broker, backend, conf)
        worker = harness.Worker(broker, backend, "-c", "1", conf=conf).start()
        self.addCleanup(worker.kill_group)
        task = harness.apium("call", "tasks.add", "-a", "[2, 3]", env=env, check=True).stdout.strip()
        self.assertEqual(json.loads(self.ask("GET", f"/tasks/{task}?wait=20").body)["result"], 5)
        self.assertEqual(worker.stop(), 0)

    def test_files_that_are_no_good_keep_the_server_from_starting(self):
        where = harness.folder("bad-tls")
        (where / "text").write_text("no certificate\n")
        (where / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        other = where / "other"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", other], check=True)
        for options in (["--certificate", self.cert], ["--key", self.key], ["--certificate", where / "none", "--key", self.key],
                        ["--certificate", where / "text", "--key", self.key], ["--certificate", where / "broken", "--key", self.key],
                        ["--certificate", where, "--key", self.key], ["--certificate", self.cert, "--key", other]):
            # GnuTLS leaves a certificate behind that it could not read.
            done = harness.apium("--result-backend", "memory://", "web", "--port", "0", *options, timeout=20, env={"ASAN_OPTIONS": "detect_leaks=0"})
            self.assertEqual(done.returncode, 78, (options, done.stderr))
            self.assertRegex(done.stderr, "certificate|key|PEM|TLS", options)


class Access(unittest.TestCase):
    def setUp(self):
        self.file = harness.folder("access") / "who"
        self.file.write_text("# who may do what\noperator token s3cret\nreader token r3ad\nreader basic ann:pass word\n")
        self.file.chmod(0o640)

    def test_roles_are_kept_apart(self):
        web = harness.Web(None, "--access", str(self.file)).start()
        self.addCleanup(web.stop)
        reader = {"Authorization": "Basic " + base64.b64encode(b"ann:pass word").decode()}
        operator = {"Authorization": "Bearer s3cret"}
        path = "/celery-task-meta-a"
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer s3cre"},
                        {"Authorization": "Bearer s3cretx"}, {"Authorization": "Basic s3cret"}, {"Authorization": "Basic !!"},
                        {"Authorization": "Basic " + base64.b64encode(b"s3cret").decode()}, {"Authorization": "Bearer ann:pass word"},
                        {"Authorization": "Digest x"}, {"Authorization": "Bearer " + "x" * 4000}):
            reply = ask(web, "GET", path, headers=headers)
            self.assertEqual((reply.status, "WWW-Authenticate" in reply.headers), (401, True), headers)
        self.assertEqual(ask(web, "PUT", path, {"status": "SUCCESS"}, reader).status, 403)
        self.assertEqual(ask(web, "PUT", path, {"status": "SUCCESS"}, operator).status, 204)
        self.assertEqual(ask(web, "GET", path, headers=reader).status, 200)
        self.assertEqual(ask(web, "GET", path, headers={"Authorization": "Bearer r3ad"}).status, 200)
        self.assertNotIn("s3cret", web.log())

    def test_a_file_that_is_no_good_keeps_the_server_from_starting(self):
        for text, mode in (("", 0o600), ("operator\n", 0o600), ("king token x\n", 0o600), ("reader basic nocolon\n", 0o600),
                           ("reader token x\n", 0o604)):
            self.file.write_text(text)
            self.file.chmod(mode)
            done = harness.apium("--result-backend", "memory://", "web", "--port", "0", "--access", self.file)
            self.assertEqual(done.returncode, 78, done.stderr)
        self.assertEqual(harness.apium("--result-backend", "memory://", "web", "--addr", "0.0.0.0", "--port", "0").returncode, 78)
        self.assertEqual(harness.apium("--result-backend", "memory://", "web", "--addr", "127.nowhere", "--port", "0").returncode, 2)
        self.assertIn("not an IP address", harness.apium("--result-backend", "memory://", "web", "--addr", "localhost", "--port", "0").stderr)

    def test_pages_of_one_origin_may_be_let_in(self):
        web = harness.Web(None, "--cors", "https://app.example").start()
        self.addCleanup(web.stop)
        path, ours, other = "/celery-task-meta-a", {"Origin": "https://app.example"}, {"Origin": "https://evil.example"}
        asked = ask(web, "OPTIONS", path, headers={**ours, "Access-Control-Request-Method": "PUT"})
        self.assertEqual((asked.status, asked.headers["Access-Control-Allow-Origin"]), (204, "https://app.example"))
        self.assertIn("PUT", asked.headers["Access-Control-Allow-Methods"])
        self.assertEqual(ask(web, "PUT", path, {"status": "SUCCESS"}, ours).status, 204)
        self.assertEqual(ask(web, "PUT", path, {"status": "SUCCESS"}, other).status, 403)
        self.assertEqual(ask(web, "GET", path, headers=ours).headers["Access-Control-Allow-Origin"], "https://app.example")
        closed = harness.Web().start()
        self.addCleanup(closed.stop)
        self.assertNotIn("Access-Control-Allow-Origin", ask(closed, "OPTIONS", path, headers=ours).headers)

    def test_a_store_that_keeps_nothing_is_refused(self):
        self.assertEqual(harness.apium("--result-backend", "disabled://", "web", "--port", "0").returncode, 78)
        done = harness.apium("-b", "amqp://127.0.0.1:1//", "--result-backend", "rpc://", "web", "--port", "0")
        self.assertEqual(done.returncode, 78, done.stderr)

    def test_a_port_that_is_taken_is_said(self):
        web = harness.Web().start()
        self.addCleanup(web.stop)
        done = harness.apium("--result-backend", "memory://", "web", "--port", web.port)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Address already in use".lower(), done.stderr.lower())


if __name__ == "__main__":
    harness.main()
