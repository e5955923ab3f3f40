/* The handshake: both ends prove that they hold the job's token, over nonces of both, so that nothing recorded helps.
 */
#include "wire/net_internal.h"

#include <endian.h>
#include <string.h>

enum { BOOT_AT = 8, DIGEST_AT = 16, NONCE_AT = 48 };                               /* in HELLO */
enum { THEIR_DIGEST_AT = 8, THEIR_NONCE_AT = 8 + SHA256_SIZE, THEIR_MAC_AT = 72 }; /* in CHALLENGE */

static void put_boot(uint8_t *out, uint64_t boot)
{
    boot = htole64(boot);
    memcpy(out, &boot, sizeof boot);
}

static uint64_t get_boot(const uint8_t *in)
{
    uint64_t boot;
    memcpy(&boot, in, sizeof boot);
    return le64toh(boot);
}

static void listener_mac(const struct conn *conn, uint8_t out[SHA256_SIZE])
{
    static const char label[] = "listener";
    uint8_t text[sizeof label - 1 + HELLO_SIZE + sizeof(uint64_t) + NONCE_SIZE];
    uint8_t *hello = text + sizeof label - 1, *boot = hello + HELLO_SIZE, *nonce = boot + sizeof(uint64_t);
    memcpy(text, label, sizeof label - 1);
    memcpy(hello, conn->hello, HELLO_SIZE);
    memcpy(boot, conn->challenge, sizeof(uint64_t));
    memcpy(nonce, conn->challenge + THEIR_NONCE_AT, NONCE_SIZE);
    hmac_sha256(conn->net->options.token, SHA256_SIZE, text, sizeof text, out);
}

static void dialler_mac(const struct conn *conn, uint8_t out[SHA256_SIZE])
{
    static const char label[] = "dialler";
    uint8_t text[sizeof label - 1 + HELLO_SIZE + CHALLENGE_SIZE];
    memcpy(text, label, sizeof label - 1);
    memcpy(text + sizeof label - 1, conn->hello, HELLO_SIZE);
    memcpy(text + sizeof label - 1 + HELLO_SIZE, conn->challenge, CHALLENGE_SIZE);
    hmac_sha256(conn->net->options.token, SHA256_SIZE, text, sizeof text, out);
}

bool handshake_is_garbage(const unsigned char *bytes, size_t length, struct error *err)
{
    static const char magic[4] = {'T', 'H', 'L', 'E'};
    if (memcmp(bytes, magic, length < sizeof magic ? length : sizeof magic) == 0)
        return false;
    char begin[25];
    text_clean(begin, sizeof begin, bytes, length);
    error_set(err, "it does not speak the trainer's wire protocol: it began with '%s'", begin);
    return true;
}

void handshake_begin(struct conn *conn)
{
    const struct net_options *options = &conn->net->options;
    memset(conn->hello, 0, HELLO_SIZE);
    conn->hello[0] = (uint8_t)conn->dialogue;
    put_boot(conn->hello + BOOT_AT, options->boot_id);
    memcpy(conn->hello + DIGEST_AT, options->plan_digest, SHA256_SIZE);
    random_bytes(conn->hello + NONCE_AT, NONCE_SIZE);
    conn->state = CONN_WAIT_CHALLENGE;
    conn_enqueue_bytes(conn, &(struct frame){.type = FRAME_HELLO}, conn->hello, HELLO_SIZE);
}

/* What each state waits for; everything else that comes is a mistake, and no longer payload is read. */
int handshake_check_header(const struct conn *conn, const struct frame *frame, struct error *err)
{
    static const struct {
        uint8_t type;
        uint32_t length;
        const char *name;
    } expected[CONN_OPEN] = {
        [CONN_WAIT_HELLO] = {FRAME_HELLO, HELLO_SIZE, "HELLO"},
        [CONN_WAIT_CHALLENGE] = {FRAME_CHALLENGE, CHALLENGE_SIZE, "CHALLENGE"},
        [CONN_WAIT_PROOF] = {FRAME_PROOF, PROOF_SIZE, "PROOF"},
        [CONN_WAIT_READY] = {FRAME_READY, 0, "READY"},
    };
    if (frame->type == FRAME_REFUSED) {
        uint32_t most = conn->dialled ? WIRE_TEXT_MOST : HANDSHAKE_PAYLOAD_MOST;
        if (frame->length <= most)
            return 0;
        return error_set(err, "REFUSED has a payload of %u bytes in the handshake; the most is %u", frame->length,
                         most);
    }
    if (frame->type != expected[conn->state].type)
        return error_set(err, "a frame of type %u came where the handshake has %s", frame->type,
                         expected[conn->state].name);
    if (frame->length != expected[conn->state].length)
        return error_set(err, "%s has a payload of %u bytes; it has %u", expected[conn->state].name, frame->length,
                         expected[conn->state].length);
    return 0;
}

