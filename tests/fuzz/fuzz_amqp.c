/* fuzz_amqp.c - whatever a content header holds, it is refused or read; and what was read is JSON, which is written and read again as
 * the same. The bytes are given in hexadecimal, so that the changes hit any of them. */
#include "core/link/amqp.h"
#include "core/model/request_fields.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {
    /* content type and encoding, a header of each kind, delivery mode, priority, correlation id, reply to, expiration */
    "ff00 10 6170706c69636174696f6e2f6a736f6e 05 7574662d38 00000064 0173 53 00000002 6869 0174 74 "
    "01 0169 49 ffffffff "
    "016c 4c 0000000100000000 0164 64 3ff8000000000000 0176 56 0161 41 0000000a 49 00000001 53 "
    "00000000 0166 46 00000005 "
    "0178 74 00 00 0242 42 ff 0262 62 80 0275 75 ffff 0273 73 8000 02 00 02 6964 02 7274 03 313030",
    "2000 00000008 0146 46 00000000",
    "2000 0000000f 0154 54 0000000065000000 0144 44 02 000004d2 ",
    /* the same name twice, names of Celery's and others, and null */
    "2000 00000048 04 7461736b 53 00000001 61 02 6964 53 00000002 2261 07 72657472696573 49 "
    "00000003 04 7461736b 53 00000002 6262 "
    "03 657461 56 06 7374616d7073 46 00000000 05 67726f7570 41 00000001 56",
    "0000",
    "e000 00 00 00000000",
    NULL,
};

static int
digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void
check_again(const apm_message *msg, apm_buf *scratch)
{
    apm_buf bytes = { 0 };
    apm_arena arena = { 0 };
    apm_message again;
    apm_json was, is;

    apm_buf_init(&bytes, APM_BUF_MAX);
    /* Not everything that a stranger sends can be sent by us: an expiration that is no number, a key that grew. */
    if (apm_amqp_header_write(&bytes, msg, NULL) == APIUM_OK) {
        fuzz_check(apm_amqp_header_read(apm_buf_str(&bytes), &arena, scratch, &again, NULL) ==
                   APIUM_OK);
        fuzz_check(apm_json_parse(msg->headers, &was, NULL) == APIUM_OK);
        fuzz_check(apm_json_parse(again.headers, &is, NULL) == APIUM_OK);
        fuzz_check(apm_json_equal(was, is));
        fuzz_check(apm_str_eq(msg->content_type, again.content_type));
        fuzz_check(apm_str_eq(msg->reply_to, again.reply_to));
        fuzz_check(apm_str_eq(msg->expiration, again.expiration));
    }
    apm_arena_clear(&arena);
    apm_buf_clear(&bytes);
}

/* What the reader has found in the headers is what a look at their text finds. */
static void
check_fields(const apm_message *msg)
{
    apm_json seen[APM_FIELDS] = { 0 };

    if (!msg->fields)
        return;
    fuzz_check(msg->fields->of == msg->headers.p);
    fuzz_check(apm_fields_read(msg->headers, APM_F_HEADERS, seen, NULL) == APIUM_OK);
    for (int i = 0; i < APM_F_HEADERS; i++)
        fuzz_check(seen[i].type == msg->fields->field[i].type &&
                   seen[i].text.p == msg->fields->field[i].text.p &&
                   seen[i].text.len == msg->fields->field[i].text.len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = malloc(size / 2 + 1);
    apm_buf scratch = { 0 };
    apm_arena arena = { 0 };
    apm_message msg;
    apm_json headers;
    size_t len = 0;
    int high = -1;

    apm_buf_init(&scratch, APM_BUF_MAX);
    for (size_t i = 0; i < size; i++) {
        int d = digit(data[i]);
        if (d < 0)
            continue;
        if (high >= 0)
            bytes[len++] = (char)(high << 4 | d);
        high = high >= 0 ? -1 : d;
    }
    char *exact = malloc(len + 1); /* so that reading beyond the end is seen */
    memcpy(exact, bytes, len);
    if (apm_amqp_header_read((apm_str){ exact, len }, &arena, &scratch, &msg, NULL) == APIUM_OK) {
        fuzz_check(apm_json_parse(msg.headers, &headers, NULL) == APIUM_OK);
        fuzz_check(headers.type == APM_JSON_OBJECT);
        check_fields(&msg);
        check_again(&msg, &scratch);
    }
    apm_arena_clear(&arena);
    apm_buf_clear(&scratch);
    free(exact);
    free(bytes);
    return 0;
}
