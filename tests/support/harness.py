"""harness - servers, workers and the command, started by a test and ended with it.

Everything runs on 127.0.0.1, on a free port, in a temporary folder, and in a process group of its own. A guard process
kills whatever is left when the test program goes, however it goes. Nothing here sleeps for luck: waiting is for a
condition, with a deadline.
"""
import atexit
import contextlib
import faulthandler
import gc
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

_wanted = os.environ.get("APIUM_TEST_PYTHON")
if _wanted and os.path.realpath(os.path.dirname(sys.executable)) != os.path.realpath(os.path.dirname(_wanted)):
    os.execv(_wanted, [_wanted] + sys.argv)  # the same test under another Celery

# Celery unsubscribes from a result where Python drops it. A collection may do that in the midst of a subscription, which holds a lock of the
# Redis client that is waited for then for ever. So none is made: what references alone do not free stays until the end.
gc.disable()

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("APIUM_TEST_BUILD", ROOT / "build")).resolve()
STRICT = os.environ.get("APIUM_TEST_STRICT") == "1"
SANITIZED = os.environ.get("APIUM_TEST_SANITIZED") == "1"
APIUM = str(BUILD / "apium")
TASKS = str(BUILD / "samples" / "tasks.so")
FLOWS = str(BUILD / "tests" / "support" / "flows.so")
LEDGER = str(BUILD / "tests" / "support" / "ledger.so")
COMPOSE = str(BUILD / "tests" / "support" / "compose")
PROBE = str(BUILD / "tests" / "support" / "probe")

_GUARD = r"""
import os, signal, sys
groups = set()
for line in sys.stdin:
    what, group = line.split()
    (groups.add if what == "+" else groups.discard)(int(group))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
_guard = subprocess.Popen([sys.executable, "-c", _GUARD], stdin=subprocess.PIPE, start_new_session=True, text=True)
_folder = pathlib.Path(tempfile.mkdtemp(prefix="apium-test-"))
_in_memory = pathlib.Path(tempfile.mkdtemp(prefix="apium-test-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))


@atexit.register
def _clean():
    with contextlib.suppress(OSError):
        _guard.stdin.close()
        _guard.wait(5)
    shutil.rmtree(_folder, ignore_errors=True)
    shutil.rmtree(_in_memory, ignore_errors=True)


def lacking(what):
    """A server that is not installed: a skip by hand, a failure in strict runs."""
    if STRICT:
        raise AssertionError(f"{what} is not installed")
    raise unittest.SkipTest(f"{what} is not installed")


def folder(name):
    path = _folder / f"{name}-{len(os.listdir(_folder))}"
    path.mkdir()
    return path


def free_port():
    """None of those that the kernel gives to outgoing connections: tests/support/port.h says why."""
    start = random.randrange(20_000)
    for i in range(20_000):
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = 12_000 + (start + i) % 20_000
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def eventually(condition, timeout=10.0, what=None, every=0.02):
    """Wait until condition() is true, and give what it gave; fail after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {(what() if callable(what) else what) or condition}")
        time.sleep(every)


class Process:
    """A program in a group of its own, with its output in a file."""

    def __init__(self, name, argv, env=None, cwd=None):
        self.name = name
        self.folder = folder(name)
        self.log_path = self.folder / "log"
        self.argv, self.env, self.cwd = argv, env, cwd or self.folder
        self.popen = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.cwd,
                                          env={**os.environ, **(self.env or {})}, start_new_session=True)
        self._tell("+")
        return self

    def _tell(self, what):
        _guard.stdin.write(f"{what} {self.popen.pid}\n")
        _guard.stdin.flush()

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def signal(self, signum):
        if self.alive():
            self.popen.send_signal(signum)

    def wait(self, timeout=30):
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout} s:\n{self.log()[-4000:]}") from None

    def stop(self, timeout=30):
        """TERM, and the exit code. What does not go is killed, and that is a failure."""
        if self.popen is None:
            return None
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        finally:
            self.kill_group()

    def kill(self):
        """kill -9 of the process itself; its children are left to themselves."""
        self.signal(signal.SIGKILL)
        return self.popen.wait(10)

    def kill_group(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)
        self._tell("-")


