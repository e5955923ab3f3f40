/* Runs a fuzz target without a fuzzer: on each file that is named or lies in a folder that is named, then on those
 * files with changes (the same ones every time), then on the files while memory runs out at one allocation after the
 * other. What is lost meanwhile is told at the end; to learn in which file, name fewer.
 *
 *   REPLAY [--changes N] [--scarce N] FILE|FOLDER...
 *
 * N changes in all; each of the first N allocations, and ever fewer behind them.
 *
 * A file whose name ends in .hex holds the bytes in hexadecimal, with any white space between them. */
#include "common/cleanup.h"
#include "common/test/dice.h"
#include "common/test/fuzz.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

enum { INPUTS_MOST = 256, INPUT_MOST = 64 * 1024 };

struct input {
    char name[512];
    uint8_t *data;
    size_t size;
};

/* For the death notice: what is run at the moment. */
static struct {
    const char *name;
    char what[64];
    const uint8_t *data;
    size_t size;
} now;

/* A target may have one: fuzz_json.c's changes JSON as a tree. */
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
__attribute__((weak)) void
__sanitizer_set_death_callback(void (*callback)(void)); /* NOLINT(bugprone-reserved-identifier) */

static uint64_t random_state;

static uint64_t pick(uint64_t most)
{
    return random_next(&random_state) % most;
}

/* ---- what is said when the target dies ---- */

/* UBSan's library is one of its own, which knows nothing of the callback: it shall abort. */
const char *__ubsan_default_options(void); /* NOLINT(bugprone-reserved-identifier) */
const char *__ubsan_default_options(void)  /* NOLINT(bugprone-reserved-identifier) */
{
    return "abort_on_error=1:print_stacktrace=1";
}

/* NOLINTBEGIN(bugprone-signal-handler): abort()'s signal comes where abort() was called, not in between */
static void tell_death(void)
{
    if (now.data == NULL)
        return;
    char path[64];
    snprintf(path, sizeof path, "/tmp/thole-fuzz-%ld", (long)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool kept = fd >= 0 && write(fd, now.data, now.size) == (ssize_t)now.size;
    dprintf(STDERR_FILENO, "the fuzz target fell over %s %s; the bytes are %s%s\n", now.name == NULL ? "?" : now.name,
            now.what, kept ? "in " : "lost", kept ? path : "");
}

static void on_abort(int number)
{
    (void)number;
    tell_death();
}

/* NOLINTEND(bugprone-signal-handler) */

/* The bytes, to be freed, in memory of their own, so that reading behind their end is noticed. */
static uint8_t *prepare(const struct input *input, const char *what, size_t number)
{
    now.name = input->name;
    now.data = input->data;
    now.size = input->size;
    snprintf(now.what, sizeof now.what, "%s %zu", what, number);
    uint8_t *copy = malloc(input->size + (input->size == 0));
    require(copy != NULL);
    memcpy(copy, input->data, input->size);
    return copy;
}

static void run(const struct input *input, const char *what, size_t number)
{
    cleanup_free uint8_t *bytes = prepare(input, what, number);
    LLVMFuzzerTestOneInput(bytes, input->size);
}

/* ---- changes ---- */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most)
{
    static const char spice[] = "{}[]\":,\\0-9.eE\n \t%#&*!|>'?\x01\x80\xff";
    if (size == 0)
        return 0;
    size_t at = pick(size);
    switch (pick(6)) {
    case 0:
        data[at] ^= (uint8_t)(1U << pick(8));
        return size;
    case 1:
        data[at] = (uint8_t)spice[pick(sizeof spice - 1)];
        return size;
    case 2: /* cut */
        return at;
    case 3: /* a piece is left out */
    {
        size_t length = 1 + pick(size - at);
        memmove(data + at, data + at + length, size - at - length);
        return size - length;
    }
    case 4: /* a piece comes twice */
    {
        size_t length = 1 + pick(size - at < 64 ? size - at : 64);
        if (size + length > most)
            return size;
        memmove(data + at + length, data + at, size - at);
        return size + length;
    }
    default: /* a piece is overwritten with another */
    {
        size_t from = pick(size);
        size_t length = 1 + pick(size - (from > at ? from : at));
        memmove(data + at, data + from, length);
        return size;
    }
    }
}

