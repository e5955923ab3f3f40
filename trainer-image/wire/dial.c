/* Addresses and the way to a connected socket: listening, looking names up, trying one address after the other. */
#include "wire/net_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

int address_split(const char *address, char host[ADDRESS_HOST_SIZE], char port[ADDRESS_PORT_SIZE], struct error *err)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL)
        return error_set(err, "'%.300s' is no address: it needs a port, as in host:%d", address, WIRE_DEFAULT_PORT);
    const char *begin = address;
    size_t length = (size_t)(colon - address);
    if (length >= 2 && begin[0] == '[' && begin[length - 1] == ']') {
        begin++;
        length -= 2;
    } else if (memchr(begin, ':', length) != NULL) {
        return error_set(err, "'%.300s' is no address: write IPv6 addresses as [address]:port", address);
    }
    if (length >= ADDRESS_HOST_SIZE)
        return error_set(err, "'%.300s' is no address: a host has at most %d characters", address,
                         ADDRESS_HOST_SIZE - 1);

    const char *digits = colon + 1;
    size_t count = strspn(digits, "0123456789");
    if (count == 0 || count >= ADDRESS_PORT_SIZE || digits[count] != '\0' || strtoul(digits, NULL, 10) > 65535)
        return error_set(err, "'%.300s' is no address: its port is no number from 0 to 65535", address);
    snprintf(host, ADDRESS_HOST_SIZE, "%.*s", (int)length, begin);
    snprintf(port, ADDRESS_PORT_SIZE, "%s", digits);
    return 0;
}

void address_format(const struct sockaddr_storage *address, char out[PEER_TEXT_SIZE])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(out, PEER_TEXT_SIZE, "%s:%u", host, ntohs(v4->sin_port));
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
        const uint8_t *bytes = v6->sin6_addr.s6_addr;
        inet_ntop(mapped ? AF_INET : AF_INET6, mapped ? bytes + 12 : bytes, host, sizeof host);
        snprintf(out, PEER_TEXT_SIZE, mapped ? "%s:%u" : "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        snprintf(out, PEER_TEXT_SIZE, "?");
    }
}

int address_look_up(const char *host, const char *port, int flags, struct sockaddr_storage *out, size_t most,
                    struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(host, port, &hints, &found);
    if (failure != 0)
        return error_set(err, "look up '%s': %s", host == NULL ? "" : host,
                         failure == EAI_SYSTEM ? strerror(errno) : gai_strerror(failure));
    size_t count = 0;
    for (const struct addrinfo *at = found; at != NULL && count < most; at = at->ai_next)
        if (at->ai_family == AF_INET || at->ai_family == AF_INET6)
            memcpy(&out[count++], at->ai_addr, at->ai_addrlen);
    freeaddrinfo(found);
    return (int)count;
}

static socklen_t address_length(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* No waiting for more to send; a peer that is gone is noticed in about 2 s, whether something is under way to it
 * (user timeout) or nothing is (keep-alive). */
int socket_tune(int fd, const struct sockaddr_storage *peer)
{
    /* Inside one machine there is no path to share, and what some systems choose for long ones (bbr) paces every
     * segment by a timer, which costs a tenth of a step. Where it is not allowed, it goes on as it was. */
    if (is_loopback(peer))
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno"));
    if (set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) < 0 ||
        set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT) < 0 ||
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1) < 0 || set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1) < 0)
        return -1;
    return set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

static int listen_on(const struct sockaddr_storage *where, uint16_t *port)
{
    cleanup_fd int fd = socket(where->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* Both families where the address is the wildcard's; a restart must not wait for old connections to fade. */
    if (where->ss_family == AF_INET6 && set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) < 0)
        return -1;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } bound = {.v6 = {0}};
    socklen_t length = sizeof bound;
    if (set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) < 0 ||
        bind(fd, (const struct sockaddr *)where, address_length(where)) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, &bound.any, &length) < 0)
        return -1;
    *port = ntohs(where->ss_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
    return move_fd(&fd);
}

