/* mailbox — a bounded queue of messages from one thread to another.
 *
 * A message is a pointer whose ownership goes with it. Any thread may push; one thread receives, in one of two
 * ways: by a callback on a loop (mailbox_attach), or by being told from outside to look (mailbox_on_push: e.g.
 * lws_cancel_service, then mailbox_pop until NULL).
 */
#ifndef THOLE_OPERATOR_MAILBOX_H
#define THOLE_OPERATOR_MAILBOX_H

#include "loop/loop.h"

#include <stddef.h>

struct mailbox; /* opaque */

/* Holds at most `capacity` messages. `free_message` releases those that nobody took; NULL where messages are not
 * owned. */
typedef void mailbox_free_message(void *message);
struct mailbox *mailbox_new(size_t capacity, mailbox_free_message *free_message, struct error *err);

/* Frees it with what is still inside. Nobody may use it any longer. NULL is fine. */
void mailbox_free(struct mailbox *mailbox);
CLEANUP_DEFINE(cleanup_mailbox_pointer, struct mailbox, mailbox_free)
#define cleanup_mailbox CLEANUP(cleanup_mailbox_pointer)

/* From any thread. 0, or -1 where it is full: `message` then still belongs to the caller, who decides
 * (drop, keep, answer "busy"). Never blocks. */
int mailbox_push(struct mailbox *mailbox, void *message);

/* The oldest message, or NULL. */
void *mailbox_pop(struct mailbox *mailbox);

/* Receives on `loop`: `receive` gets every message, in order. Detaching happens with mailbox_free. */
typedef void mailbox_receive(void *arg, void *message);
int mailbox_attach(struct mailbox *mailbox, struct loop *loop, mailbox_receive *receive, void *arg, struct error *err);

/* `notify` is called on the pushing thread after each push, outside the lock. Set before the mailbox is shared. */
typedef void mailbox_notify(void *arg);
void mailbox_on_push(struct mailbox *mailbox, mailbox_notify *notify, void *arg);

#endif
