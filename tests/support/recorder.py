"""recorder - servers that do as CouchDB, Consul, Elasticsearch and S3 do as far as result backends need them, and write down what they
are asked. No more is claimed for them than that Celery's own backends work on them: tests/interop/test_presets.py.

    with recorder.CouchDB() as server:
        ... server.url() ...
        server.asked      Asked(method, path, query, headers, body, status, answer), in their order
    python3 -m recorder SCHEME PORT

    server.meanwhile  called with (server, method, path) before a request is looked at: what somebody else does first
"""
import base64
import collections
import hashlib
import hmac
import http.server
import json
import sys
import threading
import urllib.parse
import uuid


Asked = collections.namedtuple("Asked", "method path query headers body status answer")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        server = self.server.recorder
        with server.lock:
            if server.meanwhile:
                server.meanwhile(server, self.command, path)
            status, headers, answer = server.answer(self.command, path, dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), self.headers, body)
            server.asked.append(Asked(self.command, path, query, self.headers, body, status, answer))
        if not isinstance(answer, bytes):
            answer = json.dumps(answer).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients may go at any time."""


class Recorder:
    scheme = ""

    def __init__(self, port=0):
        self.lock = threading.RLock()
        self.asked, self.meanwhile = [], None
        self.docs = {}
        self.http = Server(("127.0.0.1", port), Handler)
        self.http.recorder = self
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def url(self, path="", user=""):
        return f"{self.scheme}://{user}127.0.0.1:{self.port}{path}"

    def settings(self):
        return {}

    def value(self, key):
        """The document stored under Celery's key, as Celery's own backend would be given it."""
        raise NotImplementedError


class CouchDB(Recorder):
    """https://docs.couchdb.org/en/stable/api/: databases, documents, revisions."""
    scheme = "couchdb"

    def __init__(self, port=0):
        super().__init__(port)
        self.databases = set()

    def value(self, key, database="default"):
        doc = self.docs.get((database, key))
        return doc and doc["value"]

    def answer(self, method, path, query, headers, body):
        parts = [urllib.parse.unquote(p) for p in path.split("/") if p]
        if not parts:
            return 200, {}, {"couchdb": "Welcome", "version": "3.3.3"}
        if len(parts) == 1:
            if method == "PUT":
                if parts[0] in self.databases:
                    return 412, {}, {"error": "file_exists", "reason": "The database could not be created, the file already exists."}
                self.databases.add(parts[0])
                return 201, {}, {"ok": True}
            if parts[0] in self.databases:
                return 200, {}, {"db_name": parts[0]}
            return 404, {}, {"error": "not_found", "reason": "no_db_file"}
        if parts[0] not in self.databases:
            return 404, {}, {"error": "not_found", "reason": "Database does not exist."}
        name = (parts[0], parts[1])
        there = self.docs.get(name)
        if method in ("GET", "HEAD"):
            if not there:
                return 404, {}, {"error": "not_found", "reason": "missing"}
            return 200, {"ETag": f'"{there["_rev"]}"'}, there
        given = json.loads(body) if method == "PUT" else {}
        if there and query.get("rev", given.get("_rev")) != there["_rev"]:
            return 409, {}, {"error": "conflict", "reason": "Document update conflict."}
        if method == "DELETE":
            if not there:
                return 404, {}, {"error": "not_found", "reason": "missing"}
            del self.docs[name]
            return 200, {}, {"ok": True, "id": parts[1], "rev": "9-gone"}
        if given.get("_rev") and not there:
            return 409, {}, {"error": "conflict", "reason": "Document update conflict."}
        number = int(there["_rev"].split("-")[0]) + 1 if there else 1
        rev = f"{number}-{hashlib.md5(body).hexdigest()}"
        self.docs[name] = {**given, "_id": parts[1], "_rev": rev}
        return 201, {}, {"ok": True, "id": parts[1], "rev": rev}


