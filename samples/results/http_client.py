"""Call a task and read its result over HTTP, with nothing but Python's own library:

    python3 http_client.py http://127.0.0.1:8280
"""
import json
import sys
import urllib.request

base = sys.argv[1].rstrip("/")
call = urllib.request.Request(base + "/tasks", json.dumps({"task": "tasks.add", "args": [2, 3]}).encode())
task = json.load(urllib.request.urlopen(call))["id"]
while True:
    result = json.load(urllib.request.urlopen(f"{base}/tasks/{task}?wait=20"))
    if result["ready"]:
        break
print(result["result"] if result["state"] == "SUCCESS" else result["error"]["message"])