static void run_changed(const struct input *inputs, size_t count, size_t changes)
{
    static uint8_t bytes[INPUT_MOST];
    for (size_t i = 0; i < changes; i++) {
        struct input changed = inputs[i % count];
        random_state = i;
        size_t most = sizeof bytes;
        memcpy(bytes, changed.data, changed.size);
        changed.data = bytes;
        for (uint64_t rounds = 1 + pick(4); rounds > 0; rounds--)
            changed.size = LLVMFuzzerCustomMutator != NULL
                               ? LLVMFuzzerCustomMutator(bytes, changed.size, most, (unsigned)pick(UINT32_MAX))
                               : LLVMFuzzerMutate(bytes, changed.size, most);
        run(&changed, "in change", i);
    }
}

/* ---- while memory runs out ---- */

/* Each of the first `all` allocations fails, and fewer and fewer of those behind them: there may be many thousands. */
static void run_scarce(const struct input *input, enum scarce_kind kind, size_t all)
{
    static const char *const whats[] = {
        [SCARCE_ONE] = "where it misses allocation", [SCARCE_ALL] = "where memory is out after allocation"};
    bool refused = true;
    for (size_t allowed = 0; refused; allowed += 1 + allowed / all) {
        cleanup_free uint8_t *bytes = prepare(input, whats[kind], allowed);
        scarce_begin(kind, allowed);
        LLVMFuzzerTestOneInput(bytes, input->size);
        refused = scarce_end();
    }
}

/* ---- reading the corpus ---- */

static size_t from_hex(uint8_t *data, size_t size)
{
    size_t digits = 0;
    for (size_t i = 0; i < size; i++) {
        if (isspace(data[i]))
            continue;
        int digit = isdigit(data[i]) ? data[i] - '0' : (data[i] | 0x20) - 'a' + 10;
        int high = digits % 2 == 0 ? 0 : data[digits / 2];
        data[digits / 2] = (uint8_t)(high << 4 | (digit & 0xf));
        digits++;
    }
    return digits / 2;
}

/* Without common/buffer.h: a target may have put a reader of its own in its place. */
static bool read_input(struct input *out, const char *path)
{
    snprintf(out->name, sizeof out->name, "%s", path);
    cleanup_file FILE *file = fopen(path, "re");
    out->data = malloc(INPUT_MOST);
    if (file == NULL || out->data == NULL) {
        fprintf(stderr, "'%s' cannot be read\n", path);
        free(out->data);
        return false;
    }
    out->size = fread(out->data, 1, INPUT_MOST, file);
    size_t length = strlen(path);
    if (length > 4 && strcmp(path + length - 4, ".hex") == 0)
        out->size = from_hex(out->data, out->size);
    return true;
}

static int is_shown(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static size_t read_inputs(struct input *inputs, size_t count, const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode))
        return count + (count < INPUTS_MOST && read_input(&inputs[count], path));
    struct dirent **entries = NULL;
    int found = scandir(path, &entries, is_shown, alphasort);
    for (int i = 0; i < found; i++) {
        char file[512];
        snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        count += count < INPUTS_MOST && read_input(&inputs[count], file);
        free(entries[i]);
    }
    free(entries);
    return count;
}

int main(int argc, char **argv)
{
    static struct input inputs[INPUTS_MOST];
    size_t count = 0;
    size_t changes = 0;
    size_t scarce = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--changes") == 0 && i + 1 < argc)
            changes = strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--scarce") == 0 && i + 1 < argc)
            scarce = strtoul(argv[++i], NULL, 10);
        else
            count = read_inputs(inputs, count, argv[i]);
    }
    if (count == 0) {
        fprintf(stderr, "usage: %s [--changes N] [--scarce N] FILE|FOLDER...: none was found\n", argv[0]);
        return 1;
    }
    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(tell_death);
    for (size_t i = 0; i < count; i++)
        run(&inputs[i], "in round", 0);
    run_changed(inputs, count, changes);
    for (size_t i = 0; i < count && scarce > 0; i++) {
        run_scarce(&inputs[i], SCARCE_ONE, scarce);
        run_scarce(&inputs[i], SCARCE_ALL, scarce);
    }
    now.data = NULL;
    for (size_t i = 0; i < count; i++)
        free(inputs[i].data);
    printf("%zu inputs, %zu changed ones%s\n", count, changes, scarce == 0 ? "" : ", and each while memory runs out");
    return 0;
}
