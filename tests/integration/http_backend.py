"""The result backend for http:// against servers that do harm, and against locks that it has keys for."""
import base64
import contextlib
import email.utils
import http.client
import json
import socket
import ssl
import subprocess
import time
import unittest

import harness
import listener

DOC = json.dumps({"status": "SUCCESS", "result": 42, "traceback": None, "children": [], "task_id": "t"})


class Server(listener.Listener):
    """Answers each request by the next of its answers, and by the last one for ever: (status, headers, body), or a function of
    the socket. What was asked is kept."""

    def __init__(self, *answers, tls=None, port=0):
        self.answers, self.asked, self.times = list(answers), [], []
        self.then = None  # instead of the last answer: what gives one for (method, path, body)
        self.tls = tls
        super().__init__(port)

    def serve(self, peer):
        if self.tls:
            peer = self.tls.wrap_socket(peer, server_side=True)
        with peer:
            for method, path, headers, body in listener.requests(peer):
                answer = self.answer_to(method, path, headers, body)
                if callable(answer):
                    answer(peer)
                    return
                status, more, text = answer
                more = {"Content-Length": len(text.encode()), **more}
                peer.sendall(f"HTTP/1.1 {status} X\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in more.items()).encode() + b"\r\n" + text.encode())

    def answer_to(self, method, path, headers, body):
        if path == "/":
            return 404, {}, ""
        self.asked.append((method, path, headers, body))
        self.times.append(time.monotonic())
        if len(self.answers) == 1 and self.then:
            return self.then(method, path, body)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def url(self, scheme="http", user=""):
        return f"{scheme}://{user}127.0.0.1:{self.port}/"


def cut(peer):
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\": \"SUCC")


def silent(peer):
    while peer.recv(65536):
        pass


def endless(peer):
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    while True:
        peer.sendall(chunk)


def with_length(length, text=DOC):
    """An answer that says how long it is, and then is not."""
    def answer(peer):
        peer.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}".encode())
    return answer


GOOD = (200, {}, DOC)
SOON = 2 if harness.SANITIZED else 0.5  # seconds to reach a server