class Redis(Process):
    def __init__(self, appendonly=False):
        server = shutil.which("redis-server")
        if not server:
            lacking("redis-server")
        self.port = free_port()
        super().__init__("redis", [server, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                                   "--appendonly", "yes" if appendonly else "no", "--appendfsync", "always"])

    def start(self):
        super().start()
        eventually(self._answers, 20, "redis answers")
        return self

    def _answers(self):
        import redis
        try:
            return redis.Redis(host="127.0.0.1", port=self.port).ping()
        except redis.exceptions.RedisError:
            if not self.alive():
                raise AssertionError(self.log()) from None
            return False

    def url(self, db=0):
        return f"redis://127.0.0.1:{self.port}/{db}"

    def client(self, db=0):
        import redis
        return redis.Redis(host="127.0.0.1", port=self.port, db=db)


class RabbitMQ(Process):
    def __init__(self):
        server = next((p for p in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server"))
                       if p and os.path.exists(p)), None)
        if not server or not shutil.which("epmd"):
            lacking("rabbitmq-server")
        self.port = free_port()
        epmd_port = free_port()
        self.epmd = Process("epmd", [shutil.which("epmd"), "-port", str(epmd_port), "-address", "127.0.0.1"])
        super().__init__("rabbitmq", [server])
        home = self.folder
        (home / "enabled_plugins").write_text("[].\n")
        (home / "rabbitmq.conf").write_text(
            "listeners.tcp.default = 127.0.0.1:%d\ndisk_free_limit.absolute = 10MB\nlog.file = false\n"
            "max_message_size = 134217728\n"  # the default was so before RabbitMQ 4
            "log.console = true\nlog.console.level = warning\n" % self.port)
        # A bare machine may lack /etc/hosts: Erlang wants to know who localhost is.
        (home / "inetrc").write_text('{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n')
        self.env = {
            "HOME": str(home), "ERL_INETRC": str(home / "inetrc"), "ERL_EPMD_PORT": str(epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"apium{self.port}@localhost", "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home), "RABBITMQ_LOG_BASE": str(home),
            "RABBITMQ_PID_FILE": str(home / "pid"), "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false +S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self):
        if not self.epmd.alive():
            self.epmd.start()
        super().start()
        eventually(self._answers, 120, "rabbitmq answers", every=0.1)
        return self

    def _answers(self):
        import amqp
        try:
            with amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=5):
                return True
        except (OSError, amqp.exceptions.AMQPError):
            if not self.alive():
                raise AssertionError(self.log()[-4000:]) from None
            return False

    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def stop(self, timeout=60):
        self.kill_group()  # a stop in good order takes seconds, and nothing is to be kept
        self.epmd.kill_group()


class Web(Process):
    """`apium web`, on one port through all its lives."""

    def __init__(self, backend=None, *options, env=None, port=None):
        self.port = port or free_port()
        super().__init__("apium-web", None, env)
        self.backend = backend or f"sqlite:///{self.folder}/results.db"
        self.argv = [APIUM, "--result-backend", self.backend, "web", "--port", str(self.port), *options]
        if not Web.built():
            lacking("libmicrohttpd")

    @staticmethod
    def built():
        return "  web " in subprocess.run([APIUM, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout

    def start(self):
        listening = self.log().count("Listening on ")
        super().start()

        def up():
            if not self.alive():
                raise AssertionError(f"apium web ended with {self.popen.returncode}:\n{self.log()[-4000:]}")
            return self.log().count("Listening on ") > listening
        eventually(up, 20, "apium web listens")
        return self

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"


class Nginx(Process):
    """A plain HTTP server that can PUT, GET and DELETE: nginx with WebDAV, and no more. With `tls`, files of a certificate, its key, and
    those whose certificates it asks its clients for, it speaks HTTP/2 over TLS."""

    def __init__(self, tls=None):
        server = next((p for p in ("/usr/sbin/nginx", shutil.which("nginx")) if p and os.path.exists(p)), None)
        if not server:
            lacking("nginx")
        self.port, self.tls = free_port(), tls
        super().__init__("nginx", None)
        (self.folder / "store").mkdir()
        self.folder.chmod(0o755)
        (self.folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log;
{"user root;" if os.getuid() == 0 else ""}
events {{ worker_connections 512; }}
http {{
  log_format what '$server_protocol $connection $status $request_method $uri $ssl_client_verify';
  access_log {self.folder}/access.log what; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/p;
  fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  server {{
    listen 127.0.0.1:{self.port} {"ssl http2" if tls else ""}; root {self.folder}/store; client_max_body_size 64m;
    {"ssl_certificate %s; ssl_certificate_key %s; ssl_client_certificate %s; ssl_verify_client on;" % tls if tls else ""}
    location / {{ dav_methods PUT DELETE; create_full_put_path on; default_type application/json; }}
  }}
}}
""")
        self.argv = [server, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def start(self):
        super().start()

        def up():
            if not self.alive():
                raise AssertionError(self.log())
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0
        eventually(up, 20, "nginx listens")
        return self

    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/results/"

    def asked(self):
        """(protocol, connection, status, method, path, was the client's certificate good?) of every request."""
        return [line.split() for line in (self.folder / "access.log").read_text().splitlines()]


class Servers:
    """The servers of one test program, each started when it is first asked for."""

    def __init__(self):
        self.started = {}

    def _get(self, name, make):
        if name not in self.started:
            self.started[name] = make().start()
        return self.started[name]

    @property
    def redis(self):
        return self._get("redis", Redis)

    @property
    def rabbitmq(self):
        return self._get("rabbitmq", RabbitMQ)

    def stop(self):
        for server in self.started.values():
            server.stop()
        self.started.clear()


def environment(broker, backend, conf=None):
    """What tells an apium worker and a Celery one the same things."""
    env = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": backend or "", "PYTHONPATH": str(ROOT / "tests" / "interop")}
    for name, value in (conf or {}).items():
        env["APIUM_" + name.upper()] = value if isinstance(value, str) else json.dumps(value)
    env["INTEROP_CONF"] = json.dumps(conf or {})
    return env


class Worker(Process):
    """An apium worker."""

    def __init__(self, broker, backend, *options, module=TASKS, conf=None, env=None, level="INFO"):
        super().__init__("apium-worker", [APIUM, "-A", module, "worker", "-l", level, *options],
                         {**environment(broker, backend, conf), **(env or {})})

    def start(self, timeout=20):
        ready = self.log().count(" ready.")
        super().start()

        def up():
            if not self.alive():
                raise AssertionError(f"the worker ended with {self.popen.returncode}:\n{self.log()[-4000:]}")
            return self.log().count(" ready.") > ready
        eventually(up, timeout, "the worker is ready")
        return self

    def children(self):
        """pid of the fork server (None while there is none), pids of the pool processes."""
        server, pool, look = None, [], [self.pid]
        while look:
            for pid in children_of(look.pop()):
                title = command_line(pid)
                if "fork server" in title and server is None:
                    server = pid
                elif title:  # a process that is just born has its parent's title still
                    pool.append(pid)
                look.append(pid)
        return server, pool


class CeleryWorker(Process):
    """A Python worker with the tasks of tests/interop/interop_app.py."""

    def __init__(self, broker, backend, *options, conf=None, env=None):
        super().__init__("celery-worker", [
            sys.executable, "-m", "celery", "-A", "interop_app", "worker", "-l", "INFO", "--without-gossip",
            "--without-mingle", "--without-heartbeat", *options],
            {**environment(broker, backend, conf), **(env or {})})

    def start(self, timeout=60):
        super().start()

        def up():
            if not self.alive():
                raise AssertionError(f"celery ended with {self.popen.returncode}:\n{self.log()[-4000:]}")
            return " ready." in self.log()
        eventually(up, timeout, "the Python worker is ready", every=0.1)
        return self


    def stop(self, timeout=15):
        """TERM; how long Celery itself takes to go is not ours to judge."""
        with contextlib.suppress(AssertionError):
            super().stop(timeout)


def children_of(pid):
    try:
        return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def lives(pid):
    """Is there such a process, and not only its exit status waiting for somebody?"""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def tree(pid):
    """A process and everything below it."""
    return [pid] + [one for child in children_of(pid) for one in tree(child)]


def pss_kib(pid):
    """Proportional memory of a process and everything below it."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def app(broker, backend, **conf):
    """A Celery producer."""
    import celery
    made = celery.Celery("producer", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(broker_connection_retry_on_startup=True, **conf)
    return made


def apium(*args, broker=None, backend=None, env=None, timeout=60, text=True, check=False, stdin=""):
    """Run the command; gives the CompletedProcess."""
    where = environment(broker, backend) if broker else {}
    done = subprocess.run([APIUM, *map(str, args)], env={**os.environ, **where, **(env or {})}, input=stdin if text else stdin.encode(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text, timeout=timeout)
    if check and done.returncode:
        raise AssertionError(f"apium {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")
    return done


def send_many(where, task, prefix, count, ms):
    """Send `count` tasks named PREFIX-0 ... with their names as ids: [key, ms] is what they are given."""
    subprocess.run([PROBE, "send", task, prefix, str(count), str(ms)], env={**os.environ, **where}, check=True, timeout=120)


def send_chords(where, prefix, count, parts):
    """Send chords of flows.part, key PREFIX-N.M, with a flows.body, key PREFIX-N; the bodies' ids."""
    done = subprocess.run([PROBE, "chords", prefix, str(count), str(parts)], env={**os.environ, **where}, stdout=subprocess.PIPE,
                          text=True, check=True, timeout=120)
    return done.stdout.split()


def states(where, ids):
    """{id: "SUCCESS" or "FAILURE WorkerLostError"}: what is stored now."""
    done = subprocess.run([PROBE, "states"], env={**os.environ, **where}, input="\n".join(ids), stdout=subprocess.PIPE,
                          text=True, check=True, timeout=120)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


class Ledger:
    """What the tasks of ledger.so wrote: lines "begin|end KEY PID MILLISECONDS" (monotonic), in records of one length. In
    memory, for a write to a disk may wait for what others write, and a kill in that time would leave a task that has begun
    without its line."""

    RECORD = 128

    def __init__(self):
        self.path = _in_memory / f"ledger-{len(os.listdir(_in_memory))}"
        self.path.touch()
        self.env = {"LEDGER": str(self.path)}
        self._read = []

    def lines(self):
        """Every whole record; one that is being written is not there yet."""
        with open(self.path, "rb") as ledger:
            ledger.seek(len(self._read) * self.RECORD)
            new = ledger.read()
        for at in range(0, len(new) - self.RECORD + 1, self.RECORD):
            self._read.append(new[at:at + self.RECORD].decode().split())
        return self._read

    def count(self, what):
        """{key: how often `what` was written for it}."""
        counts = {}
        for word, key, *_ in self.lines():
            if word == what:
                counts[key] = counts.get(key, 0) + 1
        return counts


def main():
    """Run the tests, and go without taking Python apart: results of Celery 5.5 would look for their servers then, which are
    gone, and try again for minutes. One that is ended because it takes too long says where it was."""
    faulthandler.register(signal.SIGTERM, chain=True)
    program = unittest.main(verbosity=2, exit=False)
    _clean()
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = program.result.testsRun == 0 and not program.result.skipped
    os._exit(1 if nothing or not program.result.wasSuccessful() else 0)
