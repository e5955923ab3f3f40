/* decoder — cuts a stream of bytes into JSON objects, wherever the network split it.
 *
 * Private to kube. Two shapes: a watch is objects one behind the other; a list is one object whose "items" are cut out
 * one by one, so that a whole list never stands in memory. Only the nesting is followed here; each object is left to a
 * parser. An object larger than the cap is skipped, not fatal: one huge object must not hide all the others.
 */
#ifndef THOLE_OPERATOR_KUBE_DECODER_H
#define THOLE_OPERATOR_KUBE_DECODER_H

#include "common/buffer.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

enum kube_decoder_mode { KUBE_DECODE_STREAM, KUBE_DECODE_LIST };

/* 0, or -1 with *err to break off. `text` is borrowed and not terminated. */
typedef int kube_decoder_object(void *arg, const char *text, size_t length, struct error *err);
/* An object of `length` bytes was skipped. */
typedef void kube_decoder_skipped(void *arg, size_t length);

struct kube_decoder {
    enum kube_decoder_mode mode;
    kube_decoder_object *object;
    kube_decoder_skipped *skipped;
    void *arg;

    struct buffer part;     /* of the object that has begun */
    struct buffer skeleton; /* of a list: everything but its items */
    size_t length;          /* bytes of the object so far */
    unsigned depth;
    bool in_string, escaped;
    bool in_object; /* one that will be handed out */
    bool in_items;
    bool skipping;
    bool broken;  /* an error was reported: nothing more is taken */
    char word[8]; /* the last string at depth 1, cut: which member of the list this is */
    unsigned word_length;
};

void kube_decoder_init(struct kube_decoder *decoder, enum kube_decoder_mode mode, size_t most_bytes,
                       kube_decoder_object *object, kube_decoder_skipped *skipped, void *arg);
void kube_decoder_free(struct kube_decoder *decoder);
void kube_decoder_reset(struct kube_decoder *decoder); /* for a new stream of the same shape */

/* Takes the next bytes and calls `object` for each that is complete. -1 where they cannot be JSON, or where `object`
 * failed. */
int kube_decoder_feed(struct kube_decoder *decoder, const char *data, size_t length, struct error *err);

/* The stream ended: -1 where it did in the middle of an object. */
int kube_decoder_end(const struct kube_decoder *decoder, struct error *err);

#endif
