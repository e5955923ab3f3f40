#include "data/text.h"

#include "common/plan/plan.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void text_free(struct text *text)
{
    source_free(&text->source);
    buffer_free(&text->buffer);
}

/* Reads on. What has been handed out is dropped, so places in the buffer move. */
static int read_on(struct text *text, struct error *err)
{
    const char *name = text->source.name;
    buffer_consume(&text->buffer, text->at);
    text->at = 0;
    if (text->buffer.length > TEXT_LINE_MOST)
        return error_set(err, "data set file '%s', line %" PRIu64 " goes on for more than %d bytes: is this text?",
                         name, text->line + 1, TEXT_LINE_MOST);
    if (buffer_reserve(&text->buffer, SOURCE_BUFFER, NULL) < 0)
        return error_set(err, "out of memory for reading data set file '%s'", name);
    size_t got;
    if (source_read(&text->source, text->buffer.data + text->buffer.length, SOURCE_BUFFER, &got, err) < 0)
        return -1;
    text->buffer.length += got;
    text->buffer.data[text->buffer.length] = '\0';
    text->ended = got < SOURCE_BUFFER;
    return 0;
}

int text_open(struct text *text, int fd, const char *name, struct error *err)
{
    static const char byte_order_mark[3] = {'\xEF', '\xBB', '\xBF'};
    *text = (struct text){0};
    buffer_init(&text->buffer, TEXT_LINE_MOST + 2 * SOURCE_BUFFER);
    if (source_open(&text->source, fd, name, err) < 0 || read_on(text, err) < 0)
        return -1;
    if (text->buffer.length >= sizeof byte_order_mark &&
        memcmp(text->buffer.data, byte_order_mark, sizeof byte_order_mark) == 0)
        text->at = sizeof byte_order_mark;
    return 0;
}

static struct span without_cr(char *at, size_t length)
{
    return (struct span){at, length > 0 && at[length - 1] == '\r' ? length - 1 : length};
}

int text_line(struct text *text, struct span *out, struct error *err)
{
    size_t seen = 0; /* bytes without an LF */
    for (;;) {
        char *begin = text->buffer.data + text->at;
        const size_t have = text->buffer.length - text->at;
        char *end = have == seen ? NULL : memchr(begin + seen, '\n', have - seen);
        if (end != NULL || (text->ended && have > 0)) {
            const size_t length = end != NULL ? (size_t)(end - begin) : have;
            *out = without_cr(begin, length);
            text->at += end != NULL ? length + 1 : length;
            text->line++;
            return 1;
        }
        if (text->ended)
            return 0;
        seen = have;
        if (read_on(text, err) < 0)
            return -1;
    }
}

/* ---- Records ---- */

void record_free(struct record *record)
{
    free(record->fields);
    *record = (struct record){0};
}

/* Where a record ends, and how it is read so far; offsets from text->at. */
struct scan {
    size_t at;
    bool quoted, begun; /* inside quotes; inside a field */
    uint64_t lines;     /* LFs inside quotes */
};

/* Looks on for the record's LF. */
static bool find_end(const struct text *text, struct scan *scan)
{
    const char *begin = text->buffer.data + text->at;
    const size_t have = text->buffer.length - text->at;
    for (; scan->at < have; scan->at++) {
        const char c = begin[scan->at];
        if (scan->quoted) {
            scan->quoted = c != '"'; /* of two in a row the second opens again */
            scan->lines += c == '\n';
        } else if (c == '\n') {
            return true;
        } else if (c == '"' && (!scan->begun || (scan->at > 0 && begin[scan->at - 1] == '"'))) {
            scan->quoted = scan->begun = true;
        } else {
            scan->begun = c != ',';
        }
    }
    return false;
}

/* The next record's bytes, with what is in quotes: 1, or 0 at the end. */
static int take_record(struct text *text, struct record *record, struct span *out, struct error *err)
{
    struct scan scan = {0};
    while (!find_end(text, &scan)) {
        if (text->ended)
            break;
        if (read_on(text, err) < 0)
            return -1;
    }
    record->line = text->line + 1;
    if (scan.quoted)
        return error_set(err, "data set file '%s', line %" PRIu64 ": a quote is opened and never closed",
                         text->source.name, record->line);
    const size_t have = text->buffer.length - text->at;
    if (have == 0)
        return 0;
    const bool with_end = scan.at < have;
    *out = without_cr(text->buffer.data + text->at, scan.at);
    text->at += scan.at + with_end;
    text->line += scan.lines + 1;
    return 1;
}

static int add_field(struct record *record, struct span field, const char *name, struct error *err)
{
    if (record->count == record->capacity) {
        if (record->count > PLAN_COLUMNS_MOST)
            return error_set(err, "data set file '%s', line %" PRIu64 " has more than %d columns", name, record->line,
                             PLAN_COLUMNS_MOST);
        const uint32_t capacity = record->capacity == 0 ? 64 : 2 * record->capacity;
        struct span *fields = realloc(record->fields, capacity * sizeof *fields);
        if (fields == NULL)
            return error_set(err, "out of memory for the columns of data set file '%s'", name);
        record->fields = fields;
        record->capacity = capacity;
    }
    record->fields[record->count++] = field;
    return 0;
}

