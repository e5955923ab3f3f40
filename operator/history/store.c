#include "history/store.h"

#include "common/clock.h"

enum {
    TIMEOUT_MS = 5000, /* to find the server, to connect */
    ANSWER_MS = 10000, /* for one answer */
    ATTEMPTS = 5,      /* when somebody else writes the same document meanwhile */
    DUPLICATE_KEY = 11000,
};

struct store {
    mongoc_uri_t *uri;
    mongoc_client_t *client; /* NULL: not connected */
    mongoc_collection_t *collection;
    bson_t *write_options; /* by a majority: what is acknowledged outlives the loss of a member */
};

static void set_where_absent(mongoc_uri_t *uri, const char *option, int32_t value)
{
    if (mongoc_uri_get_option_as_int32(uri, option, -1) < 0)
        mongoc_uri_set_option_as_int32(uri, option, value);
}

static bson_t *majority(void)
{
    mongoc_write_concern_t *concern = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(concern, ANSWER_MS / 2);
    bson_t *options = bson_new();
    mongoc_write_concern_append(concern, options);
    mongoc_write_concern_destroy(concern);
    return options;
}

static void client_drop(struct store *store)
{
    mongoc_collection_destroy(store->collection);
    mongoc_client_destroy(store->client);
    store->collection = NULL;
    store->client = NULL;
}

static int client_connect(struct store *store, struct error *err)
{
    bson_error_t mistake;
    store->client = mongoc_client_new_from_uri_with_error(store->uri, &mistake);
    if (store->client == NULL)
        return error_set(err, "the MongoDB URI cannot be used: %s", mistake.message);
    mongoc_client_set_error_api(store->client, MONGOC_ERROR_API_VERSION_2);
    mongoc_client_set_appname(store->client, "thole-operator");
    store->collection = mongoc_client_get_collection(store->client, "thole", "history");
    return 0;
}

struct store *store_open(const char *text, struct error *err)
{
    bson_error_t mistake;
    mongoc_uri_t *uri = mongoc_uri_new_with_error(text, &mistake);
    if (uri == NULL) {
        /* The text is not shown: it may hold a password. */
        error_set(err, "the MongoDB URI is malformed (%s): write mongodb://[user:password@]host[:port]",
                  mistake.message);
        return NULL;
    }
    set_where_absent(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, TIMEOUT_MS);
    set_where_absent(uri, MONGOC_URI_CONNECTTIMEOUTMS, TIMEOUT_MS);
    set_where_absent(uri, MONGOC_URI_SOCKETTIMEOUTMS, ANSWER_MS);
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        mongoc_uri_destroy(uri);
        error_set(err, "out of memory for the history");
        return NULL;
    }
    store->uri = uri;
    store->write_options = majority();
    if (client_connect(store, err) < 0) {
        store_close(store);
        return NULL;
    }
    return store;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    client_drop(store);
    mongoc_uri_destroy(store->uri);
    bson_destroy(store->write_options);
    free(store);
}

static enum store_outcome failure(const bson_error_t *mistake, struct error *err)
{
    error_set(err, "MongoDB: %s", mistake->message);
    bool answered = mistake->domain == MONGOC_ERROR_SERVER || mistake->domain == MONGOC_ERROR_BSON;
    return answered ? STORE_REFUSED : STORE_AWAY;
}

/* `*stored` NULL: there is no document of this job. */
static enum store_outcome read_stored(struct store *store, const struct record *record, struct record **stored,
                                      int64_t *revision, struct error *err)
{
    bson_t filter = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&filter, "_id", record->job_uid);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(store->collection, &filter, NULL, NULL);
    const bson_t *document = NULL;
    bson_error_t mistake;
    enum store_outcome outcome = STORE_SETTLED;
    *stored = NULL;
    if (mongoc_cursor_next(cursor, &document)) {
        if (record_from_bson(stored, revision, document, err) < 0)
            outcome = STORE_REFUSED;
    } else if (mongoc_cursor_error(cursor, &mistake)) {
        outcome = failure(&mistake, err);
    }
    mongoc_cursor_destroy(cursor);
    bson_destroy(&filter);
    return outcome;
}

/* `*raced`: somebody else wrote meanwhile. */
static enum store_outcome insert(struct store *store, const bson_t *document, bool *raced, struct error *err)
{
    bson_error_t mistake;
    if (mongoc_collection_insert_one(store->collection, document, store->write_options, NULL, &mistake))
        return STORE_WRITTEN;
    *raced = mistake.code == DUPLICATE_KEY;
    return failure(&mistake, err);
}

static enum store_outcome replace(struct store *store, const char *uid, int64_t revision, const bson_t *document,
                                  bool *raced, struct error *err)
{
    bson_t filter = BSON_INITIALIZER, reply;
    BSON_APPEND_UTF8(&filter, "_id", uid);
    BSON_APPEND_INT64(&filter, "revision", revision);
    bson_error_t mistake;
    bson_iter_t matched;
    enum store_outcome outcome = STORE_WRITTEN;
    if (!mongoc_collection_replace_one(store->collection, &filter, document, store->write_options, &reply, &mistake))
        outcome = failure(&mistake, err);
    else if (bson_iter_init_find(&matched, &reply, "matchedCount") && bson_iter_as_int64(&matched) == 0)
        *raced = true;
    bson_destroy(&reply);
    bson_destroy(&filter);
    return outcome;
}

/* Reads, merges and writes on the condition that nobody has written in between. */
static enum store_outcome attempt(struct store *store, const struct record *record, bool *raced, struct error *err)
{
    cleanup_record struct record *stored = NULL;
    int64_t revision = 0;
    enum store_outcome outcome = read_stored(store, record, &stored, &revision, err);
    if (outcome != STORE_SETTLED)
        return outcome;
    cleanup_record struct record *merged = record_copy(record, err);
    if (merged == NULL || (stored != NULL && record_merge(merged, stored, err) < 0))
        return STORE_REFUSED;
    if (stored != NULL && record_equal(merged, stored))
        return STORE_SETTLED;

    bson_t document;
    record_to_bson(merged, revision + 1, clock_wall_seconds(), &document);
    outcome = stored == NULL ? insert(store, &document, raced, err)
                             : replace(store, record->job_uid, revision, &document, raced, err);
    bson_destroy(&document);
    return outcome;
}

static enum store_outcome write_on_condition(struct store *store, const struct record *record, struct error *err)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        bool raced = false;
        enum store_outcome outcome = attempt(store, record, &raced, err);
        if (!raced)
            return outcome;
    }
    error_set(err, "somebody else keeps writing the document '%s' of 'thole.history'", record->job_uid);
    return STORE_REFUSED;
}

enum store_outcome store_write(struct store *store, const struct record *record, struct error *err)
{
    if (store->client == NULL && client_connect(store, err) < 0)
        return STORE_AWAY;
    enum store_outcome outcome = write_on_condition(store, record, err);
    /* A client that has failed to find its server sleeps for seconds before it looks again, and may know an address
     * that is no longer its server's: the next attempt gets a new one. */
    if (outcome == STORE_AWAY)
        client_drop(store);
    return outcome;
}
