#!/bin/sh
# Read a result from Redis, where it stands as JSON under Celery's key:
#
#     sh redis.sh redis://127.0.0.1:6379/0 TASK_ID
set -eu
redis-cli -u "$1" GET "celery-task-meta-$2" | sed 's/.*"result": \([^,}]*\).*/\1/'
