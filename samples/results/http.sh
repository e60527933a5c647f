#!/bin/sh
# Call a task and read its result over HTTP, with curl:
#
#     sh http.sh http://127.0.0.1:8280
set -eu
base=${1%/}
id=$(curl -sf -d '{"task": "tasks.add", "args": [2, 3]}' "$base/tasks" | sed 's/.*"id": "\([^"]*\)".*/\1/')
task=
while ! printf '%s' "$task" | grep -q '"ready": true'; do
    task=$(curl -sf "$base/tasks/$id?wait=20")
done
printf '%s\n' "$task" | sed 's/.*"result": \([^,}]*\).*/\1/'