/* A field in quotes, which begins at `at`: its text in place; returns what is behind the closing quote. */
static char *undo_quotes(char *at, const char *end, struct span *out)
{
    char *to = at;
    *out = (struct span){at, 0};
    for (at++; at < end; at++) {
        if (*at == '"' && (at + 1 == end || at[1] != '"'))
            return at + 1;
        if (*at == '"')
            at++;
        *to++ = *at;
        out->length++;
    }
    return NULL;
}

static int bad_quote(const struct record *record, const char *name, struct error *err)
{
    return error_set(err,
                     "data set file '%s', line %" PRIu64 ", column %" PRIu32 ": a quote stands inside a field that is "
                     "not quoted as a whole: put the field in quotes and write each quote in it twice",
                     name, record->line, record->count);
}

static int split(struct record *record, struct span line, const char *name, struct error *err)
{
    char *at = line.at;
    char *end = line.at + line.length;
    record->count = 0;
    for (;;) {
        struct span field;
        if (at < end && *at == '"') {
            at = undo_quotes(at, end, &field);
            if (at == NULL || (at < end && *at != ','))
                return bad_quote(record, name, err);
        } else {
            char *comma = at == end ? NULL : memchr(at, ',', (size_t)(end - at));
            field = (struct span){at, (size_t)((comma == NULL ? end : comma) - at)};
            if (field.length > 0 && memchr(field.at, '"', field.length) != NULL)
                return bad_quote(record, name, err);
            at += field.length;
        }
        if (add_field(record, field, name, err) < 0)
            return -1;
        if (at == end)
            return 0;
        at++;
    }
}

int text_record(struct text *text, struct record *record, struct error *err)
{
    struct span line = {0};
    int got;
    do
        got = take_record(text, record, &line, err);
    while (got > 0 && line.length == 0);
    if (got <= 0)
        return got;
    return split(record, line, text->source.name, err) < 0 ? -1 : 1;
}

/* ---- Pieces ---- */

struct span span_trimmed(struct span span)
{
    while (span.length > 0 && (*span.at == ' ' || *span.at == '\t')) {
        span.at++;
        span.length--;
    }
    while (span.length > 0 && (span.at[span.length - 1] == ' ' || span.at[span.length - 1] == '\t'))
        span.length--;
    return span;
}

struct shown span_shown(struct span span)
{
    struct shown shown = {0};
    size_t length = span.length < TEXT_SHOWN_MOST ? span.length : TEXT_SHOWN_MOST;
    /* No character of UTF-8 is cut in two. */
    while (length < span.length && length > 0 && ((unsigned char)span.at[length] & 0xC0U) == 0x80)
        length--;
    for (size_t i = 0; i < length; i++)
        shown.text[i] = (unsigned char)span.at[i] < ' ' || span.at[i] == 0x7F ? '?' : span.at[i];
    if (length < span.length)
        memcpy(shown.text + length, "...", 3);
    return shown;
}

static double power_of_ten(int exponent)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    return powers[exponent];
}

/* Digits with an exponent, as most numbers are: exact factors that fit a double, so one rounding (Clinger: "How to read
 * floating point numbers accurately", PLDI 1990). */
enum { EXACT_DIGITS = 15, EXACT_POWER = 22, EXPONENT_MOST = 100000 };

struct decimal {
    uint64_t digits;
    int count;    /* of digits, without zeros in front */
    int exponent; /* of ten */
    bool negative;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *take_digits(const char *at, const char *end, struct decimal *out, bool behind_point)
{
    for (; at < end && is_digit(*at); at++) {
        if (out->count > 0 || *at != '0')
            out->count++;
        if (out->count <= EXACT_DIGITS)
            out->digits = out->digits * 10 + (uint64_t)(*at - '0');
        out->exponent -= behind_point;
    }
    return at;
}

/* [+-] digits [. digits] [e [+-] digits], digits on one side of the point at least, and nothing else. */
static bool take_decimal(const char *at, const char *end, struct decimal *out)
{
    *out = (struct decimal){.negative = at < end && *at == '-'};
    at += at < end && (*at == '-' || *at == '+');
    const char *before = at;
    at = take_digits(at, end, out, false);
    bool any = at > before;
    if (at < end && *at == '.') {
        before = ++at;
        at = take_digits(at, end, out, true);
        any = any || at > before;
    }
    if (!any)
        return false;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        const bool minus = at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        before = at;
        int exponent = 0;
        for (; at < end && is_digit(*at); at++)
            if (exponent < EXPONENT_MOST)
                exponent = exponent * 10 + (*at - '0');
        if (at == before)
            return false;
        out->exponent += minus ? -exponent : exponent;
    }
    return at == end;
}

bool span_number(struct span span, double *out)
{
    struct decimal decimal;
    if (span.length > TEXT_NUMBER_MOST || !take_decimal(span.at, span.at + span.length, &decimal))
        return false;
    if (decimal.count <= EXACT_DIGITS && decimal.exponent >= -EXACT_POWER && decimal.exponent <= EXACT_POWER) {
        double value = (double)decimal.digits;
        value = decimal.exponent < 0 ? value / power_of_ten(-decimal.exponent) : value * power_of_ten(decimal.exponent);
        *out = decimal.negative ? -value : value;
        return true;
    }
    char copy[TEXT_NUMBER_MOST + 1];
    memcpy(copy, span.at, span.length);
    copy[span.length] = '\0';
    *out = strtod(copy, NULL);
    return isfinite(*out);
}
