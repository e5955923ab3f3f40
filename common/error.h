/* error — why something failed, as one sentence.
 *
 * A function that can fail takes `struct error *err` last and returns -1 (or NULL). The sentence is made where the
 * knowledge is: what was being done, to what, and why it failed. Callers pass it on; they do not wrap it again.
 */
#ifndef THOLE_COMMON_ERROR_H
#define THOLE_COMMON_ERROR_H

struct error {
    int code;           /* errno of error_errno(); an HTTP status or 0 elsewhere, as the setter documents */
    char message[1000]; /* without a full stop at the end; cut, never overrun */
};

/* Sets *err (NULL is fine) and returns -1, so that `return error_set(err, …);` reads well. */
int error_set(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with ": " and errno's text behind it; keeps errno in err->code. */
int error_errno(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a caller that wants err->code to say what kind of failure it is. */
int error_code(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The sentence, or "" where none was set. Starts as `struct error err = {0};`. */
static inline const char *error_message(const struct error *err)
{
    return err->message;
}

#endif
