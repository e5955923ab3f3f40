/* crypto — digests, message authentication, randomness and hexadecimal, over OpenSSL. */
#ifndef THOLE_COMMON_CRYPTO_H
#define THOLE_COMMON_CRYPTO_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE     32
#define SHA256_HEX_SIZE 65 /* with the NUL */

void sha256(const void *data, size_t length, uint8_t out[SHA256_SIZE]);
int sha256_file(const char *path, uint8_t out[SHA256_SIZE], struct error *err);

/* Digest of what comes piece by piece; opaque. Out of memory ends the process, as OpenSSL cannot work without. */
struct sha256_stream;
struct sha256_stream *sha256_stream_new(void);
void sha256_stream_add(struct sha256_stream *stream, const void *data, size_t length);
void sha256_stream_end(struct sha256_stream *stream, uint8_t out[SHA256_SIZE]);
void sha256_stream_free(struct sha256_stream *stream);
CLEANUP_DEFINE(cleanup_sha256_stream_pointer, struct sha256_stream, sha256_stream_free)
#define cleanup_sha256_stream CLEANUP(cleanup_sha256_stream_pointer)

void hmac_sha256(const void *key, size_t key_length, const void *data, size_t length, uint8_t out[SHA256_SIZE]);

/* In time that does not depend on where the bytes differ. */
bool bytes_equal_constant_time(const void *a, const void *b, size_t length);

/* From the kernel's generator; ends the process where that is impossible. */
void random_bytes(void *out, size_t length);
uint64_t random_u64(void);

/* `out` holds 2·length + 1 bytes. */
void hex_encode(const void *data, size_t length, char *out);
/* Exactly `length` bytes from exactly 2·length digits; -1 otherwise. */
int hex_decode(const char *text, void *out, size_t length);

#endif
