#include "coordinator/session.h"

#include <string.h>

void session_init(struct session *session, const struct session_options *options)
{
    *session = (struct session){.options = *options};
}

void session_connected(struct session *session)
{
    session->state = session->options.trusted ? SESSION_OPEN : SESSION_WAITS_CHALLENGE;
    session->epochs_sent = 0;
    session->finished_sent = false;
}

void session_disconnected(struct session *session)
{
    session->state = SESSION_CLOSED;
}

static bool send_message(struct session *session, const struct report_message *message)
{
    cleanup_free char *text = report_encode(message);
    return text != NULL && session->options.send(session->options.arg, text);
}

static int answer_challenge(struct session *session, const struct report_message *challenge, struct error *err)
{
    memcpy(session->operator_nonce, challenge->challenge.nonce, sizeof session->operator_nonce);
    random_bytes(session->nonce, sizeof session->nonce);
    struct report_message hello = {.type = REPORT_HELLO, .hello = session->options.hello};
    memcpy(hello.hello.nonce, session->nonce, sizeof session->nonce);
    report_hello_mac(&hello.hello, session->options.token, session->operator_nonce, hello.hello.mac);
    session->state = SESSION_WAITS_WELCOME;
    if (!send_message(session, &hello))
        return error_set(err, "say hello to the operator: no memory");
    return 0;
}

static void take_ack(struct session *session, const struct report_ack *ack)
{
    if (ack->status > session->ack.status)
        session->ack.status = ack->status;
    if (ack->history > session->ack.history)
        session->ack.history = ack->history;
}

static int check_welcome(struct session *session, const struct report_message *welcome, struct error *err)
{
    uint8_t mac[SHA256_SIZE];
    report_welcome_mac(session->options.token, session->nonce, session->operator_nonce, mac);
    if (!bytes_equal_constant_time(mac, welcome->welcome.mac, sizeof mac))
        return error_set(err, "whoever answers at the operator's address does not know this job's token");
    session->state = SESSION_OPEN;
    take_ack(session, &welcome->welcome.ack);
    return 0;
}

int session_received(struct session *session, const char *text, size_t length, struct error *err)
{
    struct report_message message;
    if (report_decode(&message, text, length, err) < 0)
        return -1;
    if (message.type == REPORT_REFUSED)
        return error_set(err, "the operator refuses: %s", message.refused.message);
    switch (session->state) {
    case SESSION_WAITS_CHALLENGE:
        if (message.type == REPORT_CHALLENGE)
            return answer_challenge(session, &message, err);
        break;
    case SESSION_WAITS_WELCOME:
        if (message.type == REPORT_WELCOME)
            return check_welcome(session, &message, err);
        break;
    case SESSION_OPEN:
        if (message.type == REPORT_ACK)
            take_ack(session, &message.ack);
        else if (message.type == REPORT_ACK_FINISHED && session->finished_sent)
            session->finished_acked = true;
        else
            break;
        return 0;
    case SESSION_CLOSED:
        break;
    }
    return error_set(err, "the operator sent a message that has no place in the dialogue now");
}

static uint32_t acked_epochs(const struct session *session)
{
    return session->ack.status < session->ack.history ? session->ack.status : session->ack.history;
}

void session_flush(struct session *session, const struct coordinator *coordinator)
{
    if (session->state != SESSION_OPEN)
        return;
    if (session->epochs_sent < acked_epochs(session))
        session->epochs_sent = acked_epochs(session);
    const struct report_epoch *epoch;
    while ((epoch = coordinator_history(coordinator, session->epochs_sent)) != NULL) {
        if (!send_message(session, &(struct report_message){.type = REPORT_EPOCH, .epoch = *epoch}))
            return;
        session->epochs_sent++;
    }
    const struct report_finished *result = coordinator_result(coordinator);
    if (result == NULL || session->finished_sent || session->finished_acked)
        return;
    session->finished_sent =
        send_message(session, &(struct report_message){.type = REPORT_FINISHED, .finished = *result});
}

void session_progress(struct session *session, const struct report_progress *progress)
{
    if (session->state == SESSION_OPEN && !session->finished_acked)
        (void)send_message(session, &(struct report_message){.type = REPORT_PROGRESS, .progress = *progress});
}
