"""swift_s3 - OpenStack Swift with its S3 interface, all of its servers in one process, on free ports of 127.0.0.1.

    swift_s3.py FOLDER PORT       prints "ready" when it listens; user "test:tester", secret "testing"

What Swift keeps in a memcached is kept in a dictionary here; everything else is its own.
"""
import eventlet

eventlet.monkey_patch()

import os  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import eventlet.wsgi  # noqa: E402
import swift.common.utils  # noqa: E402

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = of-this-test\n")
swift.common.utils.set_swift_dir(str(folder))

from swift.common.ring.builder import RingBuilder  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

KINDS = ("account", "container", "object")
BACKEND = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
[pipeline:main]
pipeline = server
[app:server]
use = egg:swift#{kind}
"""
PROXY = f"""
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats s3api tempauth copy slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:s3api]
use = egg:swift#s3api
"""
PROXY += "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n"
                 for name in ("catch_errors", "gatekeeper", "listing_formats", "copy", "slo", "dlo", "versioned_writes"))


class Cache:
    def __init__(self):
        self.kept = {}

    def get(self, key, **_):
        value, until = self.kept.get(key, (None, 0))
        return value if until > time.time() else None

    def set(self, key, value, *_, time=0, **__):  # noqa: A002 - their name for it
        self.kept[key] = value, _now() + (time or 86400)

    def delete(self, key, **_):
        self.kept.pop(key, None)

    def incr(self, key, delta=1, **more):
        self.set(key, int(self.get(key) or 0) + int(delta), **more)
        return self.get(key)

    def decr(self, key, delta=1, **more):
        return self.incr(key, -int(delta), **more)


def _now():
    return time.time()


def serve(app, sock):
    eventlet.spawn(eventlet.wsgi.server, sock, app, log_output=False)


(folder / "devices" / "disk").mkdir(parents=True)
sockets = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in KINDS}
for kind in KINDS:
    at = sockets[kind].getsockname()[1]
    ring = RingBuilder(2, 1, 0)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": at, "device": "disk",
                  "replication_ip": "127.0.0.1", "replication_port": at})
    ring.rebalance()
    ring.get_ring().save(str(folder / f"{kind}.ring.gz"))
    conf = folder / f"{kind}.conf"
    conf.write_text(BACKEND.format(folder=folder, kind=kind))
    serve(loadapp(str(conf)), sockets[kind])
(folder / "proxy.conf").write_text(PROXY)
proxy, cache = loadapp(str(folder / "proxy.conf")), Cache()


def with_cache(environ, start_response):
    environ["swift.cache"] = cache
    return proxy(environ, start_response)


serve(with_cache, eventlet.listen(("127.0.0.1", port)))
print("ready", flush=True)
while os.getppid() != 1:
    eventlet.sleep(1)