class Consul(Recorder):
    """https://developer.hashicorp.com/consul/api-docs/kv and /session: check-and-set, locks, sessions."""
    scheme = "consul"

    def __init__(self, port=0):
        super().__init__(port)
        self.index, self.sessions = 10, {}

    def value(self, key, path=""):
        doc = self.docs.get(path + key)
        return doc and doc["value"].decode()

    def end_session(self, session):
        """As when its time to live is over."""
        behavior = self.sessions.pop(session).get("behavior", "release")
        for key, doc in list(self.docs.items()):
            if doc["session"] == session:
                if behavior == "delete":
                    del self.docs[key]
                else:
                    doc["session"] = None

    def answer(self, method, path, query, headers, body):
        what = urllib.parse.unquote(path)
        if what == "/v1/session/create" and method == "PUT":
            session = str(uuid.uuid4())
            self.sessions[session] = {k.lower(): v for k, v in json.loads(body or b"{}").items()}
            return 200, {}, {"ID": session}
        if what.startswith("/v1/session/renew/"):
            session = what.rpartition("/")[2]
            return (200, {}, [{"ID": session}]) if session in self.sessions else (404, {}, b"Session id not found")
        if what.startswith("/v1/session/destroy/"):
            if what.rpartition("/")[2] in self.sessions:
                self.end_session(what.rpartition("/")[2])
            return 200, {}, True
        if not what.startswith("/v1/kv/"):
            return 404, {}, b""
        key = what[len("/v1/kv/"):]
        there = self.docs.get(key)
        if method == "GET":
            if not there:
                return 404, {"X-Consul-Index": str(self.index)}, b""
            shown = {"LockIndex": there["locks"], "Key": key, "Flags": 0, "Value": base64.b64encode(there["value"]).decode(),
                     "CreateIndex": there["index"], "ModifyIndex": there["index"]}
            if there["session"]:
                shown["Session"] = there["session"]
            return 200, {"X-Consul-Index": str(self.index)}, [shown]
        if method == "DELETE":
            self.docs.pop(key, None)
            return 200, {}, True
        session, locks = there["session"] if there else None, there["locks"] if there else 0
        if "acquire" in query:
            if query["acquire"] not in self.sessions:
                return 500, {}, ("rpc error making call: invalid session \"%s\"" % query["acquire"]).encode()
            if session and session != query["acquire"]:
                return 200, {}, False
            locks += session is None
            session = query["acquire"]
        if "cas" in query and int(query["cas"]) != (there["index"] if there else 0):
            return 200, {}, False
        self.index += 1
        self.docs[key] = {"value": body, "index": self.index, "session": session, "locks": locks}
        return 200, {}, True


class Elasticsearch(Recorder):
    """https://www.elastic.co/guide/en/elasticsearch/reference/7.17/docs.html: op_type=create, if_seq_no, partial updates."""
    scheme = "elasticsearch"
    PRODUCT = {"X-Elastic-Product": "Elasticsearch"}

    def __init__(self, port=0):
        super().__init__(port)
        self.number = 0

    def value(self, key, index="celery"):
        doc = self.docs.get((index, key))
        return doc and doc["source"]["result"]

    def answer(self, method, path, query, headers, body):
        status, answer = self.reply(method, [urllib.parse.unquote(p) for p in path.split("/") if p], query, body)
        kind = headers.get("Accept", "")
        return status, {**self.PRODUCT, "Content-Type": kind if "vnd.elasticsearch" in kind else "application/json"}, answer

    def reply(self, method, parts, query, body):
        if not parts:
            return 200, {"version": {"number": "7.17.6", "build_flavor": "default", "build_snapshot": False},
                         "tagline": "You Know, for Search"}
        if len(parts) == 4 and parts[3] == "_update":
            parts = [parts[0], "_update", parts[2]]
        name = (parts[0], parts[2])
        there = self.docs.get(name)
        shown = {"_index": parts[0], "_type": "_doc", "_id": parts[2]}
        if method == "GET":
            if not there:
                return 404, {**shown, "found": False}
            return 200, {**shown, "_version": 1, "_seq_no": there["number"], "_primary_term": 1, "found": True, "_source": there["source"]}
        if method == "DELETE":
            self.docs.pop(name, None)
            return (200, {**shown, "result": "deleted"}) if there else (404, {**shown, "result": "not_found"})
        conflict = 409, {"error": {"type": "version_conflict_engine_exception", "reason": "version conflict"}, "status": 409}
        given = json.loads(body)
        if "if_seq_no" in query and (not there or int(query["if_seq_no"]) != there["number"] or query["if_primary_term"] != "1"):
            return conflict if there else (404, {"error": {"type": "document_missing_exception", "reason": "missing"}, "status": 404})
        if query.get("op_type") == "create" and there:
            return conflict
        source = {**there["source"], **given["doc"]} if parts[1] == "_update" else given
        self.number += 1
        self.docs[name] = {"source": source, "number": self.number}
        return 200 if there else 201, {**shown, "_version": 1, "result": "updated" if there else "created", "_seq_no": self.number,
                                       "_primary_term": 1}


