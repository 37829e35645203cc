/* origin - the server behind the proxies, on 127.0.0.1 alone.
 *
 *   origin TLS_PORT PLAIN_PORT CERTIFICATE KEY
 *
 *   /json               takes any body, answers 1 KiB of JSON
 *   /bytes?n=N          N bytes
 *   /events?n=N&rate=R  N server-sent events, R a second, each with the time of its writing
 *   /late?s=S           the same, S seconds later
 *   /stall              reads nothing more and says nothing, until the connection is gone
 *   /open               how many connections are open, and how many requests have come
 *
 * A thread for each connection: what it costs does not depend on how many there are.
 */
#include "common.h"

#define JSON_BYTES 1024
#define BLOCK (64 * 1024)

static SSL_CTX *context;
static char json[JSON_BYTES + 1], block[BLOCK];
static atomic_int open_connections;
static atomic_long requests_seen;

typedef struct {
    char target[2048];
    int64_t length;
    int chunked, keep_alive, expects;
} request;

static int read_request(stream *s, request *r)
{
    char line[8192], *target, *end;
    int first = 1;
    *r = (request){.keep_alive = 1};
    for (;;) {
        int length = stream_line(s, line, sizeof line);
        if (length < 0)
            return -1;
        const char *value;
        if (first) {
            if (!(target = strchr(line, ' ')) || !(end = strchr(++target, ' ')))
                return -1;
            snprintf(r->target, sizeof r->target, "%.*s", (int)(end - target), target);
            first = 0;
        } else if (!length) {
            atomic_fetch_add(&requests_seen, 1);
            return 0;
        } else if ((value = field_value(line, "content-length")))
            r->length = atoll(value);
        else if ((value = field_value(line, "transfer-encoding")))
            r->chunked = strcasestr(value, "chunked") != NULL;
        else if ((value = field_value(line, "connection")))
            r->keep_alive = strcasestr(value, "close") == NULL;
        else if (field_value(line, "expect"))
            r->expects = 1;
    }
}

static int skip(stream *s, int64_t left)
{
    while (left > 0) {
        if (s->position == s->length && stream_fill(s) <= 0)
            return -1;
        int64_t some = s->length - s->position;
        if (some > left)
            some = left;
        s->position += (int)some;
        left -= some;
    }
    return 0;
}

static int skip_body(stream *s, const request *r)
{
    char line[256];
    if (r->expects && stream_write(s, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return -1;
    if (!r->chunked)
        return skip(s, r->length);
    for (;;) {
        if (stream_line(s, line, sizeof line) < 0)
            return -1;
        long size = strtol(line, NULL, 16);
        if (size && skip(s, size))
            return -1;
        int rest = stream_line(s, line, sizeof line);
        while (!size && rest > 0) /* trailers */
            rest = stream_line(s, line, sizeof line);
        if (rest < 0)
            return -1;
        if (!size)
            return 0;
    }
}

static int answer(stream *s, const char *kind, int64_t length)
{
    char head[256];
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %lld\r\n\r\n", kind,
                        (long long)length);
    return stream_write(s, head, size);
}

static int answer_json(stream *s, const char *text, int length)
{
    char all[2048];
    int size = snprintf(all, sizeof all,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        "Content-Length: %d\r\n\r\n%s",
                        length, text);
    return stream_write(s, all, size);
}

static double parameter(const char *target, const char *name, double otherwise)
{
    const char *query = strchr(target, '?'), *found = query ? strstr(query, name) : NULL;
    return found ? atof(found + strlen(name)) : otherwise;
}

static int send_bytes(stream *s, int64_t left)
{
    if (answer(s, "application/octet-stream", left))
        return -1;
    for (; left > 0; left -= BLOCK)
        if (stream_write(s, block, left < BLOCK ? left : BLOCK))
            return -1;
    return 0;
}

static int send_events(stream *s, int count, double rate)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (stream_write(s, head, sizeof head - 1))
        return -1;
    int64_t period = (int64_t)(SECOND_NS / rate);
    /* Streams that were begun together do not speak together. */
    int64_t start = now_ns() + (int64_t)((double)random() / RAND_MAX * period);
    for (int i = 0; i < count; i++) {
        char event[512], out[640];
        sleep_until(start + i * period);
        int size = snprintf(event, sizeof event,
                            "event: content_block_delta\ndata: {\"t\":%lld,"
                            "\"type\":\"content_block_delta\",\"index\":0,"
                            "\"delta\":{\"type\":\"text_delta\",\"text\":\" hello world\"}}\n\n",
                            (long long)now_ns());
        size = snprintf(out, sizeof out, "%x\r\n%s\r\n", size, event);
        if (stream_write(s, out, size))
            return -1;
    }
    return stream_write(s, "0\r\n\r\n", 5);
}

