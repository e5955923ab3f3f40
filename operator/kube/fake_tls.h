/* fake_tls — certificates made on the spot, and the server's side of TLS in memory. Only tests link it. */
#ifndef THOLE_OPERATOR_KUBE_FAKE_TLS_H
#define THOLE_OPERATOR_KUBE_FAKE_TLS_H

#include "common/buffer.h"

#include <openssl/ssl.h>
#include <stdbool.h>

/* A certificate of `name` for 127.0.0.1, signed by itself, and its key: PEM, to be freed. */
void fake_certificate(const char *name, char **certificate_pem, char **key_pem);

/* Offers HTTP/2 or only HTTP/1.1; takes any client's certificate. */
SSL_CTX *fake_tls_context(const char *certificate_pem, const char *key_pem, bool http2);

/* One connection's TLS between two memory buffers. */
SSL *fake_tls_new(SSL_CTX *context);

/* Takes bytes of the wire and appends what they say to `plain`. -1 where the client broke the connection off. */
int fake_tls_receive(SSL *tls, const char *wire, size_t length, struct buffer *plain);
void fake_tls_send(SSL *tls, const void *plain, size_t length);
/* Moves what is to go out to `wire`. */
void fake_tls_flush(SSL *tls, struct buffer *wire);
/* The common name of the client's certificate, "" without one. */
void fake_tls_client(SSL *tls, char *out, size_t size);

#endif
