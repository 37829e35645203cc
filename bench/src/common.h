/* What the load generator and the origin have in common. */
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL

/* CLOCK_MONOTONIC is the same for all processes of a machine, so what one wrote another can read. */
static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static inline void sleep_until(int64_t when)
{
    struct timespec t = {when / SECOND_NS, when % SECOND_NS};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static inline void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* One byte stream, with TLS or without. */
typedef struct {
    int fd;
    SSL *tls;
    int position, length; /* of what was read and not yet used */
    char buffer[32768];
} stream;

static inline int stream_write(stream *s, const char *data, int64_t size)
{
    while (size > 0) {
        int piece = size > (1 << 30) ? 1 << 30 : (int)size;
        ssize_t written =
            s->tls ? SSL_write(s->tls, data, piece) : send(s->fd, data, piece, MSG_NOSIGNAL);
        if (written <= 0)
            return -1;
        data += written, size -= written;
    }
    return 0;
}

/* Refill the empty buffer; 0 or less at the end. */
static inline int stream_fill(stream *s)
{
    ssize_t got = s->tls ? SSL_read(s->tls, s->buffer, sizeof s->buffer)
                         : recv(s->fd, s->buffer, sizeof s->buffer, 0);
    s->position = 0;
    s->length = got > 0 ? (int)got : 0;
    return (int)got;
}

/* Read one line without its end; its length, or -1 at the end of the stream. */
static inline int stream_line(stream *s, char *line, int room)
{
    int length = 0;
    for (;;) {
        if (s->position == s->length && stream_fill(s) <= 0)
            return -1;
        char c = s->buffer[s->position++];
        if (c == '\n') {
            if (length && line[length - 1] == '\r')
                length--;
            line[length] = 0;
            return length;
        }
        if (length < room - 1)
            line[length++] = c;
    }
}

static inline void stream_close(stream *s)
{
    if (s->tls) {
        SSL_shutdown(s->tls);
        SSL_free(s->tls);
        s->tls = NULL;
    }
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static inline const char *field_value(const char *line, const char *name)
{
    size_t length = strlen(name);
    if (strncasecmp(line, name, length) || line[length] != ':')
        return NULL;
    return line + length + 1 + strspn(line + length + 1, " \t");
}

#endif
