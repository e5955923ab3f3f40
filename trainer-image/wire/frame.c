#include "wire/net_internal.h"

#include <endian.h>
#include <string.h>

static const uint8_t magic[4] = {'T', 'H', 'L', 'E'};

static void put_u32(uint8_t *out, uint32_t value)
{
    value = htole32(value);
    memcpy(out, &value, sizeof value);
}

static void put_u64(uint8_t *out, uint64_t value)
{
    value = htole64(value);
    memcpy(out, &value, sizeof value);
}

static uint32_t get_u32(const uint8_t *in)
{
    uint32_t value;
    memcpy(&value, in, sizeof value);
    return le32toh(value);
}

static uint64_t get_u64(const uint8_t *in)
{
    uint64_t value;
    memcpy(&value, in, sizeof value);
    return le64toh(value);
}

void frame_encode(const struct frame *frame, uint32_t payload_crc, uint8_t out[WIRE_HEADER_SIZE])
{
    memset(out, 0, WIRE_HEADER_SIZE);
    memcpy(out, magic, sizeof magic);
    out[4] = WIRE_VERSION;
    out[5] = frame->type;
    put_u32(out + 8, frame->term);
    put_u32(out + 12, frame->node);
    put_u64(out + 16, frame->step);
    put_u64(out + 24, frame->offset);
    put_u64(out + 32, frame->value.counter); /* a double's bits are read the same way */
    put_u32(out + 40, frame->count);
    put_u32(out + 44, frame->length);
    put_u32(out + 48, payload_crc);
    put_u32(out + 60, crc32c(0, out, 60));
}

int frame_decode(struct frame *out, uint32_t *payload_crc, const uint8_t in[WIRE_HEADER_SIZE], struct error *err)
{
    /* Another version may have another layout, so nothing else is looked at before it. */
    if (memcmp(in, magic, sizeof magic) != 0)
        return error_set(err, "a frame begins with %02x%02x%02x%02x instead of the magic number", in[0], in[1], in[2],
                         in[3]);
    if (in[4] != WIRE_VERSION)
        return error_set(err,
                         "the peer speaks version %u of the wire protocol, this process version %d: run all of a job's "
                         "pods from the same trainer image",
                         in[4], WIRE_VERSION);
    if (get_u32(in + 60) != crc32c(0, in, 60))
        return error_set(err, "a frame's header has a wrong checksum");
    if (in[6] != 0 || in[7] != 0 || get_u32(in + 52) != 0 || get_u32(in + 56) != 0)
        return error_set(err, "a frame of type %u has bits set that this version reserves", in[5]);

    struct frame frame = {
        .type = in[5],
        .term = get_u32(in + 8),
        .node = get_u32(in + 12),
        .step = get_u64(in + 16),
        .offset = get_u64(in + 24),
        .value.counter = get_u64(in + 32),
        .count = get_u32(in + 40),
        .length = get_u32(in + 44),
    };
    if (frame.length > WIRE_PAYLOAD_MOST)
        return error_set(err, "a frame of type %u announces a payload of %u bytes; the most is %d", frame.type,
                         frame.length, WIRE_PAYLOAD_MOST);
    *payload_crc = get_u32(in + 48);
    if (frame.length == 0 && *payload_crc != 0)
        return error_set(err, "a frame of type %u has a payload's checksum, but no payload", frame.type);
    *out = frame;
    return 0;
}
