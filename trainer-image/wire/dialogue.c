/* Who may send what, and how long: the table of the protocol. */
#include "wire/net_internal.h"

enum sender { DIALLER, LISTENER };

struct rule {
    enum dialogue dialogue;
    enum sender sender;
    uint8_t type;
    const char *name;
    uint32_t least, most; /* bytes of payload */
};

static const struct rule rules[] = {
    {DIALOGUE_CONTROL, DIALLER, FRAME_JOIN, "JOIN", 2, WIRE_JSON_MOST},
    {DIALOGUE_CONTROL, LISTENER, FRAME_WELCOME, "WELCOME", 2, WIRE_JSON_MOST},
    {DIALOGUE_CONTROL, LISTENER, FRAME_DEAL, "DEAL", 0, 0},
    {DIALOGUE_CONTROL, LISTENER, FRAME_SHARE, "SHARE", 0, 0},
    {DIALOGUE_CONTROL, LISTENER, FRAME_LEASE, "LEASE", 0, 0},
    {DIALOGUE_CONTROL, LISTENER, FRAME_VALIDATE, "VALIDATE", 0, 0},
    {DIALOGUE_CONTROL, DIALLER, FRAME_VALIDATED, "VALIDATED", 0, 0},
    {DIALOGUE_CONTROL, DIALLER, FRAME_HEARTBEAT, "HEARTBEAT", 0, 0},
    {DIALOGUE_CONTROL, DIALLER, FRAME_LEAVE, "LEAVE", 0, 0},
    {DIALOGUE_CONTROL, LISTENER, FRAME_FINISHED, "FINISHED", 0, 0},

    {DIALOGUE_REGISTER, DIALLER, FRAME_REGISTER, "REGISTER", 1, WIRE_TEXT_MOST},
    {DIALOGUE_REGISTER, LISTENER, FRAME_ACCEPTED, "ACCEPTED", 0, 0},
    {DIALOGUE_REGISTER, DIALLER, FRAME_NORMS, "NORMS", 8, WIRE_NORMS_MOST * 8},
    {DIALOGUE_REGISTER, LISTENER, FRAME_COMMIT, "COMMIT", 8, WIRE_NORMS_MOST * 8},
    {DIALOGUE_REGISTER, DIALLER, FRAME_DONE, "DONE", 0, 0},
    {DIALOGUE_REGISTER, DIALLER, FRAME_TASK_DONE, "TASK_DONE", 0, 0},
    {DIALOGUE_REGISTER, LISTENER, FRAME_FINISHED, "FINISHED", 0, 0},

    {DIALOGUE_DATA, DIALLER, FRAME_SUBSCRIBE, "SUBSCRIBE", 0, 0},
    {DIALOGUE_DATA, DIALLER, FRAME_GET, "GET", 0, 0},
    {DIALOGUE_DATA, DIALLER, FRAME_PUSH, "PUSH", 2, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, LISTENER, FRAME_PARAMS, "PARAMS", 2, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, DIALLER, FRAME_PUSH_BATCH, "PUSH_BATCH", 2, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, DIALLER, FRAME_PUSH_SHARE, "PUSH_SHARE", 2, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, LISTENER, FRAME_TAKEN, "TAKEN", 2, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, DIALLER, FRAME_GET_ROWS, "GET_ROWS", 0, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, LISTENER, FRAME_ROWS, "ROWS", 0, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, DIALLER, FRAME_PUSH_ROWS, "PUSH_ROWS", 0, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, DIALLER, FRAME_PUSH_BATCH_ROWS, "PUSH_BATCH_ROWS", 0, WIRE_PAYLOAD_MOST},
    {DIALOGUE_DATA, LISTENER, FRAME_TAKEN_ROWS, "TAKEN_ROWS", 0, 0},
    {DIALOGUE_DATA, DIALLER, FRAME_LIST_ROWS, "LIST_ROWS", 0, 0},
    {DIALOGUE_DATA, LISTENER, FRAME_LISTED, "LISTED", 0, WIRE_PAYLOAD_MOST},
};

static const char *dialogue_name(enum dialogue dialogue)
{
    return dialogue == DIALOGUE_CONTROL ? "CONTROL" : dialogue == DIALOGUE_REGISTER ? "REGISTER" : "DATA";
}

int dialogue_check(enum dialogue dialogue, bool from_dialler, const struct frame *frame, struct error *err)
{
    if (frame->type == FRAME_REFUSED) {
        if (frame->length > WIRE_TEXT_MOST)
            return error_set(err, "REFUSED has a payload of %u bytes; the most is %d", frame->length, WIRE_TEXT_MOST);
        return 0;
    }
    enum sender sender = from_dialler ? DIALLER : LISTENER;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *rule = &rules[i];
        if (rule->dialogue != dialogue || rule->sender != sender || rule->type != frame->type)
            continue;
        if (frame->length < rule->least || frame->length > rule->most)
            return error_set(err, "%s has a payload of %u bytes; it can have %u to %u", rule->name, frame->length,
                             rule->least, rule->most);
        return 0;
    }
    return error_set(err, "a frame of type %u is none that the %s may send in a %s dialogue", frame->type,
                     from_dialler ? "dialler" : "listener", dialogue_name(dialogue));
}
