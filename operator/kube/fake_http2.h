/* fake_http2 — the server's side of one HTTP/2 connection, in memory. Only tests link it. */
#ifndef THOLE_OPERATOR_KUBE_FAKE_HTTP2_H
#define THOLE_OPERATOR_KUBE_FAKE_HTTP2_H

#include "kube/fake_server.h"

struct fake_http2; /* opaque */

/* Called with each whole request, written as HTTP/1.1 would; `stream` names it for the answer. */
typedef void fake_http2_request(void *arg, int32_t stream, const char *request);
/* Called with the bytes of one frame. */
typedef void fake_http2_send(void *arg, const void *data, size_t length);

struct fake_http2 *fake_http2_new(fake_http2_request *request, fake_http2_send *send, void *arg);
void fake_http2_free(struct fake_http2 *http2);

void fake_http2_receive(struct fake_http2 *http2, const char *data, size_t length);

/* The body's first `split` bytes make a frame of their own, and there the fault strikes. `exchange` must live as long
 * as the connection. */
void fake_http2_answer(struct fake_http2 *http2, int32_t stream, const struct exchange *exchange, enum fault fault,
                       size_t split);

#endif
