/* message.h - a message as large as a call of tasks.noop in a list of Redis, with an id that the number makes. */
#include <stdio.h>

#define MESSAGE_MAX 1200

static inline int
message(char *out, long number)
{
    char id[64];
    snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012ld", number);
    return snprintf(
        out, MESSAGE_MAX,
        "{\"body\": "
        "\"W1tdLCB7fSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAiY2hv"
        "cmQiOiBudWxsfV0=\", \"content-encoding\": \"utf-8\", \"content-type\": "
        "\"application/json\", \"headers\": {\"lang\": \"py\", \"task\": \"tasks.noop\", \"id\": "
        "\"%s\", \"shadow\": null, \"eta\": null, \"expires\": null, \"group\": null, "
        "\"group_index\": null, \"retries\": 0, \"timelimit\": [null, null], \"root_id\": \"%s\", "
        "\"parent_id\": null, \"argsrepr\": \"()\", \"kwargsrepr\": \"{}\", \"origin\": "
        "\"gen1@bench\", \"ignore_result\": false, \"replaced_task_nesting\": 0, "
        "\"stamped_headers\": null, \"stamps\": {}}, \"properties\": {\"correlation_id\": \"%s\", "
        "\"reply_to\": \"00000000-0000-4000-8000-000000000000\", \"delivery_mode\": 2, "
        "\"delivery_info\": {\"exchange\": \"\", \"routing_key\": \"celery\"}, \"priority\": 0, "
        "\"body_encoding\": \"base64\", \"delivery_tag\": \"%s\"}}",
        id, id, id, id);
}
