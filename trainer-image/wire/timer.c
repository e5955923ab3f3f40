/* A binary min-heap of armed timers; each knows its place, so that it can be taken out of the middle. */
#include "wire/net_internal.h"

#include <stdlib.h>

static void heap_put(struct net *net, size_t place, struct timer *timer)
{
    net->heap[place] = timer;
    timer->place = place;
}

static void sift_up(struct net *net, size_t place)
{
    struct timer *timer = net->heap[place];
    while (place > 0 && timer->when < net->heap[(place - 1) / 2]->when) {
        heap_put(net, place, net->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    heap_put(net, place, timer);
}

static void sift_down(struct net *net, size_t place)
{
    struct timer *timer = net->heap[place];
    for (;;) {
        size_t child = 2 * place + 1;
        if (child >= net->heap_count)
            break;
        if (child + 1 < net->heap_count && net->heap[child + 1]->when < net->heap[child]->when)
            child++;
        if (timer->when <= net->heap[child]->when)
            break;
        heap_put(net, place, net->heap[child]);
        place = child;
    }
    heap_put(net, place, timer);
}

static void heap_remove(struct timer *timer)
{
    if (timer->place == TIMER_DISARMED)
        return;
    struct net *net = timer->net;
    size_t place = timer->place;
    struct timer *last = net->heap[--net->heap_count];
    timer->place = TIMER_DISARMED;
    if (last == timer)
        return;
    heap_put(net, place, last);
    sift_up(net, place);
    sift_down(net, last->place);
}

/* Room in the heap for every timer that exists is made here, so that arming one cannot fail. */
struct timer *net_timer_new(struct net *net, void (*due)(void *arg), void *arg)
{
    if (net->timer_count == net->heap_capacity) {
        size_t capacity = net->heap_capacity == 0 ? 16 : 2 * net->heap_capacity;
        struct timer **heap = reallocarray(net->heap, capacity, sizeof(struct timer *));
        if (heap == NULL)
            return NULL;
        net->heap = heap;
        net->heap_capacity = capacity;
    }
    struct timer *timer = malloc(sizeof *timer);
    if (timer == NULL)
        return NULL;
    *timer = (struct timer){.net = net, .due = due, .arg = arg, .place = TIMER_DISARMED, .next = net->timers};
    if (net->timers != NULL)
        net->timers->previous = timer;
    net->timers = timer;
    net->timer_count++;
    return timer;
}

void net_timer_set(struct timer *timer, int64_t nanoseconds_from_now)
{
    heap_remove(timer);
    if (nanoseconds_from_now < 0)
        return;
    struct net *net = timer->net;
    int64_t now = clock_now().nanoseconds;
    timer->when = nanoseconds_from_now > INT64_MAX - now ? INT64_MAX : now + nanoseconds_from_now;
    heap_put(net, net->heap_count++, timer);
    sift_up(net, timer->place);
}

void net_timer_free(struct timer *timer)
{
    if (timer == NULL)
        return;
    heap_remove(timer);
    struct net *net = timer->net;
    if (timer->previous != NULL)
        timer->previous->next = timer->next;
    else
        net->timers = timer->next;
    if (timer->next != NULL)
        timer->next->previous = timer->previous;
    net->timer_count--;
    free(timer);
}

int64_t timers_next(const struct net *net, int64_t now)
{
    if (net->heap_count == 0)
        return -1;
    int64_t left = net->heap[0]->when - now;
    return left < 0 ? 0 : left;
}

bool timers_run(struct net *net, int64_t now)
{
    /* `now` stays: what a timer arms for "at once" waits for the next round, so that sockets are looked at between. */
    bool any = false;
    while (net->heap_count > 0 && net->heap[0]->when <= now) {
        struct timer *timer = net->heap[0];
        heap_remove(timer);
        timer->due(timer->arg);
        any = true;
    }
    return any;
}
