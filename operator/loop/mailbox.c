#include "loop/mailbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

struct mailbox {
    pthread_mutex_t lock;
    void **ring;
    size_t capacity, first, count;
    mailbox_free_message *free_message;
    mailbox_notify *notify;
    void *notify_arg;

    /* Once attached to a loop; the eventfd is readable while there may be messages. Written by the loop's thread
     * before others push, or under the lock. */
    int wake;
    struct loop_fd watch;
    mailbox_receive *receive;
    void *receive_arg;
};

struct mailbox *mailbox_new(size_t capacity, mailbox_free_message *free_message, struct error *err)
{
    struct mailbox *mailbox = calloc(1, sizeof *mailbox);
    void **ring = calloc(capacity, sizeof *ring);
    if (mailbox == NULL || ring == NULL) {
        free(mailbox);
        free(ring);
        error_set(err, "out of memory for a mailbox of %zu messages", capacity);
        return NULL;
    }
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->ring = ring;
    mailbox->capacity = capacity;
    mailbox->free_message = free_message;
    mailbox->wake = -1;
    return mailbox;
}

void mailbox_free(struct mailbox *mailbox)
{
    if (mailbox == NULL)
        return;
    if (mailbox->wake >= 0) {
        loop_fd_remove(&mailbox->watch);
        close(mailbox->wake);
    }
    for (void *message; (message = mailbox_pop(mailbox)) != NULL;)
        if (mailbox->free_message != NULL)
            mailbox->free_message(message);
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox->ring);
    free(mailbox);
}

/* Under the lock. */
static void wake_receiver(struct mailbox *mailbox)
{
    if (mailbox->wake >= 0)
        (void)!write(mailbox->wake, &(uint64_t){1}, sizeof(uint64_t));
}

int mailbox_push(struct mailbox *mailbox, void *message)
{
    pthread_mutex_lock(&mailbox->lock);
    bool accepted = mailbox->count < mailbox->capacity;
    if (accepted) {
        mailbox->ring[(mailbox->first + mailbox->count++) % mailbox->capacity] = message;
        wake_receiver(mailbox);
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (accepted && mailbox->notify != NULL)
        mailbox->notify(mailbox->notify_arg);
    return accepted ? 0 : -1;
}

void *mailbox_pop(struct mailbox *mailbox)
{
    void *message = NULL;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->count > 0) {
        message = mailbox->ring[mailbox->first];
        mailbox->first = (mailbox->first + 1) % mailbox->capacity;
        mailbox->count--;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return message;
}

/* Takes what was there when the turn began, so that a busy sender cannot keep the loop from everything else. */
static void receive_messages(void *arg, uint32_t events)
{
    (void)events;
    struct mailbox *mailbox = arg;
    uint64_t wakes;
    (void)!read(mailbox->wake, &wakes, sizeof wakes);
    pthread_mutex_lock(&mailbox->lock);
    size_t count = mailbox->count;
    pthread_mutex_unlock(&mailbox->lock);
    while (count-- > 0)
        mailbox->receive(mailbox->receive_arg, mailbox_pop(mailbox));
}

int mailbox_attach(struct mailbox *mailbox, struct loop *loop, mailbox_receive *receive, void *arg, struct error *err)
{
    mailbox->receive = receive;
    mailbox->receive_arg = arg;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0)
        return error_errno(err, "make a descriptor for a mailbox");
    loop_fd_init(&mailbox->watch, loop, wake, receive_messages, mailbox);
    if (loop_fd_set(&mailbox->watch, EPOLLIN, err) < 0) {
        close(wake);
        return -1;
    }
    pthread_mutex_lock(&mailbox->lock);
    mailbox->wake = wake;
    if (mailbox->count > 0)
        wake_receiver(mailbox);
    pthread_mutex_unlock(&mailbox->lock);
    return 0;
}

void mailbox_on_push(struct mailbox *mailbox, mailbox_notify *notify, void *arg)
{
    mailbox->notify = notify;
    mailbox->notify_arg = arg;
}
