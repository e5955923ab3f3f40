#include "common/report/report.h"

#include <math.h>
#include <string.h>

static const char *const type_names[] = {
    [REPORT_CHALLENGE] = "challenge",
    [REPORT_HELLO] = "hello",
    [REPORT_WELCOME] = "welcome",
    [REPORT_PROGRESS] = "progress",
    [REPORT_EPOCH] = "epoch",
    [REPORT_FINISHED] = "finished",
    [REPORT_ACK] = "ack",
    [REPORT_ACK_FINISHED] = "ack-finished",
    [REPORT_REFUSED] = "refused",
};

enum { TYPES = sizeof type_names / sizeof type_names[0] };

/* Above this a JSON number no longer holds every whole number. */
static const uint64_t WHOLE_MOST = UINT64_C(9007199254740992);

/* ---- texts ---- */

/* Length of the UTF-8 sequence at `text`, 0 where there is none (RFC 3629: shortest form, no surrogates). */
static size_t utf8_sequence(const char *text)
{
    const unsigned char *bytes = (const unsigned char *)text;
    if (bytes[0] < 0x80)
        return 1;
    size_t length = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    if ((bytes[0] == 0xe0 && bytes[1] < 0xa0) || (bytes[0] == 0xed && bytes[1] > 0x9f) ||
        (bytes[0] == 0xf0 && bytes[1] < 0x90) || (bytes[0] == 0xf4 && bytes[1] > 0x8f))
        return 0;
    return length;
}

static bool is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

static bool is_free_text(const char *text)
{
    while (*text != '\0') {
        size_t length = utf8_sequence(text);
        if (length == 0 || is_control(*text))
            return false;
        text += length;
    }
    return true;
}

static bool is_name(const char *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return *text != '\0' && text[strspn(text, letters)] == '\0';
}

/* ---- reading ---- */

enum need { OPTIONAL, REQUIRED };

static int read_text(const cJSON *json, const char *name, enum need need, char *out, size_t size, struct error *err)
{
    const cJSON *value = json_at(json, name);
    if (value == NULL && need == OPTIONAL)
        return 0;
    if (value == NULL || !cJSON_IsString(value))
        return error_set(err, "'%s' must be a string", name);
    size_t length = strlen(value->valuestring);
    if (length >= size)
        return error_set(err, "'%s' is longer than %zu bytes", name, size - 1);
    if (!is_free_text(value->valuestring))
        return error_set(err, "'%s' holds control characters or is not UTF-8", name);
    memcpy(out, value->valuestring, length + 1);
    return 0;
}

static int read_name(const cJSON *json, const char *name, char *out, size_t size, struct error *err)
{
    if (read_text(json, name, REQUIRED, out, size, err) < 0)
        return -1;
    if (!is_name(out))
        return error_set(err, "'%s' must be made of letters, digits, '.', '_' and '-'", name);
    return 0;
}

static int read_hex(const cJSON *json, const char *name, uint8_t *out, size_t size, struct error *err)
{
    const char *text = json_string(json, name, NULL);
    if (text == NULL || hex_decode(text, out, size) < 0)
        return error_set(err, "'%s' must be %zu hexadecimal digits", name, 2 * size);
    return 0;
}

static int read_u64(const cJSON *json, const char *name, uint64_t least, uint64_t most, uint64_t *out,
                    struct error *err)
{
    int64_t value = json_int(json, name, -1);
    if (value < 0 || (uint64_t)value < least || (uint64_t)value > most)
        return error_set(err, "'%s' must be a whole number from %llu to %llu", name, (unsigned long long)least,
                         (unsigned long long)most);
    *out = (uint64_t)value;
    return 0;
}

static int read_u32(const cJSON *json, const char *name, uint32_t least, uint32_t most, uint32_t *out,
                    struct error *err)
{
    uint64_t value = 0;
    if (read_u64(json, name, least, most, &value, err) < 0)
        return -1;
    *out = (uint32_t)value;
    return 0;
}

/* A finite number; where it is optional and absent, NaN. */
static int read_real(const cJSON *json, const char *name, enum need need, double least, double most, double *out,
                     struct error *err)
{
    const cJSON *value = json_at(json, name);
    *out = NAN;
    if (value == NULL && need == OPTIONAL)
        return 0;
    if (value == NULL || !cJSON_IsNumber(value) || !(value->valuedouble >= least && value->valuedouble <= most))
        return error_set(err, "'%s' must be a number from %g to %g", name, least, most);
    *out = value->valuedouble;
    return 0;
}

static const double REAL_MOST = 1.7976931348623157e308;

