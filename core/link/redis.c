/*
 * redis.c - the life of a link to Redis.
 *
 *   (sentinel?) ──▶ connecting ──▶ looking (INFO) ──▶ up ──▶ lost ──▶ wait ──▶ next alternative ...
 *
 * "Up" means that the server takes commands: one that is loading its file, lost its master or was made a replica counts
 * as unreachable, and the next alternative is tried. Only the command connection decides; subscriber and waiting connections
 * are reopened beside it and dropped with it.
 */
#include "core/link/redis_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"

#define TICK_MS       1000
#define QUICK_TICK_MS 100  /* while somebody's patience may end */
#define STEADY_MS     5000 /* up for so long: its loss is no sign that the next one is lost too */
#define READ_BYTES    (256 * 1024)

static void
on_closed(uv_handle_t *handle)
{
    redis_handle_closed(handle->data);
}

bool
redis_handle_closed(apm_redis *link)
{
    if (--link->handles || !link->closing)
        return false;
    redis_requests_clear(link);
    for (unsigned i = 0; i < link->n_keysets; i++) {
        free(link->keysets[i].unacked);
        free(link->keysets[i].index);
        free(link->keysets[i].dead);
        free(link->keysets[i].prefix);
        free(link->keysets[i].sep);
    }
    apm_buf_clear(&link->spent);
    free(link->target_host);
    free(link->addrs);
    apm_link_closed(&link->base);
    return true;
}

/* ---- connecting ---- */

static void
on_retry(uv_timer_t *timer)
{
    apm_redis *link = timer->data;
    if (link->closing)
        return;
    if (link->sentinels)
        redis_sentinel_ask(link);
    else
        redis_open_conn(link);
}

/* Wait before the next attempt. Alternatives follow each other at once; the wait is between rounds. */
static void
try_again(apm_redis *link, const char *why)
{
    const apm_settings *settings = apm_links_settings(link->base.set);
    bool round_over = link->sentinels || ++link->at % link->n_addrs == 0;
    int64_t wait_ms = round_over ? apm_link_backoff_ms(link->attempt++) : 0;
    char where[160], text[512];

    link->at %= link->n_addrs;
    apm_redis_addr_print(&link->target, where, sizeof(where));
    if (settings->broker_connection_max_retries > 0)
        snprintf(text, sizeof(text),
                 "Cannot connect to %s: %s (%s). Trying again in %.2f seconds... (%u/%lld)",
                 link->base.shown, why, where, (double)wait_ms / 1000.0, link->attempt,
                 (long long)settings->broker_connection_max_retries);
    else
        snprintf(text, sizeof(text),
                 "Cannot connect to %s: %s (%s). Trying again in %.2f seconds...", link->base.shown,
                 why, where, (double)wait_ms / 1000.0);
    uv_timer_start(&link->retry, on_retry, (uint64_t)wait_ms, 0);
    apm_link_changed(&link->base, false, text);
}

void
redis_attempt_failed(apm_redis *link, apium_status status, const char *why)
{
    if (link->closing)
        return;
    snprintf(link->last_error, sizeof(link->last_error), "%s", why);
    link->last_status = status;
    /* A client that cannot wait for ever is told at once that it is not let in: asking again will not help it. */
    if (apm_links_patience_ms(link->base.set) >= 0 &&
        (status == APIUM_E_REFUSED || status == APIUM_E_CONFIG)) {
        char text[400];
        snprintf(text, sizeof(text), "cannot connect to %s: %s", link->base.shown, why);
        redis_requests_fail(link, status, text);
        redis_units_clear(link, status, text);
    }
    try_again(link, why);
}

static void
on_ended(void *arg, apm_redis_conn *conn, const apium_error *err)
{
    apm_redis *link = arg;
    bool was_up = link->base.up;

    (void)conn;
    link->cmd = NULL;
    redis_subs_down(link);
    redis_requests_lost(link);
    if (was_up) /* a connection that was good is tried again at once, one that broke soon after a moment */
        link->attempt = apm_clock_ms() - link->up_since_ms >= STEADY_MS ? 0 : 1;
    redis_attempt_failed(link, err->status, err->text);
}

void
redis_lose(apm_redis *link, apium_status status, const char *why)
{
    if (link->cmd)
        apm_redis_conn_fail(link->cmd, status, why);
}

