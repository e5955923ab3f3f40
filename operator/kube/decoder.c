#include "kube/decoder.h"

#include <string.h>

enum { DEPTH_MOST = 512, SKELETON_MOST = 64 * 1024 };

void kube_decoder_init(struct kube_decoder *decoder, enum kube_decoder_mode mode, size_t most_bytes,
                       kube_decoder_object *object, kube_decoder_skipped *skipped, void *arg)
{
    *decoder = (struct kube_decoder){.mode = mode, .object = object, .skipped = skipped, .arg = arg};
    buffer_init(&decoder->part, most_bytes);
    buffer_init(&decoder->skeleton, SKELETON_MOST);
}

void kube_decoder_free(struct kube_decoder *decoder)
{
    buffer_free(&decoder->part);
    buffer_free(&decoder->skeleton);
}

void kube_decoder_reset(struct kube_decoder *decoder)
{
    kube_decoder_free(decoder);
    kube_decoder_init(decoder, decoder->mode, decoder->part.cap, decoder->object, decoder->skipped, decoder->arg);
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

/* How deep the braces of an object that is handed out stand: a list's items are inside its object and its array. */
static unsigned outside_depth(const struct kube_decoder *decoder)
{
    return decoder->mode == KUBE_DECODE_LIST ? 2 : 0;
}

/* Keeps bytes of the object that has begun. What does not fit, or finds no memory, makes it be skipped. */
static void keep(struct kube_decoder *decoder, const char *data, size_t length)
{
    decoder->length += length;
    if (decoder->skipping)
        return;
    if (buffer_append(&decoder->part, data, length, NULL) < 0) {
        decoder->skipping = true;
        buffer_free(&decoder->part);
    }
}

static int hand_out(struct kube_decoder *decoder, const char *begin, size_t length, struct error *err)
{
    int result = 0;
    bool whole_in_chunk = decoder->length == 0;
    if (whole_in_chunk && length <= decoder->part.cap) {
        result = decoder->object(decoder->arg, begin, length, err);
    } else {
        keep(decoder, begin, length);
        if (decoder->skipping)
            decoder->skipped(decoder->arg, decoder->length);
        else
            result = decoder->object(decoder->arg, decoder->part.data, decoder->part.length, err);
    }
    /* A large object's memory goes back: streams live for ever. */
    if (decoder->part.capacity > 64 * 1024UL)
        buffer_free(&decoder->part);
    else
        buffer_clear(&decoder->part);
    decoder->length = 0;
    decoder->skipping = false;
    decoder->in_object = false;
    return result;
}

static void remember_word(struct kube_decoder *decoder, char byte)
{
    if (decoder->mode == KUBE_DECODE_LIST && decoder->depth == 1 && decoder->word_length < sizeof decoder->word)
        decoder->word[decoder->word_length++] = byte;
}

static void step_in_string(struct kube_decoder *decoder, char byte)
{
    if (decoder->escaped) {
        decoder->escaped = false;
        remember_word(decoder, '\\');
    } else if (byte == '\\') {
        decoder->escaped = true;
    } else if (byte == '"') {
        decoder->in_string = false;
    } else {
        remember_word(decoder, byte);
    }
}

static bool word_is_items(const struct kube_decoder *decoder)
{
    return decoder->word_length == 5 && memcmp(decoder->word, "items", 5) == 0;
}

static int open_bracket(struct kube_decoder *decoder, char byte, struct error *err)
{
    if (decoder->depth == DEPTH_MOST)
        return error_set(err, "an object is nested deeper than %d levels", DEPTH_MOST);
    if (!decoder->in_object && decoder->depth == outside_depth(decoder) &&
        (decoder->mode == KUBE_DECODE_STREAM || decoder->in_items)) {
        if (byte != '{')
            return error_set(err, "an array stands where an object should");
        decoder->in_object = true;
    }
    if (decoder->mode == KUBE_DECODE_LIST && decoder->depth == 1 && byte == '[' && word_is_items(decoder))
        decoder->in_items = true;
    decoder->depth++;
    return 0;
}

/* Follows one byte outside of strings. 1: it completes an object that is handed out. */
static int step_outside_strings(struct kube_decoder *decoder, char byte, struct error *err)
{
    switch (byte) {
    case '"':
        decoder->in_string = true;
        if (decoder->depth == 1)
            decoder->word_length = 0;
        break;
    case '{':
    case '[':
        return open_bracket(decoder, byte, err);
    case '}':
    case ']':
        if (decoder->depth == 0)
            return error_set(err, "a closing bracket has no opening one");
        decoder->depth--;
        if (decoder->depth == 1)
            decoder->in_items = false;
        return decoder->in_object && decoder->depth == outside_depth(decoder) ? 1 : 0;
    default:
        break;
    }
    if (decoder->depth == 0 && !is_space(byte))
        return error_set(err, "something that is no JSON object stands in the stream");
    if (decoder->in_items && !decoder->in_object && byte != ',' && !is_space(byte))
        return error_set(err, "a list holds something that is no object");
    return 0;
}

/* 0 or 1 as above; -1. */
static int step(struct kube_decoder *decoder, char byte, struct error *err)
{
    if (decoder->in_string) {
        step_in_string(decoder, byte);
        return 0;
    }
    return step_outside_strings(decoder, byte, err);
}

static int keep_skeleton(struct kube_decoder *decoder, char byte, struct error *err)
{
    /* Commas between items stay out, so that what remains is JSON with an empty array. */
    bool between_items = decoder->in_items && (byte == ',' || is_space(byte));
    if (decoder->mode == KUBE_DECODE_STREAM || between_items)
        return 0;
    if (buffer_append(&decoder->skeleton, &byte, 1, NULL) < 0)
        return error_set(err, "a list's own members are larger than %d bytes", SKELETON_MOST);
    return 0;
}

static int feed(struct kube_decoder *decoder, const char *data, size_t length, struct error *err)
{
    size_t begin = 0; /* of the object's bytes in this chunk */
    for (size_t i = 0; i < length; i++) {
        bool was_in_object = decoder->in_object;
        int complete = step(decoder, data[i], err);
        if (complete < 0)
            return -1;
        if (!was_in_object && decoder->in_object)
            begin = i;
        if (complete == 1) {
            if (hand_out(decoder, data + begin, i + 1 - begin, err) < 0)
                return -1;
        } else if (!decoder->in_object && keep_skeleton(decoder, data[i], err) < 0) {
            return -1;
        }
    }
    if (decoder->in_object)
        keep(decoder, data + begin, length - begin);
    return 0;
}

int kube_decoder_feed(struct kube_decoder *decoder, const char *data, size_t length, struct error *err)
{
    if (decoder->broken)
        return error_set(err, "the stream was broken off before");
    if (feed(decoder, data, length, err) == 0)
        return 0;
    decoder->broken = true;
    return -1;
}

int kube_decoder_end(const struct kube_decoder *decoder, struct error *err)
{
    if (decoder->depth > 0 || decoder->in_string)
        return error_set(err, "the stream ended in the middle of an object");
    return 0;
}
