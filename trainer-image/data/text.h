/* text — data set files that are text: lines and records, of bounded length, and the numbers in them. Private to data.
 */
#ifndef THOLE_DATA_TEXT_H
#define THOLE_DATA_TEXT_H

#include "common/buffer.h"
#include "data/source.h"

enum {
    TEXT_LINE_MOST = 32 * 1024 * 1024, /* bytes of a line or record */
    TEXT_NUMBER_MOST = 255,            /* characters of a number */
    TEXT_SHOWN_MOST = 40,              /* bytes of a user's text in a sentence */
};

struct text {
    struct source source;
    struct buffer buffer;
    size_t at;     /* in the buffer: what has been handed out ends here */
    uint64_t line; /* the number of the last line that was handed out, from 1 */
    bool ended;    /* nothing is behind the buffer */
};

int text_open(struct text *text, int fd, const char *name, struct error *err);
void text_free(struct text *text);
#define cleanup_text CLEANUP(text_free)

/* A piece of a line: in the buffer, so valid until the next is asked for, and it may be changed. */
struct span {
    char *at;
    size_t length;
};

/* The next line, without its LF or CRLF: 1, or 0 at the end. */
int text_line(struct text *text, struct span *out, struct error *err);

/* A CSV record (RFC 4180): fields with quotes undone. Lines without anything are no records. */
struct record {
    struct span *fields;
    uint32_t count, capacity;
    uint64_t line; /* where it begins */
};
int text_record(struct text *text, struct record *record, struct error *err); /* as text_line() */
void record_free(struct record *record);
#define cleanup_record CLEANUP(record_free)

struct span span_trimmed(struct span span); /* without spaces and tabs at its ends */

/* The whole span as a number in decimal notation, correctly rounded. No infinities, no NaN. */
bool span_number(struct span span, double *out);

/* A copy for a sentence: cut, and what cannot be printed replaced. */
struct shown {
    char text[TEXT_SHOWN_MOST + 4];
};
struct shown span_shown(struct span span);

#endif
