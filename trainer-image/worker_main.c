/* The role `worker`: data first, then the job. */
#include "pod.h"

#include "canary.h"
#include "local/local.h"
#include "numerics/numerics.h"
#include "worker/worker.h"

#include <string.h>

static void on_signal(void *arg)
{
    worker_leave(arg);
}

int worker_main(const struct pod *pod, struct error *err)
{
    if (pod->coordinator == NULL)
        return error_set(err, "a worker needs --coordinator or THOLE_COORDINATOR, the host:port of shard 0");
    cleanup_fd int signals = pod_signals(err);
    if (signals < 0)
        return -1;
    struct dataset_description train_header, test_header;
    cleanup_model struct model *model = NULL;
    cleanup_dataset struct dataset *train = NULL;
    cleanup_dataset struct dataset *test = NULL;
    if (pod_model(pod, &model, &train_header, &test_header, err) < 0)
        return -1;
    if (dataset_open(&train, pod->data, pod->plan, DATASET_TRAIN, err) < 0 ||
        dataset_open(&test, pod->data, pod->plan, DATASET_TEST, err) < 0)
        return LOCAL_BAD_DATA;

    cleanup_net struct net *net = NULL;
    if (pod_net(pod, &net, err) < 0)
        return -1;
    struct worker_options options = {
        .net = net,
        .log = &pod->log,
        .plan = pod->plan,
        .model = model,
        .train = train,
        .test = test,
        .coordinator = pod->coordinator,
        .pod = pod->name,
        .kernel = numerics_kernel(),
        .argv = pod->argv,
        .exit_when_done = pod->exit_when_done,
    };
    if (canary_of_worker(pod->plan, model, dataset_samples(train), options.canary, err) < 0)
        return -1;
    cleanup_worker struct worker *worker = NULL;
    if (worker_new(&worker, &options, err) < 0 || net_watch_fd(net, signals, on_signal, worker, err) < 0)
        return -1;
    return worker_run(worker, err);
}
