#include "leader/leader.h"
#include "common/crypto.h"
#include "leader/address.h"

#include <stdio.h>
#include <stdlib.h>

struct leader {
    struct loop *loop;
    struct kube_client *client;
    struct kube_lease *lease; /* NULL: no election */
    struct address *address;  /* NULL: not written */
    struct leader_hooks hooks;
    struct loop_timer resign; /* without an election there is nothing to wait for */
    bool leads;
};

static bool may_write(void *arg)
{
    struct leader *leader = arg;
    return leader->lease == NULL ? leader->leads : kube_lease_held(leader->lease);
}

static void on_leading(void *arg)
{
    struct leader *leader = arg;
    leader->leads = true;
    if (leader->address != NULL)
        address_publish(leader->address);
    leader->hooks.leading(leader->hooks.arg);
}

static void on_lost(void *arg, const char *sentence)
{
    struct leader *leader = arg;
    leader->leads = false;
    leader->hooks.lost(leader->hooks.arg, sentence);
}

static void on_released(void *arg)
{
    struct leader *leader = arg;
    leader->hooks.resigned(leader->hooks.arg);
}

/* A process that is started anew in the same pod is another one: what the one before held is not its. */
static int start_lease(struct leader *leader, const struct leader_options *options, struct error *err)
{
    char identity[ELECTION_IDENTITY_SIZE];
    snprintf(identity, sizeof identity, "%.200s_%016llx", options->instance, (unsigned long long)random_u64());
    const struct kube_lease_options lease = {
        .namespace = options->namespace,
        .name = options->name,
        .identity = identity,
        .timing = options->timing,
        .hooks = {.arg = leader, .leading = on_leading, .lost = on_lost, .released = on_released},
    };
    return kube_lease_start(&leader->lease, options->loop, options->client, options->log, &lease, err);
}

static int start_address(struct leader *leader, const struct leader_options *options, struct error *err)
{
    if (options->address == NULL || *options->address == '\0')
        return 0;
    const struct address_options address = {
        .loop = options->loop,
        .client = options->client,
        .log = options->log,
        .namespace = options->service_namespace,
        .service = options->service,
        .address = options->address,
        .port = options->port,
    };
    return address_start(&leader->address, &address, err);
}

int leader_start(struct leader **out, const struct leader_options *options, struct error *err)
{
    cleanup_leader struct leader *leader = calloc(1, sizeof *leader);
    if (leader == NULL)
        return error_set(err, "out of memory for the election");
    leader->loop = options->loop;
    leader->client = options->client;
    leader->hooks = options->hooks;
    loop_timer_init(&leader->resign, options->loop, on_released, leader);
    if (start_address(leader, options, err) < 0 || (options->elects && start_lease(leader, options, err) < 0))
        return -1;
    kube_client_set_gate(options->client, may_write, leader);
    *out = move(leader);
    return 0;
}

void leader_stop(struct leader *leader)
{
    if (leader == NULL)
        return;
    loop_timer_cancel(&leader->resign);
    kube_client_set_gate(leader->client, NULL, NULL);
    address_stop(leader->address);
    kube_lease_stop(leader->lease);
    free(leader);
}

void leader_stand(struct leader *leader)
{
    if (leader->lease != NULL)
        kube_lease_stand(leader->lease);
    else
        on_leading(leader);
}

bool leader_leads(const struct leader *leader)
{
    return leader->leads;
}

const char *leader_other(const struct leader *leader)
{
    return leader->lease == NULL || leader->leads ? "" : kube_lease_holder(leader->lease);
}

void leader_resign(struct leader *leader)
{
    leader->leads = false;
    if (leader->address != NULL)
        address_retire(leader->address);
    if (leader->lease != NULL)
        kube_lease_release(leader->lease);
    else
        loop_timer_set(&leader->resign, 0);
}
