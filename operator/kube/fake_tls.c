#include "kube/fake_tls.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *text_of(BIO *bio)
{
    char *data = NULL;
    long length = BIO_get_mem_data(bio, &data);
    char *text = calloc(1, (size_t)length + 1);
    assert_non_null(text);
    memcpy(text, data, (size_t)length);
    BIO_free(bio);
    return text;
}

static void add_extension(X509 *certificate, int what, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, what, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

void fake_certificate(const char *name, char **certificate_pem, char **key_pem)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    assert_true(key != NULL && certificate != NULL);
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(certificate, subject);
    add_extension(certificate, NID_subject_alt_name, "IP:127.0.0.1");
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);

    BIO *out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(out, certificate);
    *certificate_pem = text_of(out);
    out = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
    *key_pem = text_of(out);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static int choose_protocol(SSL *tls, const unsigned char **out, unsigned char *out_length, const unsigned char *offered,
                           unsigned offered_length, void *arg)
{
    (void)tls;
    static const unsigned char both[] = "\x02h2\x08http/1.1";
    const unsigned char *ours = arg == NULL ? both + 3 : both;
    unsigned length = (unsigned)(sizeof both - 1) - (arg == NULL ? 3 : 0);
    int found = SSL_select_next_proto((unsigned char **)out, out_length, ours, length, offered, offered_length);
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int believe(int good, X509_STORE_CTX *store)
{
    (void)good;
    (void)store;
    return 1;
}

SSL_CTX *fake_tls_context(const char *certificate_pem, const char *key_pem, bool http2)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    BIO *in = BIO_new_mem_buf(certificate_pem, -1);
    X509 *certificate = PEM_read_bio_X509(in, NULL, NULL, NULL);
    BIO_free(in);
    in = BIO_new_mem_buf(key_pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    BIO_free(in);
    assert_int_equal(SSL_CTX_use_certificate(context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, believe);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, http2 ? context : NULL);
    return context;
}

SSL *fake_tls_new(SSL_CTX *context)
{
    SSL *tls = SSL_new(context);
    assert_non_null(tls);
    SSL_set_bio(tls, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(tls);
    return tls;
}

int fake_tls_receive(SSL *tls, const char *wire, size_t length, struct buffer *plain)
{
    assert_int_equal(BIO_write(SSL_get_rbio(tls), wire, (int)length), (int)length);
    char chunk[4096];
    int got;
    while ((got = SSL_read(tls, chunk, sizeof chunk)) > 0)
        assert_int_equal(buffer_append(plain, chunk, (size_t)got, NULL), 0);
    return SSL_get_error(tls, got) == SSL_ERROR_WANT_READ ? 0 : -1;
}

void fake_tls_send(SSL *tls, const void *plain, size_t length)
{
    assert_int_equal(SSL_write(tls, plain, (int)length), (int)length);
}

void fake_tls_flush(SSL *tls, struct buffer *wire)
{
    char chunk[4096];
    int got;
    while ((got = BIO_read(SSL_get_wbio(tls), chunk, sizeof chunk)) > 0)
        assert_int_equal(buffer_append(wire, chunk, (size_t)got, NULL), 0);
}

void fake_tls_client(SSL *tls, char *out, size_t size)
{
    *out = '\0';
    X509 *certificate = SSL_get0_peer_certificate(tls);
    if (certificate != NULL)
        X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, out, (int)size);
}