static int read_loss(const cJSON *json, const char *name, double *out, struct error *err)
{
    return read_real(json, name, OPTIONAL, -REAL_MOST, REAL_MOST, out, err);
}

static int read_bool(const cJSON *json, const char *name, const char *yes, const char *no, bool *out, struct error *err)
{
    const char *text = json_string(json, name, "");
    if (strcmp(text, yes) != 0 && strcmp(text, no) != 0)
        return error_set(err, "'%s' must be '%s' or '%s'", name, yes, no);
    *out = strcmp(text, yes) == 0;
    return 0;
}

/* ---- the messages ---- */

static int decode_challenge(struct report_message *out, const cJSON *json, struct error *err)
{
    return read_hex(json, "nonce", out->challenge.nonce, sizeof out->challenge.nonce, err);
}

static int decode_hello(struct report_message *out, const cJSON *json, struct error *err)
{
    struct report_hello *hello = &out->hello;
    uint8_t boot[(sizeof hello->boot - 1) / 2];
    if (read_name(json, "namespace", hello->job_namespace, sizeof hello->job_namespace, err) < 0 ||
        read_name(json, "name", hello->job_name, sizeof hello->job_name, err) < 0 ||
        read_name(json, "uid", hello->job_uid, sizeof hello->job_uid, err) < 0 ||
        read_name(json, "pod", hello->pod, sizeof hello->pod, err) < 0 ||
        read_name(json, "podUID", hello->pod_uid, sizeof hello->pod_uid, err) < 0 ||
        read_hex(json, "boot", boot, sizeof boot, err) < 0 ||
        read_name(json, "kernel", hello->kernel, sizeof hello->kernel, err) < 0 ||
        read_u32(json, "term", 1, UINT32_MAX, &hello->term, err) < 0 ||
        read_hex(json, "nonce", hello->nonce, sizeof hello->nonce, err) < 0 ||
        read_hex(json, "mac", hello->mac, sizeof hello->mac, err) < 0)
        return -1;
    /* As it was written: the mac covers these bytes. */
    memcpy(hello->boot, json_string(json, "boot", ""), sizeof hello->boot);
    return 0;
}

static int read_ack(const cJSON *json, struct report_ack *ack, struct error *err)
{
    if (read_u32(json, "status", 0, REPORT_EPOCHS_MOST, &ack->status, err) < 0)
        return -1;
    return read_u32(json, "history", 0, REPORT_EPOCHS_MOST, &ack->history, err);
}

static int decode_welcome(struct report_message *out, const cJSON *json, struct error *err)
{
    if (read_hex(json, "mac", out->welcome.mac, sizeof out->welcome.mac, err) < 0)
        return -1;
    return read_ack(json, &out->welcome.ack, err);
}

static int read_staleness(const cJSON *json, struct report_sync *sync, struct error *err)
{
    const cJSON *buckets = json_at(json, "sync.staleness");
    if (!cJSON_IsArray(buckets) || cJSON_GetArraySize(buckets) > REPORT_STALENESS_BUCKETS)
        return error_set(err, "'sync.staleness' must be a list of at most %d numbers", REPORT_STALENESS_BUCKETS);
    size_t next = 0;
    const cJSON *bucket = NULL;
    cJSON_ArrayForEach(bucket, buckets)
    {
        double count = cJSON_IsNumber(bucket) ? bucket->valuedouble : -1;
        if (!(count >= 0 && count <= (double)WHOLE_MOST) || (double)(uint64_t)count != count)
            return error_set(err, "'sync.staleness' must hold whole numbers from 0 to %llu",
                             (unsigned long long)WHOLE_MOST);
        sync->staleness[next++] = (uint64_t)count;
    }
    return 0;
}

static int read_sync(const cJSON *json, struct report_sync *sync, struct error *err)
{
    sync->known = json_at(json, "sync") != NULL;
    if (!sync->known)
        return 0;
    if (read_u64(json, "sync.steps", 0, WHOLE_MOST, &sync->steps, err) < 0 ||
        (json_at(json, "sync.samples") != NULL &&
         read_u64(json, "sync.samples", 0, WHOLE_MOST, &sync->samples, err) < 0) ||
        read_u64(json, "sync.duplicates", 0, WHOLE_MOST, &sync->duplicates, err) < 0 ||
        read_u64(json, "sync.stale", 0, WHOLE_MOST, &sync->stale, err) < 0)
        return -1;
    return read_staleness(json, sync, err);
}