class Case(unittest.TestCase):
    def result(self, url, *options, patience=4, timeout=60, **conf):
        """`apium result t`, and how long it took."""
        env = {**harness.environment("memory://", url, {"result_backend_transport_options": conf} if conf else {}),
               "APIUM_BROKER_CONNECTION_TIMEOUT": str(patience)}
        start = time.monotonic()
        done = harness.apium("result", "t", *options, env=env, timeout=timeout)
        return done, time.monotonic() - start

    def good(self, done):
        self.assertEqual((done.returncode, done.stdout), (0, "42\n"), done.stderr)

    def bad(self, done, *words, codes=(69, 75)):
        self.assertIn(done.returncode, codes, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


class Faults(Case):
    def test_a_server_in_trouble_is_asked_again(self):
        for trouble in ((500, {}, "oops"), (503, {}, ""), (502, {}, "<html>"), cut, lambda peer: None):
            server = Server(trouble, GOOD)
            done, _ = self.result(server.url(), "--timeout", "20")
            self.good(done)
            self.assertGreaterEqual(len(server.asked), 2)

    def test_retry_after_is_obeyed(self):
        server = Server((429, {"Retry-After": "1"}, ""), GOOD)
        done, _ = self.result(server.url(), "--timeout", "20")
        self.good(done)
        self.assertGreater(server.times[1] - server.times[0], 0.95)

    def test_retry_after_may_be_a_date_and_is_bounded(self):
        soon = email.utils.formatdate(time.time() + 3, usegmt=True)
        server = Server((503, {"Retry-After": soon}, ""), GOOD)
        self.good(self.result(server.url(), "--timeout", "20")[0])
        self.assertGreater(server.times[1] - server.times[0], 1)
        for after in ("86400", "Fri, 01 Jan 2100 00:00:00 GMT", "-5", "soon", "9" * 40):
            done, took = self.result(Server((429, {"Retry-After": after}, "")).url(), "--state", patience=SOON)
            self.bad(done, "429")
            self.assertLess(took, 20)

    def test_an_answer_of_the_wrong_length_is_asked_again(self):
        for trouble in (with_length(len(DOC) + 10), with_length(10 ** 15), with_length("nonsense"), with_length(-1)):
            server = Server(trouble, GOOD)
            self.good(self.result(server.url(), "--timeout", "20")[0])
        done, took = self.result(Server(with_length(len(DOC) - 10)).url(), "--timeout", "2", patience=SOON)
        self.bad(done, codes=(1, 69, 75))  # half a document
        self.assertLess(took, 20)

    def test_redirections_are_not_followed(self):
        server = Server((302, {"Location": "/loop"}, ""))
        done, took = self.result(server.url(), "--state")
        self.bad(done, "redirections are not followed")
        self.assertLess(took, 20)
        self.assertNotIn("/loop", [path for _, path, _, _ in server.asked])

    def test_a_server_that_says_nothing_is_given_up(self):
        for trouble in (silent, (500, {}, ""), cut):
            done, took = self.result(Server(trouble).url(), "--state", patience=SOON, http_timeout=1)
            self.bad(done)
            self.assertLess(took, 20)

    def test_a_server_that_is_not_there_is_said(self):
        done, took = self.result(f"http://127.0.0.1:{harness.free_port()}/", "--state", patience=SOON)
        self.bad(done, "127.0.0.1")
        self.assertLess(took, 20)
        done, took = self.result("http://nowhere.invalid/", "--state", patience=SOON)
        self.bad(done)
        self.assertLess(took, 40)

    def test_an_answer_without_end_is_cut(self):
        done, _ = self.result(Server(endless).url(), "--state", patience=SOON, http_timeout=30)
        self.bad(done, codes=(1, 69, 75))

    def test_an_answer_that_is_no_document_is_an_error(self):
        for text in ("", "nonsense", "[]", "{", '"x"'):
            done, _ = self.result(Server((200, {}, text)).url(), "--timeout", "2", patience=SOON)
            self.bad(done, codes=(1, 69, 75))

    def test_a_url_that_makes_no_sense_is_refused(self):
        for url in ("http://", "http://a/?x=1", "http://a;http://b"):
            done, _ = self.result(url, "--state")
            self.bad(done, codes=(78,))


class Locks(Case):
    def test_secrets_are_sent_as_they_are_asked_for(self):
        server = Server(GOOD)
        self.good(self.result(server.url(), "--timeout", "5", http_token="s3cret")[0])
        self.assertEqual(server.asked[0][2]["authorization"], "Bearer s3cret")
        server = Server(GOOD)
        self.good(self.result(server.url(user="ann:pass%20word@"), "--timeout", "5")[0])
        self.assertEqual(server.asked[0][2]["authorization"], "Basic " + base64.b64encode(b"ann:pass word").decode())

    def test_no_secret_is_shown(self):
        done, _ = self.result((f"http://ann:hidden@127.0.0.1:{harness.free_port()}/"), "--state", patience=SOON)
        self.bad(done)
        self.assertNotIn("hidden", done.stderr)
        report = harness.apium("report", "--all", env={"APIUM_RESULT_BACKEND_TRANSPORT_OPTIONS": '{"http_token": "hidden"}'})
        self.assertEqual(report.returncode, 0)
        self.assertFalse("hidden" in report.stdout, "the report shows a token")

    def test_the_wrong_token_is_said(self):
        access = harness.folder("access") / "who"
        access.write_text("operator token right\n")
        access.chmod(0o600)
        web = harness.Web(None, "--access", str(access)).start()
        self.addCleanup(web.stop)
        self.bad(self.result(web.url(), "--state", patience=SOON, http_token="wrong")[0], "401")
        done, _ = self.result(web.url(), "--state", http_token="right")
        self.assertEqual(done.stdout, "PENDING\n", done.stderr)

    def certificate(self, *more):
        where = harness.folder("tls")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=127.0.0.1",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", where / "key", "-out", where / "cert", *more],
                       check=True, stderr=subprocess.DEVNULL)
        return str(where / "cert"), str(where / "key")

    def test_certificates_are_verified(self):
        cert, key = self.certificate("-days", "2")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.bad(self.result(Server(GOOD, tls=context).url("https"), "--state", patience=SOON)[0], "certificate")
        self.good(self.result(Server(GOOD, tls=context).url("https"), "--timeout", "5", http_ca=cert)[0])
        self.good(self.result(Server(GOOD, tls=context).url("https"), "--timeout", "5", http_verify=False)[0])
        other, _ = self.certificate("-days", "2")
        self.bad(self.result(Server(GOOD, tls=context).url("https"), "--state", patience=SOON, http_ca=other)[0], "certificate")
        name = Server(GOOD, tls=context)
        self.bad(self.result(f"https://localhost:{name.port}/", "--state", patience=SOON, http_ca=cert)[0])

    def test_an_expired_certificate_is_refused(self):
        where = harness.folder("ca")
        cert, key = self.certificate("-days", "2")
        # `openssl req` makes no certificate of the past, `openssl ca` does.
        (where / "index").touch()
        (where / "serial").write_text("01\n")
        (where / "conf").write_text(f"[ca]\ndefault_ca=x\n[x]\ndatabase={where}/index\nserial={where}/serial\nnew_certs_dir={where}\n"
                                    "default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n")
        subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=127.0.0.1", "-out", where / "csr"], check=True)
        subprocess.run(["openssl", "ca", "-batch", "-config", where / "conf", "-cert", cert, "-keyfile", key, "-in", where / "csr", "-out", where / "old",
                        "-startdate", "20200101000000Z", "-enddate", "20200102000000Z"], check=True, stderr=subprocess.DEVNULL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(where / "old", key)
        self.bad(self.result(Server(GOOD, tls=context).url("https"), "--state", patience=2, http_ca=cert)[0], "certificate")

    def test_a_client_shows_its_certificate(self):
        cert, key = self.certificate("-days", "2")
        own, own_key = self.certificate("-days", "2")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.load_verify_locations(own)
        context.verify_mode = ssl.CERT_REQUIRED
        self.good(self.result(Server(GOOD, tls=context).url("https"), "--timeout", "5", http_ca=cert, http_cert=own, http_key=own_key)[0])
        self.bad(self.result(Server(GOOD, tls=context).url("https"), "--state", patience=SOON, http_ca=cert)[0])


class Http2(Case):
    """nginx over TLS: it offers HTTP/2, and wants a certificate of its clients."""

    def setUp(self):
        self.cert, self.key = Locks.certificate(self, "-days", "2")
        self.own, self.own_key = Locks.certificate(self, "-days", "2")
        self.nginx = harness.Nginx(tls=(self.cert, self.key, self.own)).start()
        self.addCleanup(self.nginx.kill_group)
        self.conf = {"result_backend_transport_options": {"http_ca": self.cert, "http_cert": self.own, "http_key": self.own_key}}

    def test_results_arrive_over_http_2(self):
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        where = harness.environment(redis.url(), self.nginx.url(), self.conf)
        harness.send_many(where, "flows.part", "h", 300, 1)
        records = harness.folder("h2") / "records"
        worker = harness.Worker(redis.url(), self.nginx.url(), "-c", "2", module=harness.FLOWS, conf=self.conf, env={"FLOWS": str(records)}).start()
        self.addCleanup(worker.kill_group)
        ids = [f"h-{n}" for n in range(300)]
        harness.eventually(lambda: set(harness.states(where, ids).values()) == {"SUCCESS"}, 60, lambda: worker.log()[-2000:], every=0.5)
        big = harness.apium("call", "flows.echo", "-a", json.dumps(["x" * 100000]), "--wait", "--timeout", "30", env=where)
        self.assertEqual(big.stdout.split()[-1:], [json.dumps("x" * 100000)], f"{big.returncode} {big.stderr} {worker.log()[-600:]} {self.nginx.asked()[-6:]}")
        self.assertEqual(worker.stop(), 0)
        asked = self.nginx.asked()
        self.assertEqual({(protocol, verified) for protocol, _, _, _, _, verified in asked}, {("HTTP/2.0", "SUCCESS")})
        puts = [a for a in asked if a[3] == "PUT"]
        self.assertGreaterEqual(len(puts), 301)
        self.assertLess(len({connection for _, connection, *_ in puts}), 10, "many requests share a connection")

    def test_who_has_no_certificate_is_told(self):
        conf = {"http_ca": self.cert}
        self.bad(self.result(self.nginx.url(), "--state", patience=SOON, **conf)[0], "400")
        done, _ = self.result(self.nginx.url(), "--state", patience=SOON, **conf, http_cert=self.own_key, http_key=self.own_key)
        self.bad(done, "certificate")

    def test_a_server_without_http_2_is_spoken_to_in_http_1(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        context.set_alpn_protocols(["http/1.1"])
        self.good(self.result(Server(GOOD, tls=context).url("https"), "--timeout", "5", http_ca=self.cert)[0])


class Work(Case):
    """A worker and a client over `apium web`."""

    def setUp(self):
        self.web = harness.Web().start()
        self.addCleanup(self.web.kill_group)
        self.broker = f"sqlite:///{harness.folder('queue')}/q.db"

    def test_a_caller_waits_for_its_result(self):
        worker = harness.Worker(self.broker, self.web.url(), "-c", "1").start()
        self.addCleanup(worker.kill_group)
        start = time.monotonic()
        done = harness.apium("call", "tasks.add", "-a", "[2, 3]", "--wait", broker=self.broker, backend=self.web.url())
        self.assertEqual((done.returncode, done.stdout.split()[-1]), (0, "5"), done.stderr)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(worker.stop(), 0)
        self.assertEqual(self.web.stop(), 0)

    def test_a_result_that_the_server_finds_too_big_fails_alone(self):
        web = harness.Web(None, "--max-body", "0.05").start()
        self.addCleanup(web.kill_group)
        worker = harness.Worker(self.broker, web.url(), "-c", "1", module=harness.FLOWS).start()
        self.addCleanup(worker.kill_group)
        send = lambda task, args: harness.apium("call", task, "--task-id", task + str(len(args)), "-a", args, broker=self.broker,  # noqa: E731
                                                backend=web.url(), check=True)
        small, big = "[\"x\"]", json.dumps(["x" * 100000])
        send("flows.echo", big)
        send("flows.echo", small)
        done = harness.apium("result", "flows.echo" + str(len(small)), "--timeout", "20", broker=self.broker, backend=web.url())
        self.assertEqual(done.stdout, '"x"\n', done.stderr)
        self.assertEqual(worker.stop(), 0)

    def test_an_id_that_no_path_can_hold_fails_alone(self):
        server = harness.Nginx().start()
        self.addCleanup(server.kill_group)
        worker = harness.Worker(self.broker, server.url(), "-c", "1").start()
        self.addCleanup(worker.kill_group)
        for task_id in ("x" * 65500, "good"):  # shorter than a path may be, and longer with the URL before it
            harness.apium("call", "tasks.noop", "--task-id", task_id, broker=self.broker, backend="disabled://", check=True)
        done = harness.apium("result", "good", "--timeout", "20", broker=self.broker, backend=server.url())
        self.assertEqual(done.stdout, "null\n", done.stderr)
        self.assertIn("Cannot store the outcome of task", worker.log())
        self.assertEqual(worker.stop(), 0)

    def test_a_worker_keeps_its_results_while_it_is_sent_elsewhere(self):
        """Redirections, a name that is gone, silence: it says so, and stores when all is well again."""
        troubles = [(302, {"Location": "/loop"}, ""), (401, {}, ""), cut, with_length("nonsense"), (429, {"Retry-After": "1"}, "")]
        server = Server(*[t for t in troubles], (404, {}, ""))
        stored = {}

        def plain(method, path, body):
            if method == "PUT":
                stored[path] = body
            return (200, {}, stored[path].decode()) if path in stored else (404, {}, "")
        server.then = plain
        worker = harness.Worker(self.broker, server.url(), "-c", "1").start()
        self.addCleanup(worker.kill_group)
        harness.apium("call", "tasks.add", "-a", "[2, 3]", "--task-id", "kept", broker=self.broker, backend="disabled://", check=True)
        harness.eventually(lambda: stored, 60, worker.log, every=0.1)
        self.assertEqual(json.loads(stored["/celery-task-meta-kept"])["result"], 5)
        self.assertIn("redirections are not followed", worker.log())
        self.assertIn("answers 401", worker.log())
        self.assertEqual(worker.stop(), 0)

    def test_a_worker_begins_when_the_server_has_come(self):
        self.web.kill()
        harness.apium("call", "tasks.add", "-a", "[2, 3]", "--task-id", "early", broker=self.broker, backend="disabled://", check=True)
        worker = harness.Worker(self.broker, self.web.url(), "-c", "1")
        harness.Process.start(worker)
        self.addCleanup(worker.kill_group)
        harness.eventually(lambda: "Trying again in" in worker.log(), 20)
        self.assertNotIn(" ready.", worker.log())
        self.web.start()
        done = harness.apium("result", "early", "--timeout", "20", broker=self.broker, backend=self.web.url())
        self.assertEqual(done.stdout, "5\n", done.stderr)
        self.assertEqual(worker.stop(), 0)


class Store(Case):
    """`apium web` that keeps its results behind HTTP itself: it is patient for four seconds, and goes on."""

    def ask(self, web, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def test_a_store_that_comes_late_is_found(self):
        with socket.create_server(("127.0.0.1", 0)) as none:  # takes a port, and says nothing
            port = none.getsockname()[1]
        web = harness.Web(f"http://127.0.0.1:{port}/").start()
        self.addCleanup(web.kill_group)
        time.sleep(4.5)
        self.assertEqual(self.ask(web, "GET", "/health")[0], 503)
        server = Server((404, {}, ""), port=port)
        server.then = lambda method, path, body: GOOD
        harness.eventually(lambda: self.ask(web, "GET", "/health")[0] == 200, 15, web.log, every=0.2)
        self.assertEqual(self.ask(web, "GET", "/celery-task-meta-t?wait=10"), (200, DOC))
        self.assertEqual(web.stop(), 0)

    def test_of_many_that_are_waited_for_each_is_looked_at(self):
        """The server takes a quarter of a second: what is looked at most often may not be all that is looked at."""
        def slow(method, path, body):
            time.sleep(0.25)
            return GOOD if path == "/celery-task-meta-t299" else (404, {}, "")
        server = Server((404, {}, ""))
        server.then = slow
        web = harness.Web(server.url()).start()
        self.addCleanup(web.kill_group)
        ids = [f"t{n}" for n in range(300)]
        status, _ = self.ask(web, "POST", "/watches/many?wait=0", json.dumps({"add": ids}))
        self.assertEqual(status, 200)
        status, text = self.ask(web, "POST", "/watches/many?wait=30", json.dumps({"seen": 0}))
        self.assertEqual([change[1] for change in json.loads(text)["changes"]], ["t299"], len(server.asked))
        self.assertEqual(web.stop(), 0)


if __name__ == "__main__":
    harness.main()
