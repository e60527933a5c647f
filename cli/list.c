/* list.c - `apium list`: queues with their depths, bindings, refused messages. */
#include "cli/ask.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"

struct values {
    const char *queues;
    apm_opt_number limit;
    bool json;
};

#define AT(member) offsetof(struct values, member)

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Listing Options" },
    { APM_OPT_TEXT, 'Q', "queues", NULL, "NAME,...", AT(queues), .help = "Only these queues." },
    { APM_OPT_INT, 'n', "limit", NULL, "N", AT(limit), .min = 1, .max = 1000000,
      .help = "At most so many refused messages (20)." },
    { APM_OPT_FLAG, 'j', "json", NULL, NULL, AT(json), .help = "Print JSON." },
    { 0 },
};

/* What the callbacks print into, and how it went. */
struct listing {
    apm_ask *ask;
    bool json;
    apium_status status;
    apium_error err;
};

static bool
failed(struct listing *to, const apium_error *err)
{
    if (err) {
        to->status = err->status;
        to->err = *err;
    }
    return err != NULL;
}

/* One JSON line, or nothing when there was no memory for it. */
static void
print_json(apm_buf *buf)
{
    char *text = apm_buf_take(buf, NULL);
    if (text)
        puts(text);
    free(text);
}

static void
add_text(apm_buf *buf, const char *name, const char *value)
{
    apm_json_add_key(buf, name);
    apm_json_add_stringz(buf, value);
}

static void
add_count(apm_buf *buf, const char *name, int64_t value)
{
    apm_json_add_key(buf, name);
    if (value < 0)
        apm_buf_addz(buf, "null");
    else
        apm_json_add_int(buf, value);
}

static const char *
cell(int64_t value, char out[24])
{
    if (value < 0)
        return "-";
    snprintf(out, 24, "%lld", (long long)value);
    return out;
}

static void
print_queue(const apm_queue_info *info, bool json)
{
    double age;
    bool aged = apm_queue_age(info, &age);
    if (!json) {
        char a[24], b[24], c[24], d[24], e[24], f[24] = "-";
        if (aged)
            snprintf(f, sizeof(f), "%.1f s", age);
        printf("%-28s %9s %9s %9s %9s %9s %11s\n", info->name, cell(info->ready, a),
               cell(info->unacked, b), cell(info->parked, c), cell(info->dead, d),
               cell(info->consumers, e), f);
        return;
    }
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '{');
    add_text(&buf, "queue", info->name);
    add_count(&buf, "ready", info->ready);
    add_count(&buf, "unacked", info->unacked);
    add_count(&buf, "parked", info->parked);
    add_count(&buf, "dead", info->dead);
    add_count(&buf, "consumers", info->consumers);
    apm_json_add_key(&buf, "oldest_age");
    if (aged)
        apm_json_add_double(&buf, age);
    else
        apm_buf_addz(&buf, "null");
    apm_buf_addc(&buf, '}');
    print_json(&buf);
}

static void
on_infos(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    struct listing *to = arg;
    if (!failed(to, err)) {
        if (!to->json)
            printf("%-28s %9s %9s %9s %9s %9s %11s\n", "Queue", "Ready", "Unacked", "Parked",
                   "Dead", "Consumers", "Oldest");
        for (size_t i = 0; i < n; i++)
            print_queue(&infos[i], to->json);
    }
    apm_ask_answered(to->ask);
}

static void
on_bindings(void *arg, const apm_binding *bindings, size_t n, const apium_error *err)
{
    struct listing *to = arg;
    if (!failed(to, err)) {
        if (!to->json) {
            printf("%-28s %-28s %s\n", "Queue", "Exchange", "Routing Key");
            printf("%-28s %-28s %s\n", "----------------", "----------------", "----------------");
        }
        for (size_t i = 0; i < n; i++) {
            if (!to->json) {
                printf("%-28s %-28s %s\n", bindings[i].queue, bindings[i].exchange,
                       bindings[i].routing_key);
                continue;
            }
            apm_buf buf;
            apm_buf_init(&buf, APM_BUF_MAX);
            apm_buf_addc(&buf, '{');
            add_text(&buf, "queue", bindings[i].queue);
            add_text(&buf, "exchange", bindings[i].exchange);
            add_text(&buf, "routing_key", bindings[i].routing_key);
            apm_buf_addc(&buf, '}');
            print_json(&buf);
        }
    }
    apm_ask_answered(to->ask);
}