int wire_listen_socket(const char *address, uint16_t *port, struct error *err)
{
    char host[ADDRESS_HOST_SIZE] = "", service[ADDRESS_PORT_SIZE] = "";
    if (address_split(address, host, service, err) < 0)
        return -1;
    struct sockaddr_storage found[ADDRESSES_MOST] = {0};
    int count = 0;
    if (host[0] == '\0') {
        /* Every interface: by IPv6 for both families, by IPv4 alone where the machine has no IPv6. */
        count = address_look_up("::", service, AI_NUMERICHOST, found, 1, err);
        count = count < 0 ? count : count + address_look_up("0.0.0.0", service, AI_NUMERICHOST, found + count, 1, err);
    } else {
        count = address_look_up(host, service, 0, found, ADDRESSES_MOST, err);
    }
    if (count < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        int fd = listen_on(&found[i], port);
        if (fd >= 0)
            return fd;
    }
    return error_errno(err, "listen on '%s'", address);
}

/* Starts connecting to one address; -1 with errno where that failed at once. */
static int start_connect(struct conn *conn, const struct sockaddr_storage *address)
{
    cleanup_fd int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || socket_tune(fd, address) < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)address, address_length(address)) < 0 && errno != EINPROGRESS)
        return -1;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = conn};
    if (epoll_ctl(conn->net->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -1;
    conn->fd = move_fd(&fd);
    return 0;
}

void conn_connect_next(struct conn *conn, const char *why_not_last)
{
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    while (conn->address_next < conn->address_count) {
        if (start_connect(conn, &conn->addresses[conn->address_next++]) == 0) {
            conn->state = CONN_CONNECTING;
            net_timer_set(conn->timer, CONNECT_MOST);
            return;
        }
        why_not_last = strerror(errno);
    }
    conn_fail(conn, "connect to '%s': %s", conn->peer, why_not_last);
}

void conn_connected(struct conn *conn)
{
    int failure = 0;
    socklen_t length = sizeof failure;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &failure, &length) < 0)
        failure = errno;
    if (failure != 0) {
        conn_connect_next(conn, strerror(failure));
        return;
    }
    int64_t left = conn->handshake_until - clock_now().nanoseconds;
    net_timer_set(conn->timer, left > 0 ? left : 0);
    conn_watch_events(conn, false);
    handshake_begin(conn);
}

static void connect_first(struct conn *conn, const struct sockaddr_storage *addresses, size_t count)
{
    conn->addresses = malloc(count * sizeof *addresses);
    if (conn->addresses == NULL) {
        conn_fail(conn, "no memory to connect to '%s'", conn->peer);
        return;
    }
    memcpy(conn->addresses, addresses, count * sizeof *addresses);
    conn->address_count = count;
    conn_connect_next(conn, "it has no address");
}

static void resolved(void *arg, const struct sockaddr_storage *addresses, size_t count, const char *failure)
{
    struct conn *conn = arg;
    conn->resolve = NULL;
    if (failure != NULL)
        conn_fail(conn, "%s", failure);
    else
        connect_first(conn, addresses, count);
}

struct conn *conn_dial(struct net *net, const char *address, enum dialogue dialogue,
                       const struct conn_handlers *handlers, void *arg)
{
    struct conn *conn = conn_new_dialled(net, address, dialogue, handlers, arg);
    if (conn == NULL)
        return NULL;
    struct error err = {0};
    char host[ADDRESS_HOST_SIZE] = "", port[ADDRESS_PORT_SIZE] = "";
    if (address_split(address, host, port, &err) < 0 || host[0] == '\0') {
        conn_fail(conn, "%s", err.message[0] != '\0' ? error_message(&err) : "an address to dial needs a host");
        return conn;
    }
    struct sockaddr_storage addresses[ADDRESSES_MOST] = {0};
    int count = address_look_up(host, port, AI_NUMERICHOST, addresses, ADDRESSES_MOST, NULL);
    if (count > 0)
        connect_first(conn, addresses, (size_t)count);
    else if (resolve_start(&conn->resolve, net, host, port, resolved, conn, &err) < 0)
        conn_fail(conn, "%s", error_message(&err));
    return conn;
}