static void stall(stream *s)
{
    struct pollfd watched = {.fd = s->fd, .events = POLLRDHUP};
    while (poll(&watched, 1, -1) < 0 && errno == EINTR) {
    }
}

static int serve_request(stream *s)
{
    request r;
    if (read_request(s, &r))
        return -1;
    if (!strcmp(r.target, "/stall")) {
        stall(s);
        return -1;
    }
    if (skip_body(s, &r))
        return -1;
    int failed;
    if (!strncmp(r.target, "/late", 5))
        sleep_until(now_ns() + (int64_t)(parameter(r.target, "s=", 1) * SECOND_NS));
    if (!strncmp(r.target, "/bytes", 6))
        failed = send_bytes(s, (int64_t)parameter(r.target, "n=", 1024));
    else if (!strncmp(r.target, "/events", 7))
        failed = send_events(s, (int)parameter(r.target, "n=", 10),
                             parameter(r.target, "rate=", 10));
    else if (!strcmp(r.target, "/open")) {
        char text[128];
        int size = snprintf(text, sizeof text, "{\"connections\": %d, \"requests\": %ld}",
                            atomic_load(&open_connections), atomic_load(&requests_seen));
        failed = answer_json(s, text, size);
    } else
        failed = answer_json(s, json, JSON_BYTES);
    return failed || !r.keep_alive ? -1 : 0;
}

static void *serve(void *argument)
{
    stream *s = argument;
    atomic_fetch_add(&open_connections, 1);
    no_delay(s->fd);
    if (s->tls && (!SSL_set_fd(s->tls, s->fd) || SSL_accept(s->tls) != 1)) {
        SSL_free(s->tls);
        s->tls = NULL;
    } else {
        while (!serve_request(s)) {
        }
    }
    ERR_clear_error();
    stream_close(s);
    free(s);
    atomic_fetch_sub(&open_connections, 1);
    return NULL;
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        die("cannot listen on port %d: %s", port, strerror(errno));
    return fd;
}

int main(int count, char **arguments)
{
    if (count != 5)
        die("usage: origin TLS_PORT PLAIN_PORT CERTIFICATE KEY");
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, arguments[3]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, arguments[4], SSL_FILETYPE_PEM) != 1)
        die("the certificate or its key cannot be used");

    static const char before[] = "{\"id\":\"msg_01\",\"type\":\"message\",\"role\":\"assistant\","
                                 "\"content\":[{\"type\":\"text\",\"text\":\"",
                      after[] = "\"}]}";
    memset(json, 'y', JSON_BYTES);
    memcpy(json, before, sizeof before - 1);
    memcpy(json + JSON_BYTES - (sizeof after - 1), after, sizeof after - 1);
    for (int i = 0; i < BLOCK; i++) /* not all zeros: a proxy might compress */
        block[i] = (char)random();

    struct pollfd listeners[2] = {{.fd = listen_on(atoi(arguments[1])), .events = POLLIN},
                                  {.fd = listen_on(atoi(arguments[2])), .events = POLLIN}};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        if (poll(listeners, 2, -1) < 0)
            continue;
        for (int i = 0; i < 2; i++) {
            if (!(listeners[i].revents & POLLIN))
                continue;
            int fd = accept4(listeners[i].fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd < 0)
                continue;
            stream *s = malloc(sizeof *s);
            *s = (stream){.fd = fd, .tls = i == 0 ? SSL_new(context) : NULL};
            pthread_t thread;
            if (pthread_create(&thread, &attributes, serve, s)) {
                stream_close(s);
                free(s);
            }
        }
    }
}