static int decode_progress(struct report_message *out, const cJSON *json, struct error *err)
{
    struct report_progress *progress = &out->progress;
    if (read_u32(json, "term", 1, UINT32_MAX, &progress->term, err) < 0 ||
        read_u32(json, "epoch", 1, REPORT_EPOCHS_MOST, &progress->epoch, err) < 0 ||
        read_u64(json, "steps", 0, WHOLE_MOST, &progress->steps, err) < 0 ||
        read_u64(json, "step", 0, progress->steps, &progress->step, err) < 0 ||
        read_loss(json, "trainLoss", &progress->train_loss, err) < 0 ||
        read_u32(json, "workers", 0, REPORT_WORKERS_MOST, &progress->workers, err) < 0 ||
        read_u32(json, "idleWorkers", 0, REPORT_WORKERS_MOST, &progress->idle_workers, err) < 0 ||
        read_sync(json, &progress->sync, err) < 0)
        return -1;
    return read_text(json, "message", OPTIONAL, progress->message, sizeof progress->message, err);
}

static int decode_epoch(struct report_message *out, const cJSON *json, struct error *err)
{
    struct report_epoch *epoch = &out->epoch;
    if (read_u32(json, "term", 1, UINT32_MAX, &epoch->term, err) < 0 ||
        read_u32(json, "epoch", 1, REPORT_EPOCHS_MOST, &epoch->epoch, err) < 0 ||
        read_loss(json, "trainLoss", &epoch->train_loss, err) < 0 ||
        read_u32(json, "parallelism", 0, REPORT_WORKERS_MOST, &epoch->parallelism, err) < 0 ||
        read_real(json, "durationSeconds", REQUIRED, 0, REAL_MOST, &epoch->duration_seconds, err) < 0)
        return -1;
    epoch->validated = json_at(json, "accuracy") != NULL || json_at(json, "validationLoss") != NULL;
    if (!epoch->validated)
        return 0;
    if (read_loss(json, "validationLoss", &epoch->validation_loss, err) < 0)
        return -1;
    return read_real(json, "accuracy", OPTIONAL, 0, 100, &epoch->accuracy, err);
}

static int read_model(const cJSON *json, struct report_model *model, struct error *err)
{
    uint8_t digest[SHA256_SIZE];
    if (read_text(json, "model.path", REQUIRED, model->path, sizeof model->path, err) < 0 ||
        read_hex(json, "model.sha256", digest, sizeof digest, err) < 0 ||
        read_u64(json, "model.bytes", 0, WHOLE_MOST, &model->bytes, err) < 0 ||
        read_u64(json, "model.step", 0, WHOLE_MOST, &model->step, err) < 0)
        return -1;
    hex_encode(digest, sizeof digest, model->sha256);
    return 0;
}

static int decode_finished(struct report_message *out, const cJSON *json, struct error *err)
{
    struct report_finished *finished = &out->finished;
    if (read_u32(json, "term", 1, UINT32_MAX, &finished->term, err) < 0 ||
        read_bool(json, "result", "Succeeded", "Failed", &finished->succeeded, err) < 0 ||
        read_name(json, "reason", finished->reason, sizeof finished->reason, err) < 0 ||
        read_text(json, "message", OPTIONAL, finished->message, sizeof finished->message, err) < 0 ||
        read_sync(json, &finished->sync, err) < 0)
        return -1;
    finished->has_model = json_at(json, "model") != NULL;
    return finished->has_model ? read_model(json, &finished->model, err) : 0;
}

static int decode_ack(struct report_message *out, const cJSON *json, struct error *err)
{
    return read_ack(json, &out->ack, err);
}

static int decode_nothing(struct report_message *out, const cJSON *json, struct error *err)
{
    (void)out, (void)json, (void)err;
    return 0;
}

static int decode_refused(struct report_message *out, const cJSON *json, struct error *err)
{
    return read_text(json, "message", REQUIRED, out->refused.message, sizeof out->refused.message, err);
}

int report_decode(struct report_message *out, const char *text, size_t length, struct error *err)
{
    static int (*const decode[TYPES])(struct report_message *, const cJSON *, struct error *) = {
        [REPORT_CHALLENGE] = decode_challenge,
        [REPORT_HELLO] = decode_hello,
        [REPORT_WELCOME] = decode_welcome,
        [REPORT_PROGRESS] = decode_progress,
        [REPORT_EPOCH] = decode_epoch,
        [REPORT_FINISHED] = decode_finished,
        [REPORT_ACK] = decode_ack,
        [REPORT_ACK_FINISHED] = decode_nothing,
        [REPORT_REFUSED] = decode_refused,
    };
    memset(out, 0, sizeof *out);
    if (length > REPORT_MESSAGE_MOST)
        return error_set(err, "a message of %zu bytes is longer than %d", length, REPORT_MESSAGE_MOST);
    cleanup_json cJSON *json = json_parse(text, length, "the message", err);
    if (json == NULL)
        return -1;
    const char *type = json_string(json, "type", "");
    for (size_t i = 0; i < TYPES; i++) {
        if (strcmp(type, type_names[i]) == 0) {
            out->type = (enum report_type)i;
            return decode[i](out, json, err);
        }
    }
    return error_set(err, "'type' must name a message of " REPORT_SUBPROTOCOL);
}