static int hello_received(struct conn *conn, const uint8_t *payload, struct error *err)
{
    static const uint8_t zeros[7];
    const struct net_options *options = &conn->net->options;
    if (payload[0] < DIALOGUE_CONTROL || payload[0] > DIALOGUE_DATA || memcmp(payload + 1, zeros, sizeof zeros) != 0)
        return error_set(err, "HELLO asks for dialogue %u, which there is not", payload[0]);
    if (memcmp(payload + DIGEST_AT, options->plan_digest, SHA256_SIZE) != 0)
        return error_set(err, "it runs another plan than this process: all of a job's processes need the same "
                              "plan.json, and the same model file where the job begins from one");

    memcpy(conn->hello, payload, HELLO_SIZE);
    conn->dialogue = (enum dialogue)payload[0];
    conn->peer_boot = get_boot(payload + BOOT_AT);
    put_boot(conn->challenge, options->boot_id);
    memcpy(conn->challenge + THEIR_DIGEST_AT, options->plan_digest, SHA256_SIZE);
    random_bytes(conn->challenge + THEIR_NONCE_AT, NONCE_SIZE);
    listener_mac(conn, conn->challenge + THEIR_MAC_AT);
    conn->state = CONN_WAIT_PROOF;
    conn_enqueue_bytes(conn, &(struct frame){.type = FRAME_CHALLENGE}, conn->challenge, CHALLENGE_SIZE);
    return 0;
}

static int challenge_received(struct conn *conn, const uint8_t *payload, struct error *err)
{
    memcpy(conn->challenge, payload, CHALLENGE_SIZE);
    uint8_t mac[SHA256_SIZE];
    listener_mac(conn, mac);
    if (!bytes_equal_constant_time(mac, payload + THEIR_MAC_AT, SHA256_SIZE))
        return error_set(err, "the listener's proof is wrong: it does not hold this job's token");
    if (memcmp(payload + THEIR_DIGEST_AT, conn->net->options.plan_digest, SHA256_SIZE) != 0)
        return error_set(err, "the listener runs another plan: all of a job's processes need the same plan.json, and "
                              "the same model file where the job begins from one");

    conn->peer_boot = get_boot(payload);
    dialler_mac(conn, mac);
    conn->state = CONN_WAIT_READY;
    conn_enqueue_bytes(conn, &(struct frame){.type = FRAME_PROOF}, mac, SHA256_SIZE);
    return 0;
}

static void open_dialogue(struct conn *conn)
{
    conn->state = CONN_OPEN;
    conn_proven(conn);
    conn->told = false;
    net_timer_set(conn->timer, -1);
    conn->handlers->ready(conn->arg, conn, conn->dialogue, conn->peer_boot);
}

static int proof_received(struct conn *conn, const uint8_t *payload, struct error *err)
{
    uint8_t mac[SHA256_SIZE];
    dialler_mac(conn, mac);
    if (!bytes_equal_constant_time(mac, payload, SHA256_SIZE))
        return error_set(err, "the dialler's proof is wrong: it does not hold this job's token");
    conn_enqueue(conn, &(struct frame){.type = FRAME_READY}, NULL);
    if (conn->state != CONN_GONE)
        open_dialogue(conn);
    return 0;
}

int handshake_received(struct conn *conn, const uint8_t *payload, struct error *err)
{
    switch (conn->state) {
    case CONN_WAIT_HELLO:
        return hello_received(conn, payload, err);
    case CONN_WAIT_CHALLENGE:
        return challenge_received(conn, payload, err);
    case CONN_WAIT_PROOF:
        return proof_received(conn, payload, err);
    case CONN_WAIT_READY:
        open_dialogue(conn);
        return 0;
    default:
        return error_set(err, "a frame came outside of the handshake");
    }
}