/* The value of a line of INFO, copied. */
static void
info_line(const redisReply *info, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    const char *at = info->str;

    *out = '\0';
    while (at && *at) {
        if (strncmp(at, name, len) == 0 && at[len] == ':') {
            at += len + 1;
            snprintf(out, size, "%.*s", (int)strcspn(at, "\r\n"), at);
            return;
        }
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
}

static void
on_info(void *arg, const redisReply *info)
{
    apm_redis *link = arg;
    char line[64], run_id[sizeof(link->run_id)] = "";
    bool lose = false;

    if (!info)
        return;
    link->version = 0;
    if (info->type == REDIS_REPLY_ERROR && redis_says_later(info->str, &lose)) {
        redis_lose(link, APIUM_E_CLOSED, info->str);
        return;
    }
    if (info->type == REDIS_REPLY_STRING) { /* else we may not ask, and find out as we go */
        unsigned major = 0, minor = 0;
        info_line(info, "redis_version", line, sizeof(line));
        if (sscanf(line, "%u.%u", &major, &minor) == 2)
            link->version = (int)(major * 100 + minor);
        info_line(info, "loading", line, sizeof(line));
        if (strcmp(line, "1") == 0) {
            redis_lose(link, APIUM_E_CLOSED, "the server is loading its data");
            return;
        }
        info_line(info, "role", line, sizeof(line));
        if (link->sentinels && strcmp(line, "slave") == 0) {
            redis_lose(link, APIUM_E_CLOSED, "the server is a replica");
            return;
        }
        info_line(info, "run_id", run_id, sizeof(run_id));
    }
    /* What was written to the connection before may still wait in a buffer on its way: end it on the server, so that it cannot
     * take effect after what follows (a fetch, after we asked what became of it). */
    if (link->conn_id && *run_id && strcmp(run_id, link->run_id) == 0) {
        apm_buf cmd;
        apm_buf_init(&cmd, 256);
        apm_resp_open(&cmd, 4);
        apm_resp_addz(&cmd, "CLIENT");
        apm_resp_addz(&cmd, "KILL");
        apm_resp_addz(&cmd, "ID");
        apm_resp_int(&cmd, link->conn_id);
        apm_redis_conn_send(link->cmd, apm_buf_str(&cmd), 0, NULL, NULL);
        apm_buf_clear(&cmd);
    }
    memcpy(link->run_id, run_id, sizeof(run_id));
    link->conn_id = apm_redis_conn_id(link->cmd);
    link->up_since_ms = apm_clock_ms();
    link->epoch++;
    link->ahead_at_ms = 0; /* another server has another clock */
    redis_requests_fresh(link);

    char where[160], text[512];
    apm_redis_addr_print(&link->target, where, sizeof(where));
    snprintf(text, sizeof(text), "Connected to %s (%s)", link->base.shown, where);
    link->sub_retry_ms = 0;
    apm_link_changed(&link->base, true, text);
    redis_subs_tick(link);
}

static void
on_ready(void *arg, apm_redis_conn *conn)
{
    apm_redis_conn_send(conn, APM_STR("*1\r\n$4\r\nINFO\r\n"), 0, on_info, arg);
    apm_redis_conn_flush(conn);
}

static void
on_conn_freed(void *arg)
{
    redis_handle_closed(arg);
}

static apm_redis_conn *
open_conn(apm_redis *link, const apm_redis_conn_opts *opts)
{
    apm_redis_conn_opts full = *opts;
    double timeout = apm_links_settings(link->base.set)->broker_connection_timeout;

    full.loop = apm_links_loop(link->base.set);
    full.addr = &link->target;
    full.connect_ms = timeout > 0 ? (int64_t)(timeout * 1000.0) : 4000;
    full.on_freed = on_conn_freed;
    full.freed_arg = link;
    full.list = &link->conns;
    link->handles++;
    apm_redis_conn *conn = apm_redis_conn_open(&full);
    if (!conn)
        link->handles--;
    return conn;
}

void
redis_open_conn(apm_redis *link)
{
    if (!link->sentinels)
        link->target = link->addrs[link->at];
    link->cmd = open_conn(link, &(apm_redis_conn_opts){ .read_bytes = READ_BYTES,
                                                        .on_ready = on_ready,
                                                        .on_ended = on_ended,
                                                        .arg = link });
    if (!link->cmd)
        redis_attempt_failed(link, APIUM_E_NOMEM, "out of memory");
}

apm_redis_conn *
apm_redis_connect(apm_link *base, const apm_redis_conn_opts *opts)
{
    apm_redis *link = (apm_redis *)base;
    return base->up && !link->closing ? open_conn(link, opts) : NULL;
}

/* ---- the loop ---- */

/* The loop is about to sleep: everything gathered leaves now. */
static void
pump(apm_redis *link)
{
    if (link->base.up) {
        redis_units_pump(
            link); /* before what the hooks ask for: who settles and fetches finds it settled */
        for (apm_redis_hook *hook = link->hooks, *next; hook; hook = next) {
            next = hook->next;
            hook->run(hook->arg);
        }
        redis_units_pump(link);
        redis_requests_pump(link);
    }
    for (apm_redis_conn *conn = link->conns, *next; conn; conn = next) {
        next = apm_redis_conn_next(conn);
        apm_redis_conn_flush(conn);
    }
}

static void
on_prepare(uv_prepare_t *prepare)
{
    apm_redis *link = prepare->data;
    if (!link->closing)
        pump(link);
}

static void
on_tick(uv_timer_t *timer)
{
    apm_redis *link = timer->data;
    for (apm_redis_conn *conn = link->conns, *next; conn; conn = next) {
        next = apm_redis_conn_next(conn);
        apm_redis_conn_tick(conn);
        if (link->closing)
            return;
    }
    redis_subs_tick(link);
    redis_requests_tick(link);
    redis_units_tick(link);
    bool quick = !link->base.up && apm_links_patience_ms(link->base.set) >= 0;
    uint64_t want = quick ? QUICK_TICK_MS : TICK_MS;
    if (!link->closing && uv_timer_get_repeat(timer) != want)
        uv_timer_start(timer, on_tick, want, want);
}

/* ---- the table ---- */

static apium_status
read_addrs(apm_redis *link, apium_error *err)
{
    apm_urls *urls = &link->base.urls;

    link->addrs = calloc(urls->n, sizeof(*link->addrs));
    if (!link->addrs)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", link->base.shown);
    link->n_addrs = urls->n;
    for (size_t i = 0; i < urls->n; i++) {
        apium_error why;
        if (apm_redis_addr_read(&link->addrs[i], urls, i, &why) != APIUM_OK)
            return apm_fail(err, why.status, "cannot open \"%s\": %s", link->base.shown, why.text);
    }
    link->sentinels = strcmp(urls->items[0].scheme, "sentinel") == 0;
    if (!link->sentinels)
        return APIUM_OK;
    link->master_name = apm_url_param(urls, &urls->items[0], "master_name");
    if (!link->master_name)
        link->master_name = apm_links_settings(link->base.set)->master_name;
    if (!link->master_name || !*link->master_name)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot open \"%s\": 'master_name' transport option must be specified.",
                        link->base.shown);
    return APIUM_OK;
}