/* ---- writing ----
 * Without memory cJSON's own functions return NULL, and so does everything here in the end: `good` collects it. */

struct writer {
    cJSON *json;
    bool good;
};

static void write_value(struct writer *writer, const char *name, cJSON *value)
{
    if (!writer->good || value == NULL || !cJSON_AddItemToObject(writer->json, name, value)) {
        cJSON_Delete(value);
        writer->good = false;
    }
}

static void write_whole(struct writer *writer, const char *name, uint64_t value)
{
    write_value(writer, name, cJSON_CreateNumber((double)value));
}

static void write_real(struct writer *writer, const char *name, double value)
{
    if (isfinite(value))
        write_value(writer, name, cJSON_CreateNumber(value));
}

static void write_text(struct writer *writer, const char *name, const char *text)
{
    cleanup_free char *clean = strdup(text);
    if (clean == NULL) {
        writer->good = false;
        return;
    }
    for (char *next = clean; *next != '\0';) {
        size_t length = utf8_sequence(next);
        if (length == 0)
            *next = '?';
        else if (is_control(*next))
            *next = ' ';
        next += length == 0 ? 1 : length;
    }
    write_value(writer, name, cJSON_CreateString(clean));
}

static void write_hex(struct writer *writer, const char *name, const uint8_t bytes[SHA256_SIZE])
{
    char text[SHA256_HEX_SIZE];
    hex_encode(bytes, SHA256_SIZE, text);
    write_value(writer, name, cJSON_CreateString(text));
}

static void write_hello(struct writer *writer, const struct report_hello *hello)
{
    write_text(writer, "namespace", hello->job_namespace);
    write_text(writer, "name", hello->job_name);
    write_text(writer, "uid", hello->job_uid);
    write_text(writer, "pod", hello->pod);
    write_text(writer, "podUID", hello->pod_uid);
    write_text(writer, "boot", hello->boot);
    write_whole(writer, "term", hello->term);
    write_text(writer, "kernel", hello->kernel);
    write_hex(writer, "nonce", hello->nonce);
    write_hex(writer, "mac", hello->mac);
}

static void write_sync(struct writer *writer, const struct report_sync *sync)
{
    if (!sync->known)
        return;
    struct writer inner = {.json = cJSON_CreateObject(), .good = true};
    inner.good = inner.json != NULL;
    write_whole(&inner, "steps", sync->steps);
    write_whole(&inner, "samples", sync->samples);
    write_whole(&inner, "duplicates", sync->duplicates);
    write_whole(&inner, "stale", sync->stale);
    double staleness[REPORT_STALENESS_BUCKETS];
    int buckets = 0;
    for (int i = 0; i < REPORT_STALENESS_BUCKETS; i++) {
        staleness[i] = (double)sync->staleness[i];
        buckets = sync->staleness[i] > 0 ? i + 1 : buckets;
    }
    write_value(&inner, "staleness", cJSON_CreateDoubleArray(staleness, buckets));
    writer->good = writer->good && inner.good;
    write_value(writer, "sync", inner.json);
}

static void write_progress(struct writer *writer, const struct report_progress *progress)
{
    write_whole(writer, "term", progress->term);
    write_whole(writer, "epoch", progress->epoch);
    write_whole(writer, "step", progress->step);
    write_whole(writer, "steps", progress->steps);
    write_real(writer, "trainLoss", progress->train_loss);
    write_whole(writer, "workers", progress->workers);
    write_whole(writer, "idleWorkers", progress->idle_workers);
    if (progress->message[0] != '\0')
        write_text(writer, "message", progress->message);
    write_sync(writer, &progress->sync);
}

static void write_epoch(struct writer *writer, const struct report_epoch *epoch)
{
    write_whole(writer, "term", epoch->term);
    write_whole(writer, "epoch", epoch->epoch);
    write_real(writer, "trainLoss", epoch->train_loss);
    if (epoch->validated) {
        write_real(writer, "validationLoss", epoch->validation_loss);
        write_real(writer, "accuracy", epoch->accuracy);
    }
    write_whole(writer, "parallelism", epoch->parallelism);
    write_real(writer, "durationSeconds", epoch->duration_seconds);
}

