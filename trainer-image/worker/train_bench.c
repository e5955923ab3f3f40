/* train_bench — trains in one process without servers or sockets, and says how fast.
 *
 *   train_bench [--data DIR] [--epochs N] [--model-file FILE] [MODEL [BATCH [BLOCKS]]]
 *
 * DIR holds Fashion-MNIST or MNIST as IDX files, plain names with .gz; without it the data are random. Prints one line
 * an epoch: samples per second by the clock on the wall and per second of core time (which other programs on the
 * machine disturb less), and the mean loss. A whole training step is timed: fetching the samples, gradients of all
 * blocks, the tree, the optimizer; with the optimizer and data of config/samples/. FILE gets the model, which is what
 * a job of any number of workers and shards must give, bit for bit.
 */
#include "common/clock.h"
#include "common/plan/schedule.h"
#include "data/data.h"
#include "model/model.h"
#include "optimizer/optimizer.h"
#include "worker/gradient.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    const char *data, *model_file;
    uint32_t epochs, batch, blocks;
};

struct bench {
    const struct plan *plan;
    struct dataset *data;
    struct model *model;
    struct optimizer *optimizer;
    struct gradient *gradient;
    struct parameters *chunks;
    struct optimizer_step update;
    float *params, *velocity, *sum;
    double loss; /* of the step */
};

static bool go_on(void *arg)
{
    (void)arg;
    return true;
}

static void *place(void *arg, const struct chunk *chunk)
{
    const struct bench *bench = arg;
    return bench->sum + chunk->offset;
}

/* Nothing reads the chunk's parameters any more before the next step. */
static void filled(void *arg, const struct chunk *chunk, void *sum, double loss)
{
    struct bench *bench = arg;
    float *const theta = bench->params + chunk->offset;
    float *const states[OPTIMIZER_STATES_MOST] = {bench->velocity + chunk->offset};
    optimizer_apply(bench->optimizer, &bench->update, chunk->offset, chunk->offset + chunk->count, theta, theta, states,
                    sum);
    bench->loss += loss;
}

/* Time that this thread has had a core for. */
static double core_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void train_epoch(struct bench *bench, const struct schedule *schedule, uint32_t epoch)
{
    const struct plan *plan = bench->plan;
    const struct instant begin = clock_now();
    const double core_begin = core_seconds();
    const struct gradient_hooks hooks = {.go_on = go_on, .place = place, .filled = filled, .arg = bench};
    bench->loss = 0;
    for (uint64_t i = 0; i < schedule->steps_per_epoch; i++) {
        const uint64_t number = epoch * schedule->steps_per_epoch + i;
        const uint64_t count = schedule_step(schedule, number).count;
        bench->update = optimizer_step(&plan->training.optimizer, schedule, number, number + 1, count, 1);
        (void)gradient_compute(bench->gradient, number, TREE_ROOT, bench->params, bench->chunks, &hooks);
    }
    const double samples = (double)schedule->samples;
    const double seconds = (double)instant_since(clock_now(), begin) / (double)SECONDS;
    printf("%s batch %u blocks %u kernel %s epoch %u: %.0f samples/s, %.0f a core-second, train loss %.6f\n",
           model_network(bench->model)->name, plan->training.batch_size, plan->blocks, numerics_kernel(), epoch + 1,
           samples / seconds, samples / (core_seconds() - core_begin), bench->loss / samples);
    fflush(stdout);
}

static int run(const struct plan *plan, const char *zoo, const char *root, const char *model_file, struct error *err)
{
    cleanup_dataset struct dataset *data = NULL;
    cleanup_model struct model *model = NULL;
    cleanup_optimizer struct optimizer *optimizer = NULL;
    cleanup_gradient struct gradient *gradient = NULL;
    cleanup_parameters struct parameters *chunks = NULL;
    if (dataset_open(&data, root, plan, DATASET_TRAIN, err) < 0)
        return -1;
    const uint32_t *shape = dataset_shape(data);
    const struct network_spec spec = {.zoo = zoo};
    const struct network_sample sample = {.shape = {shape[0], shape[1], shape[2]}, .classes = plan->dataset.classes};
    if (model_make(&model, &spec, &sample, err) < 0 || gradient_new(&gradient, plan, model, data, err) < 0)
        return -1;
    const struct network *network = model_network(model);
    if (optimizer_new(&optimizer, &plan->training.optimizer, network->tensors, network->tensor_count,
                      network_chunk(network), err) < 0 ||
        parameters_new(&chunks, network, plan->shards, plan->wire, err) < 0)
        return -1;
    const uint64_t parameters = model_parameters(model);
    cleanup_free float *params = vector_new(parameters), *velocity = vector_new(parameters);
    cleanup_free float *sum = vector_new(parameters);
    if (params == NULL || velocity == NULL || sum == NULL)
        return error_set(err, "out of memory");
    memset(velocity, 0, parameters * sizeof *velocity);
    struct bench bench = {
        .plan = plan,
        .data = data,
        .model = model,
        .optimizer = optimizer,
        .gradient = gradient,
        .chunks = chunks,
        .params = params,
        .velocity = velocity,
        .sum = sum,
    };
    model_init_range(model, plan->training.seed, 0, parameters, bench.params);
    const struct schedule schedule = schedule_of(plan, dataset_samples(data));
    for (uint32_t epoch = 0; epoch < plan->training.epochs; epoch++)
        train_epoch(&bench, &schedule, epoch);
    uint8_t digest[SHA256_SIZE];
    uint64_t bytes;
    return model_file == NULL
               ? 0
               : model_file_write(model, plan, numerics_kernel(), bench.params, NULL, model_file, digest, &bytes, err);
}