static bool
redis_same(const apm_link *base, const apm_urls *urls)
{
    const apm_redis *link = (const apm_redis *)base;
    apm_urls *other = (apm_urls *)(uintptr_t)urls; /* reading a parameter may use its arena */

    if (urls->n != link->n_addrs || strcmp(urls->items[0].scheme, base->urls.items[0].scheme) != 0)
        return false;
    for (size_t i = 0; i < urls->n; i++) {
        apm_redis_addr addr;
        if (apm_redis_addr_read(&addr, other, i, NULL) != APIUM_OK ||
            !apm_redis_addr_same(&addr, &link->addrs[i]))
            return false;
    }
    const char *master = apm_url_param(other, &urls->items[0], "master_name");
    return !master || !link->master_name || strcmp(master, link->master_name) == 0;
}

static apium_status
redis_open(apm_link *base, apium_error *err)
{
    apm_redis *link = (apm_redis *)base;
    uv_loop_t *loop = apm_links_loop(base->set);
    apium_status st = read_addrs(link, err);

    if (st != APIUM_OK) {
        free(link->addrs);
        return st;
    }
    link->units_tail = &link->units;
    apm_buf_init(&link->spent, 1 << 20);
    const char *prefix = apm_links_settings(base->set)->global_keyprefix;
    snprintf(link->once, sizeof(link->once), "%.16sapium-once-%016llx", prefix ? prefix : "",
             (unsigned long long)apm_random64());
    uv_prepare_init(loop, &link->prepare);
    uv_timer_init(loop, &link->tick);
    uv_timer_init(loop, &link->retry);
    uv_timer_init(loop, &link->gap);
    link->prepare.data = link->tick.data = link->retry.data = link->gap.data = link;
    link->handles = 4;
    uv_prepare_start(&link->prepare, on_prepare);
    uv_timer_start(&link->tick, on_tick, QUICK_TICK_MS, QUICK_TICK_MS);
    uv_timer_start(&link->retry, on_retry, 0, 0); /* not from inside the call */
    link->target = link->addrs[0];
    return APIUM_OK;
}