class S3(Recorder):
    """https://docs.aws.amazon.com/AmazonS3/latest/API/: objects of one bucket, path-style; every signature (version 4) is checked."""
    scheme = "s3"
    KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

    def __init__(self, port=0):
        super().__init__(port)
        self.bucket, self.region = "results", "eu-central-1"
        self.complaints = []

    def url(self, path="", user=""):
        return "s3://"

    def settings(self):
        return {"s3_bucket": self.bucket, "s3_region": self.region, "s3_endpoint_url": f"http://127.0.0.1:{self.port}",
                "s3_access_key_id": self.KEY, "s3_secret_access_key": self.SECRET}

    def value(self, key):
        doc = self.docs.get(key)
        return doc and doc.decode()

    def signature_error(self, method, path, query, headers, body):
        words = headers.get("Authorization", "")
        if not words.startswith("AWS4-HMAC-SHA256 "):
            return "AccessDenied"
        fields = dict(f.strip().split("=", 1) for f in words[len("AWS4-HMAC-SHA256 "):].split(","))
        key, scope = fields["Credential"].split("/", 1)
        if key != self.KEY:
            return "InvalidAccessKeyId"
        date, region, service, _ = scope.split("/")
        if (region, service) != (self.region, "s3"):
            return "AuthorizationHeaderMalformed"
        names = fields["SignedHeaders"].split(";")
        payload = headers.get("x-amz-content-sha256", "")
        if payload not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
            return "XAmzContentSHA256Mismatch"
        if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
            return "AccessDenied"
        if any(n not in headers for n in names):
            return "SignatureDoesNotMatch"
        lines = [method, urllib.parse.quote(urllib.parse.unquote(path), safe="/-_.~"), query,
                 *(f"{n}:{' '.join(headers.get(n, '').split())}" for n in names), "", ";".join(names), payload]
        text = "\n".join(["AWS4-HMAC-SHA256", headers.get("x-amz-date", ""), scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
        secret = ("AWS4" + self.SECRET).encode()
        for part in (date, region, service, "aws4_request"):
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        right = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
        return None if hmac.compare_digest(right, fields["Signature"]) else "SignatureDoesNotMatch"

    def answer(self, method, path, query, headers, body):
        def error(status, code):
            return status, {"Content-Type": "application/xml"}, f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        if headers.get("Content-Encoding") == "aws-chunked":
            return error(501, "NotImplemented")
        wrong = self.signature_error(method, path, urllib.parse.urlencode(sorted(query.items())), headers, body)
        if wrong:
            self.complaints.append((wrong, method, path, dict(headers.items())))
            return error(403, wrong)
        bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
        if bucket != self.bucket:
            return error(404, "NoSuchBucket")
        if method in ("GET", "HEAD"):
            if key not in self.docs:
                return error(404, "NoSuchKey")
            return 200, {"ETag": '"x"', "Content-Type": "binary/octet-stream"}, self.docs[key]
        if method == "DELETE":
            self.docs.pop(key, None)
            return 204, {}, b""
        self.docs[key] = body
        return 200, {"ETag": '"x"'}, b""


ALL = {server.scheme: server for server in (CouchDB, Consul, Elasticsearch, S3)}

if __name__ == "__main__":
    ALL[sys.argv[1]](int(sys.argv[2]))
    threading.Event().wait()