/* The message as JSON where it is, otherwise as a string with what is no UTF-8 replaced. */
static void
add_message(apm_buf *buf, apm_str message)
{
    apm_json json;
    apm_json_add_key(buf, "message");
    if (apm_json_parse(message, &json, NULL) == APIUM_OK) {
        apm_buf_adds(buf, json.text);
        return;
    }
    if (apm_utf8_valid(message, true)) {
        apm_json_add_string(buf, message);
        return;
    }
    apm_buf
        latin; /* each byte as the character of its number: nothing is lost, nothing is invalid */
    apm_buf_init(&latin, APM_BUF_MAX);
    for (size_t i = 0; i < message.len; i++) {
        unsigned char byte = (unsigned char)message.p[i];
        if (byte >= 0x80)
            apm_buf_addc(&latin, (char)(0xC0 | byte >> 6));
        apm_buf_addc(&latin, (char)(byte >= 0x80 ? 0x80 | (byte & 0x3F) : byte));
    }
    apm_json_add_string(buf, apm_buf_str(&latin));
    apm_buf_clear(&latin);
}

/* Foreign bytes for a terminal: what is not plain text becomes a dot. */
static void
print_excerpt(apm_str message)
{
    enum { SHOWN = 200 };
    for (size_t i = 0; i < message.len && i < SHOWN; i++)
        putchar(message.p[i] >= ' ' && message.p[i] < 127 ? message.p[i] : '.');
    puts(message.len > SHOWN ? "..." : "");
}

static void
on_dead(void *arg, const apm_dead *dead, size_t n, const apium_error *err)
{
    struct listing *to = arg;
    if (failed(to, err))
        n = 0;
    for (size_t i = 0; i < n; i++) {
        char date[APM_DATE_MAX];
        apm_date_print(dead[i].at_us, 0, date);
        if (!to->json) {
            printf("%s %s: %s\n    ", date, dead[i].queue ? dead[i].queue : "-",
                   dead[i].reason ? dead[i].reason : "-");
            print_excerpt(dead[i].message);
            continue;
        }
        apm_buf buf;
        apm_buf_init(&buf, APM_BUF_MAX);
        apm_buf_addc(&buf, '{');
        add_text(&buf, "queue", dead[i].queue);
        add_text(&buf, "reason", dead[i].reason);
        add_text(&buf, "at", date);
        add_message(&buf, dead[i].message);
        apm_buf_addc(&buf, '}');
        print_json(&buf);
    }
    if (!err && n == 0 && !to->json)
        puts("No refused messages.");
    apm_ask_answered(to->ask);
}

/* Ask the question that the word names. */
static apium_status
ask_for(apm_ask *ask, apm_cli *cli, const struct values *v, apm_arena *arena, struct listing *to,
        apium_error *err)
{
    const char *word = cli->options.n_words ? cli->options.words[0] : "queues";
    const apm_broker_ops *ops = ask->broker->ops;
    size_t n = 0;
    const char **queues = v->queues ? apm_ask_queues(cli->app, v->queues, NULL, arena, &n) : NULL;

    if (strcmp(word, "queues") == 0)
        ops->inspect(ask->broker, queues, n, on_infos, to);
    else if (strcmp(word, "dead") == 0)
        ops->dead(ask->broker, v->limit.given ? (size_t)v->limit.value : 20, on_dead, to);
    else if (ops->bindings)
        ops->bindings(ask->broker, on_bindings, to);
    else
        return apm_fail(err, APIUM_E_UNSUPPORTED, "cannot list bindings: %s does not tell them",
                        ask->broker->link->shown);
    return apm_ask_wait(ask, "list", err);
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_error err = { 0 };
    apm_arena arena = { 0 };
    apm_ask ask = { 0 };
    struct listing to = { .ask = &ask, .json = v->json };
    const char *word = cli->options.n_words ? cli->options.words[0] : "queues";

    if (strcmp(word, "queues") != 0 && strcmp(word, "bindings") != 0 && strcmp(word, "dead") != 0)
        return apm_cli_misused(cli, "No such command '%s': queues, bindings or dead.", word);
    apium_status st = apm_ask_open(&ask, cli->app, &err);
    if (st == APIUM_OK)
        st = ask_for(&ask, cli, v, &arena, &to, &err);
    int code = st != APIUM_OK ? apm_cli_fail(cli, &err) : APM_EXIT_OK;
    if (st == APIUM_OK && to.status != APIUM_OK)
        code = apm_cli_fail(cli, &to.err);
    apm_ask_close(&ask);
    apm_arena_clear(&arena);
    return code;
}

const apm_command apm_cmd_list = {
    .name = "list",
    .words = "[queues|bindings|dead]",
    .max_words = 1,
    .summary = "Get info from the broker: queues and their depths, bindings, refused messages.",
    .about = "  queues    how many messages wait, are held by workers, wait for their time, were "
             "refused,\n"
             "            and how long the first one waits (the default)\n"
             "  bindings  which exchange and routing key lead to which queue\n"
             "  dead      messages that were refused, newest first, with the reason",
    .options = options,
    .size = sizeof(struct values),
    .run = run,
};