static void
redis_close(apm_link *base)
{
    apm_redis *link = (apm_redis *)base;

    if (link->closing)
        return;
    /* What was committed still leaves, unanswered; nothing new is asked for. */
    link->gaps = false;
    link->hooks = NULL;
    pump(link);
    link->closing = true;
    /* A clean end leaves no token behind: what was answered need not be remembered. Nobody waits for the answer. */
    if (base->up && link->n_spent && !link->spent.failed) {
        apm_buf head;
        apm_buf_init(&head, 64);
        apm_resp_open(&head, link->n_spent + 1);
        apm_resp_addz(&head, "DEL");
        if (link->current_db == link->target.db) {
            apm_redis_conn_push(link->cmd, apm_buf_str(&head));
            apm_redis_conn_push(link->cmd, apm_buf_str(&link->spent));
            apm_redis_conn_flush(link->cmd);
        }
        apm_buf_clear(&head);
    }
    base->up = false;
    redis_sentinel_stop(link);
    redis_subs_clear(link);
    while (link->conns)
        apm_redis_conn_close(link->conns);
    link->cmd = NULL;
    redis_units_clear(link, APIUM_E_CLOSED, "the link is closed");
    redis_requests_fail(link, APIUM_E_CLOSED, "the link is closed");
    uv_close((uv_handle_t *)&link->prepare, on_closed);
    uv_close((uv_handle_t *)&link->tick, on_closed);
    uv_close((uv_handle_t *)&link->retry, on_closed);
    uv_close((uv_handle_t *)&link->gap, on_closed);
}

static void
redis_flush(apm_link *base)
{
    pump((apm_redis *)base);
}

void
apm_redis_hook_add(apm_link *base, apm_redis_hook *hook)
{
    apm_redis *link = (apm_redis *)base;
    hook->next = link->hooks;
    link->hooks = hook;
}

void
apm_redis_hook_remove(apm_link *base, apm_redis_hook *hook)
{
    for (apm_redis_hook **at = &((apm_redis *)base)->hooks; *at; at = &(*at)->next) {
        if (*at == hook) {
            *at = hook->next;
            return;
        }
    }
}

int
apm_redis_version(apm_link *base)
{
    return ((apm_redis *)base)->version;
}

uint64_t
apm_redis_epoch(apm_link *base)
{
    return ((apm_redis *)base)->epoch;
}

apium_status
apm_redis_db(const char *url, int *db, apium_error *err)
{
    apm_urls urls;
    apm_redis_addr addr;
    apium_status st = apm_urls_parse(&urls, url, err);

    if (st != APIUM_OK)
        return st;
    st = apm_redis_addr_read(&addr, &urls, 0, err);
    if (st == APIUM_OK)
        *db = addr.db;
    apm_urls_clear(&urls);
    return st;
}

const apm_link_ops apm_redis_kind = {
    .kind = "redis",
    .schemes = (const char *const[]){ "redis", "rediss", "redis+socket", "sentinel", NULL },
    .size = sizeof(apm_redis),
    .same = redis_same,
    .open = redis_open,
    .close = redis_close,
    .unit_new = redis_unit_new,
    .unit_drop = redis_unit_drop,
    .commit = redis_unit_commit,
    .flush = redis_flush,
};