static void write_model(struct writer *writer, const struct report_model *from)
{
    struct writer model = {.json = cJSON_CreateObject(), .good = true};
    model.good = model.json != NULL;
    write_text(&model, "path", from->path);
    write_text(&model, "sha256", from->sha256);
    write_whole(&model, "bytes", from->bytes);
    write_whole(&model, "step", from->step);
    writer->good = writer->good && model.good;
    write_value(writer, "model", model.json);
}

static void write_finished(struct writer *writer, const struct report_finished *finished)
{
    write_whole(writer, "term", finished->term);
    write_text(writer, "result", finished->succeeded ? "Succeeded" : "Failed");
    write_text(writer, "reason", finished->reason);
    if (finished->message[0] != '\0')
        write_text(writer, "message", finished->message);
    if (finished->has_model)
        write_model(writer, &finished->model);
    write_sync(writer, &finished->sync);
}

static void write_ack(struct writer *writer, const struct report_ack *ack)
{
    write_whole(writer, "status", ack->status);
    write_whole(writer, "history", ack->history);
}

static void write_message(struct writer *writer, const struct report_message *message)
{
    write_text(writer, "type", type_names[message->type]);
    switch (message->type) {
    case REPORT_CHALLENGE:
        write_hex(writer, "nonce", message->challenge.nonce);
        break;
    case REPORT_HELLO:
        write_hello(writer, &message->hello);
        break;
    case REPORT_WELCOME:
        write_hex(writer, "mac", message->welcome.mac);
        write_ack(writer, &message->welcome.ack);
        break;
    case REPORT_PROGRESS:
        write_progress(writer, &message->progress);
        break;
    case REPORT_EPOCH:
        write_epoch(writer, &message->epoch);
        break;
    case REPORT_FINISHED:
        write_finished(writer, &message->finished);
        break;
    case REPORT_ACK:
        write_ack(writer, &message->ack);
        break;
    case REPORT_ACK_FINISHED:
        break;
    case REPORT_REFUSED:
        write_text(writer, "message", message->refused.message);
        break;
    }
}

char *report_encode(const struct report_message *message)
{
    struct writer writer = {.json = cJSON_CreateObject()};
    cleanup_json cJSON *json = writer.json;
    writer.good = json != NULL;
    write_message(&writer, message);
    return writer.good ? json_print(json) : NULL;
}

/* ---- authentication ---- */

struct mac_input {
    uint8_t bytes[32 + 2 * REPORT_NONCE_SIZE + sizeof((struct report_hello *)NULL)->job_uid +
                  sizeof((struct report_hello *)NULL)->pod_uid + sizeof((struct report_hello *)NULL)->boot];
    size_t length;
};

static void mac_add(struct mac_input *input, const void *data, size_t length)
{
    memcpy(input->bytes + input->length, data, length);
    input->length += length;
}

static void mac_add_text(struct mac_input *input, const char *text)
{
    mac_add(input, text, strlen(text) + 1);
}

void report_hello_mac(const struct report_hello *hello, const uint8_t token[REPORT_TOKEN_SIZE],
                      const uint8_t operator_nonce[REPORT_NONCE_SIZE], uint8_t out[SHA256_SIZE])
{
    struct mac_input input = {.length = 0};
    mac_add_text(&input, "coordinator");
    mac_add(&input, operator_nonce, REPORT_NONCE_SIZE);
    mac_add(&input, hello->nonce, REPORT_NONCE_SIZE);
    mac_add_text(&input, hello->job_uid);
    mac_add_text(&input, hello->pod_uid);
    mac_add_text(&input, hello->boot);
    hmac_sha256(token, REPORT_TOKEN_SIZE, input.bytes, input.length, out);
}

void report_welcome_mac(const uint8_t token[REPORT_TOKEN_SIZE], const uint8_t coordinator_nonce[REPORT_NONCE_SIZE],
                        const uint8_t operator_nonce[REPORT_NONCE_SIZE], uint8_t out[SHA256_SIZE])
{
    struct mac_input input = {.length = 0};
    mac_add_text(&input, "operator");
    mac_add(&input, coordinator_nonce, REPORT_NONCE_SIZE);
    mac_add(&input, operator_nonce, REPORT_NONCE_SIZE);
    hmac_sha256(token, REPORT_TOKEN_SIZE, input.bytes, input.length, out);
}