/* Random images in MNIST's shape, as files in a folder of their own. */
enum { RANDOM_SAMPLES = 20000, RANDOM_SIDE = 28 };

static int write_random(const char *folder, const char *name, uint32_t rank, uint32_t modulus, struct error *err)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const uint8_t header[16] = {
        0, 0, 8, (uint8_t)rank, 0, 0, RANDOM_SAMPLES >> 8, RANDOM_SAMPLES & 0xFF, 0, 0, 0, RANDOM_SIDE,
        0, 0, 0, RANDOM_SIDE};
    const size_t head = 4 + (size_t)4 * rank;
    const size_t size = RANDOM_SAMPLES * (size_t)(rank == 1 ? 1 : RANDOM_SIDE * RANDOM_SIDE);
    cleanup_free uint8_t *content = malloc(head + size);
    if (content == NULL)
        return error_set(err, "out of memory");
    memcpy(content, header, head);
    struct random_stream stream = random_stream(1, RANDOM_CANARY, rank, 0, 0);
    for (size_t i = 0; i < size; i++)
        content[head + i] = (uint8_t)(random_u32_at(stream, i) % modulus);
    return file_write_atomically(path, content, head + size, err);
}

static int run_random(struct plan *plan, const char *zoo, const char *model_file, struct error *err)
{
    char folder[] = "/tmp/train_bench-XXXXXX";
    if (mkdtemp(folder) == NULL)
        return error_errno(err, "make '%s'", folder);
    plan->dataset.train = (struct plan_split){(char *)"x", (char *)"y"};
    int result = write_random(folder, "x", 3, 256, err) < 0 || write_random(folder, "y", 1, 10, err) < 0
                     ? -1
                     : run(plan, zoo, folder, model_file, err);
    char path[128];
    snprintf(path, sizeof path, "%s/x", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/y", folder);
    unlink(path);
    rmdir(folder);
    return result;
}

static int usage(void)
{
    fprintf(stderr, "usage: train_bench [--data DIR] [--epochs N] [--model-file FILE] [MODEL [BATCH [BLOCKS]]]\n");
    return 2;
}

static bool read_options(int argc, char *argv[], struct options *options)
{
    static const struct option names[] = {
        {"data", required_argument, NULL, 'd'},
        {"epochs", required_argument, NULL, 'e'},
        {"model-file", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 'd')
            options->data = optarg;
        else if (option == 'e')
            options->epochs = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 'm')
            options->model_file = optarg;
        else
            return false;
    }
    if (optind + 1 < argc)
        options->batch = (uint32_t)strtoul(argv[optind + 1], NULL, 10);
    if (optind + 2 < argc)
        options->blocks = (uint32_t)strtoul(argv[optind + 2], NULL, 10);
    return options->batch >= 1 && options->batch <= 60000 && options->blocks >= 1 &&
           options->blocks <= PLAN_BLOCKS_MOST;
}

/* The zoo's models of images. */
static const char *const images[] = {"logistic", "mlp", "lenet", "resnet8", "resnet20"};

int main(int argc, char *argv[])
{
    struct error err = {0};
    struct options options = {.epochs = 3, .batch = 128, .blocks = 8};
    numerics_setup();
    if (!read_options(argc, argv, &options))
        return usage();
    const char *wanted = optind < argc ? argv[optind] : NULL;
    bool found = false;
    for (uint32_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        if (wanted != NULL && strcmp(wanted, images[i]) != 0)
            continue;
        struct plan plan = {
            .dataset = {.train = {(char *)"train-images-idx3-ubyte.gz", (char *)"train-labels-idx1-ubyte.gz"},
                        .classes = 10,
                        .scale = 1 / 255.0,
                        .channels = 1,
                        .mean = {0.2860},
                        .std = {0.3530}},
            .training = {.epochs = options.epochs,
                         .batch_size = options.batch,
                         .optimizer = {.learning_rate = 0.05, .momentum = 0.9},
                         .seed = 1},
            .blocks = options.blocks,
            .shards = 1,
        };
        found = true;
        if ((options.data == NULL ? run_random(&plan, images[i], options.model_file, &err)
                                  : run(&plan, images[i], options.data, options.model_file, &err)) < 0) {
            fprintf(stderr, "train_bench: %s\n", error_message(&err));
            return 1;
        }
    }
    return found ? 0 : usage();
}
