#include "kube/fake_http2.h"

#include <ctype.h>
#include <nghttp2/nghttp2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { STREAMS = 64, HEADERS_MOST = 16, REQUEST_MOST = 4 * 1024 * 1024 };

struct stream {
    int32_t id;
    char method[16];
    struct buffer path, headers, body;
    const struct exchange *exchange;
    enum fault fault;
    size_t length, sent, split; /* of the body */
};

struct fake_http2 {
    nghttp2_session *session;
    fake_http2_request *request;
    fake_http2_send *send;
    void *arg;
    struct stream streams[STREAMS]; /* a ring: tests have few requests under way */
};

static struct stream *find(struct fake_http2 *http2, int32_t id)
{
    struct stream *stream = &http2->streams[(id / 2) % STREAMS];
    return stream->id == id ? stream : NULL;
}

static void clear(struct stream *stream)
{
    buffer_free(&stream->path);
    buffer_free(&stream->headers);
    buffer_free(&stream->body);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)session;
    struct fake_http2 *http2 = arg;
    struct stream *stream = &http2->streams[(frame->hd.stream_id / 2) % STREAMS];
    clear(stream);
    *stream = (struct stream){.id = frame->hd.stream_id};
    buffer_init(&stream->path, REQUEST_MOST);
    buffer_init(&stream->headers, REQUEST_MOST);
    buffer_init(&stream->body, REQUEST_MOST);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t length, uint8_t flags, void *arg)
{
    (void)session;
    (void)flags;
    struct stream *stream = find(arg, frame->hd.stream_id);
    if (strcmp((const char *)name, ":method") == 0)
        snprintf(stream->method, sizeof stream->method, "%s", (const char *)value);
    else if (strcmp((const char *)name, ":path") == 0)
        buffer_append(&stream->path, value, length, NULL);
    else
        buffer_printf(&stream->headers, NULL, "%.*s: %.*s\r\n", (int)name_length, (const char *)name, (int)length,
                      (const char *)value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t length, void *arg)
{
    (void)session;
    (void)flags;
    return buffer_append(&find(arg, id)->body, data, length, NULL);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)session;
    struct fake_http2 *http2 = arg;
    bool request = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (!request || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    struct stream *stream = find(http2, frame->hd.stream_id);
    cleanup_buffer struct buffer text;
    buffer_init(&text, REQUEST_MOST);
    buffer_printf(&text, NULL, "%s %s HTTP/2\r\n%s\r\n", stream->method, buffer_text(&stream->path),
                  buffer_text(&stream->headers));
    buffer_append_text(&text, buffer_text(&stream->body), NULL);
    http2->request(http2->arg, stream->id, buffer_text(&text));
    return 0;
}

struct fake_http2 *fake_http2_new(fake_http2_request *request, fake_http2_send *send, void *arg)
{
    struct fake_http2 *http2 = calloc(1, sizeof *http2);
    assert_non_null(http2);
    http2->request = request;
    http2->send = send;
    http2->arg = arg;
    nghttp2_session_callbacks *callbacks = NULL;
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    assert_int_equal(nghttp2_session_server_new(&http2->session, callbacks, http2), 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(http2->session, NGHTTP2_FLAG_NONE, NULL, 0);
    return http2;
}

void fake_http2_free(struct fake_http2 *http2)
{
    if (http2 == NULL)
        return;
    nghttp2_session_del(http2->session);
    for (int i = 0; i < STREAMS; i++)
        clear(&http2->streams[i]);
    free(http2);
}

static void send_frames(struct fake_http2 *http2)
{
    const uint8_t *data = NULL;
    ssize_t length;
    while ((length = nghttp2_session_mem_send(http2->session, &data)) > 0)
        http2->send(http2->arg, data, (size_t)length);
}

void fake_http2_receive(struct fake_http2 *http2, const char *data, size_t length)
{
    ssize_t taken = nghttp2_session_mem_recv(http2->session, (const uint8_t *)data, length);
    if (taken < 0)
        fail_msg("the client's HTTP/2 is broken: %s", nghttp2_strerror((int)taken));
    send_frames(http2);
}

static const char *body_of(const struct exchange *exchange)
{
    return exchange->body == NULL ? "" : exchange->body;
}

static bool is_complete(const struct stream *stream)
{
    return !stream->exchange->cut && (stream->fault == NO_FAULT || stream->fault == DRAIN);
}

/* A frame up to the split, and another to the end. */
static ssize_t give_body(nghttp2_session *session, int32_t id, uint8_t *out, size_t most, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    (void)session;
    (void)id;
    (void)arg;
    struct stream *stream = source->ptr;
    const char *body = body_of(stream->exchange);
    size_t end = stream->length;
    bool complete = is_complete(stream);
    if (stream->split < end && (stream->sent < stream->split || !complete))
        end = stream->split;
    size_t length = end - stream->sent < most ? end - stream->sent : most;
    memcpy(out, body + stream->sent, length);
    stream->sent += length;
    if (complete && stream->sent == stream->length && !stream->exchange->open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (length == 0)
        return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)length;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), 0};
}

/* "Name: value\r\n" again and again; `text` is changed, and must live as long as `out`. */
static size_t add_headers(nghttp2_nv *out, size_t count, char *text)
{
    while (*text != '\0') {
        char *name = text;
        size_t length = strcspn(name, "\r\n");
        text += length + strspn(text + length, "\r\n");
        name[length] = '\0';
        char *value = strchr(name, ':');
        assert_true(value != NULL && count < HEADERS_MOST);
        *value++ = '\0';
        for (char *c = name; *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
        out[count++] = header(name, value + strspn(value, " "));
    }
    return count;
}

static void go_away(struct fake_http2 *http2, int32_t last_stream)
{
    nghttp2_submit_goaway(http2->session, NGHTTP2_FLAG_NONE, last_stream, NGHTTP2_NO_ERROR, NULL, 0);
}

static void respond(struct fake_http2 *http2, struct stream *stream)
{
    const struct exchange *exchange = stream->exchange;
    char status[16];
    snprintf(status, sizeof status, "%d", exchange->status);
    nghttp2_nv headers[HEADERS_MOST] = {header(":status", status), header("content-type", "application/json")};
    cleanup_free char *text = strdup(exchange->headers == NULL ? "" : exchange->headers);
    assert_non_null(text);
    size_t count = add_headers(headers, 2, text);
    nghttp2_data_provider body = {.source = {.ptr = stream}, .read_callback = give_body};
    assert_int_equal(nghttp2_submit_response(http2->session, stream->id, headers, count, &body), 0);
    send_frames(http2);
}

void fake_http2_answer(struct fake_http2 *http2, int32_t id, const struct exchange *exchange, enum fault fault,
                       size_t split)
{
    struct stream *stream = find(http2, id);
    stream->exchange = exchange;
    stream->fault = fault;
    stream->length = strlen(body_of(exchange));
    stream->split = split;
    if (fault == DRAIN)
        go_away(http2, id);
    if (fault == REFUSAL)
        go_away(http2, id > 1 ? id - 2 : 0);
    else
        respond(http2, stream);
    if (fault == GOAWAY)
        go_away(http2, id);
    if (fault == STREAM_RESET)
        nghttp2_submit_rst_stream(http2->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
    send_frames(http2);
}
