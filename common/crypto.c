#include "common/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/random.h>

/* A stream is OpenSSL's context under a name of ours. */
static EVP_MD_CTX *context_of(struct sha256_stream *stream)
{
    return (EVP_MD_CTX *)(void *)stream;
}

struct sha256_stream *sha256_stream_new(void)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1)
        abort();
    return (struct sha256_stream *)(void *)context;
}

void sha256_stream_add(struct sha256_stream *stream, const void *data, size_t length)
{
    EVP_DigestUpdate(context_of(stream), data, length);
}

void sha256_stream_end(struct sha256_stream *stream, uint8_t out[SHA256_SIZE])
{
    EVP_DigestFinal_ex(context_of(stream), out, NULL);
}

void sha256_stream_free(struct sha256_stream *stream)
{
    EVP_MD_CTX_free(context_of(stream));
}

void sha256(const void *data, size_t length, uint8_t out[SHA256_SIZE])
{
    cleanup_sha256_stream struct sha256_stream *stream = sha256_stream_new();
    sha256_stream_add(stream, data, length);
    sha256_stream_end(stream, out);
}

int sha256_file(const char *path, uint8_t out[SHA256_SIZE], struct error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "open '%s'", path);
    cleanup_sha256_stream struct sha256_stream *stream = sha256_stream_new();
    char chunk[65536];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, "read '%s'", path);
        if (got == 0)
            break;
        sha256_stream_add(stream, chunk, (size_t)got);
    }
    sha256_stream_end(stream, out);
    return 0;
}

void hmac_sha256(const void *key, size_t key_length, const void *data, size_t length, uint8_t out[SHA256_SIZE])
{
    if (HMAC(EVP_sha256(), key, (int)key_length, data, length, out, NULL) == NULL)
        abort();
}

bool bytes_equal_constant_time(const void *a, const void *b, size_t length)
{
    return CRYPTO_memcmp(a, b, length) == 0;
}

void random_bytes(void *out, size_t length)
{
    char *next = out;
    while (length > 0) {
        ssize_t got = getrandom(next, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            abort();
        next += got;
        length -= (size_t)got;
    }
}

uint64_t random_u64(void)
{
    uint64_t value;
    random_bytes(&value, sizeof value);
    return value;
}

void hex_encode(const void *data, size_t length, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * length] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hex_decode(const char *text, void *out, size_t length)
{
    uint8_t *bytes = out;
    if (strlen(text) != 2 * length)
        return -1;
    for (size_t i = 0; i < length; i++) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
