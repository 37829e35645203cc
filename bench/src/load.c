/* load - puts one kind of load on a proxy, through however many connections, and measures it.
 *
 *   load MODE [--option value]...
 *
 *   requests   requests on kept connections, for --secs
 *   tunnels    connect, tunnel, TLS, one request, close; again and again for --secs
 *   refusals   a tunnel that must be refused; again and again for --secs
 *   download   one request on each connection, all of its answer
 *   events     one event stream on each connection; how late each event is
 *   idle       tunnels, TLS included, that do nothing; how many of them are still open
 *
 * One blocking thread a connection. Certificates and host names are verified, so that a proxy
 * which does not decrypt as it should is an error and no figure.
 *
 * It says "ready" when all is set up (connected, shaken hands, one request done), begins when it
 * gets a line, prints its result as one line of JSON, and lets go at the next line or at the end
 * of its input. So whoever drives it can look at the proxy before, after, and while it holds.
 */
#include "common.h"

enum mode { REQUESTS, TUNNELS, REFUSALS, DOWNLOAD, EVENTS, IDLE };
static const char *const mode_names[] = {"requests", "tunnels", "refusals",
                                         "download", "events",  "idle"};
/* Where a refusal came: as the answer to CONNECT, as an answer inside TLS, or as a mere close. */
enum refused { AT_CONNECT, INSIDE_TLS, BY_CLOSING };

static enum mode mode;
static const char *host = "localhost", *ca_file, *method = "GET", *path = "/";
static char dial_address[64];
static int dial_port, port, connections = 1, plain, direct, body_bytes;
static int64_t expected_bytes = -1;
static double seconds = 2;

/* So many connections are set up at a time: what is measured comes later. */
#define DOORS 32

static SSL_CTX *context;
static char *request_text, *warm_text;
static int request_bytes, warm_bytes;
static volatile int64_t end_at;
static pthread_barrier_t barrier;
static sem_t doors;

typedef struct {
    stream stream;
    int status, chunked, keep_alive;
    int64_t length;
} connection;

typedef struct {
    pthread_t thread;
    connection *connection;
    int64_t count, errors, bytes, done_at, refused[3];
    int64_t *latencies;
    size_t latency_count, latency_room;
    char line[512]; /* of an event stream, as far as it has come */
    int line_length;
    char error[160];
} worker;

static void add_latency(worker *w, int64_t latency_ns)
{
    if (w->latency_count == w->latency_room) {
        w->latency_room = w->latency_room ? w->latency_room * 2 : 256;
        w->latencies = realloc(w->latencies, w->latency_room * sizeof *w->latencies);
    }
    w->latencies[w->latency_count++] = latency_ns;
}

static int fail(worker *w, const char *what)
{
    connection *c = w->connection;
    if (!w->error[0])
        snprintf(w->error, sizeof w->error, "%s (status %d, %s)", what, c->status,
                 errno ? strerror(errno) : "closed");
    w->errors++;
    stream_close(&c->stream);
    return -1;
}

/* --- connections */

static int read_head(connection *c)
{
    char line[8192];
    c->status = c->chunked = 0, c->length = -1;
    if (stream_line(&c->stream, line, sizeof line) < 0 || strncmp(line, "HTTP/1.", 7))
        return -1;
    c->status = atoi(line + 9);
    c->keep_alive = line[7] == '1';
    for (;;) {
        int length = stream_line(&c->stream, line, sizeof line);
        const char *value;
        if (length < 0)
            return -1;
        if (!length)
            return 0;
        if ((value = field_value(line, "content-length")))
            c->length = atoll(value);
        else if ((value = field_value(line, "transfer-encoding")))
            c->chunked = strcasestr(value, "chunked") != NULL;
        else if ((value = field_value(line, "connection")) && strcasestr(value, "close"))
            c->keep_alive = 0;
    }
}

/* Connect, and ask for a tunnel where one is needed; 200 in `status` if it is open. */
static int dial(worker *w)
{
    connection *c = w->connection;
    c->stream.fd = socket(AF_INET, SOCK_STREAM, 0);
    c->stream.position = c->stream.length = c->status = 0;
    c->keep_alive = 1;
    struct timeval patience = {60, 0};
    setsockopt(c->stream.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    no_delay(c->stream.fd);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(dial_port)};
    inet_pton(AF_INET, dial_address, &address.sin_addr);
    errno = 0;
    if (connect(c->stream.fd, (struct sockaddr *)&address, sizeof address))
        return fail(w, "connect");
    if (direct || plain) {
        c->status = 200;
        return 0;
    }
    char head[1024];
    int size = snprintf(head, sizeof head, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host,
                        port, host, port);
    if (stream_write(&c->stream, head, size) || read_head(c))
        return -1; /* to be refused like this may be what is wanted */
    return 0;
}

static int shake_hands(worker *w)
{
    connection *c = w->connection;
    c->stream.tls = SSL_new(context);
    SSL_set_tlsext_host_name(c->stream.tls, host);
    SSL_set1_host(c->stream.tls, host);
    SSL_set_fd(c->stream.tls, c->stream.fd);
    ERR_clear_error();
    if (SSL_connect(c->stream.tls) == 1)
        return 0;
    char text[120] = "TLS handshake";
    if (ERR_peek_error())
        ERR_error_string_n(ERR_get_error(), text, sizeof text);
    return fail(w, text);
}

static int open_connection(worker *w)
{
    stream_close(&w->connection->stream);
    if (dial(w))
        return w->connection->stream.fd < 0 ? -1 : fail(w, "CONNECT");
    if (w->connection->status != 200)
        return fail(w, "the proxy refused the tunnel");
    return plain ? 0 : shake_hands(w);
}

/* --- answers */

static void take_events(worker *w, const char *data, int64_t size)
{
    int64_t now = now_ns();
    for (int64_t i = 0; i < size; i++) {
        if (data[i] != '\n') {
            if (w->line_length < (int)sizeof w->line - 1)
                w->line[w->line_length++] = data[i];
            continue;
        }
        w->line[w->line_length] = 0;
        w->line_length = 0;
        const char *written = strstr(w->line, "\"t\":");
        if (written) {
            add_latency(w, now - atoll(written + 4));
            w->count++;
        }
    }
}

static int take(worker *w, int64_t left) /* to the end of the stream if `left` is negative */
{
    stream *s = &w->connection->stream;
    while (left) {
        if (s->position == s->length && stream_fill(s) <= 0)
            return left < 0 ? 0 : -1;
        int64_t some = s->length - s->position;
        if (left > 0 && some > left)
            some = left;
        if (mode == EVENTS)
            take_events(w, s->buffer + s->position, some);
        s->position += (int)some;
        w->bytes += some;
        if (left > 0)
            left -= some;
    }
    return 0;
}

static int read_body(worker *w)
{
    connection *c = w->connection;
    if (!c->chunked) {
        if (c->length < 0)
            c->keep_alive = 0;
        return take(w, c->length);
    }
    char line[256];
    for (;;) {
        if (stream_line(&c->stream, line, sizeof line) < 0)
            return -1;
        long size = strtol(line, NULL, 16);
        if (size && take(w, size))
            return -1;
        if (stream_line(&c->stream, line, sizeof line) < 0)
            return -1;
        if (!size)
            return 0;
    }
}

static int exchange(worker *w, const char *text, int size, int64_t expected)
{
    connection *c = w->connection;
    int64_t before = w->bytes;
    errno = 0;
    if (stream_write(&c->stream, text, size) || read_head(c))
        return fail(w, "no answer");
    if (c->status != 200)
        return fail(w, "another status");
    if (read_body(w))
        return fail(w, "the body was cut off");
    if (expected >= 0 && w->bytes - before != expected)
        return fail(w, "a body of another length");
    return 0;
}

static int request(worker *w)
{
    return exchange(w, request_text, request_bytes, expected_bytes);
}

/* --- the modes */

static void set_up(worker *w)
{
    if (mode == TUNNELS || mode == REFUSALS)
        return;
    sem_wait(&doors);
    int failed = open_connection(w);
    sem_post(&doors);
    if (failed || mode == IDLE)
        return;
    if (mode == REQUESTS)
        request(w);
    else
        exchange(w, warm_text, warm_bytes, -1);
}

static int ready_again(worker *w)
{
    connection *c = w->connection;
    return c->stream.fd >= 0 && c->keep_alive ? 0 : open_connection(w);
}

static void do_requests(worker *w)
{
    while (now_ns() < end_at) {
        int64_t start = now_ns();
        if (ready_again(w) || request(w)) {
            usleep(1000);
            continue;
        }
        add_latency(w, now_ns() - start);
        w->count++;
    }
}

static void do_tunnels(worker *w)
{
    while (now_ns() < end_at) {
        int64_t start = now_ns();
        if (open_connection(w) || request(w)) {
            usleep(1000);
            continue;
        }
        add_latency(w, now_ns() - start);
        w->count++;
        stream_close(&w->connection->stream);
    }
}

static enum refused refusal_of(worker *w)
{
    connection *c = w->connection;
    if (dial(w))
        return BY_CLOSING;
    if (c->status != 200)
        return AT_CONNECT;
    if (shake_hands(w))
        return BY_CLOSING;
    if (stream_write(&c->stream, request_text, request_bytes) || read_head(c))
        return BY_CLOSING;
    if (c->status < 400)
        fail(w, "what must be refused was answered");
    return INSIDE_TLS;
}

static void do_refusals(worker *w)
{
    while (now_ns() < end_at) {
        int64_t start = now_ns();
        w->refused[refusal_of(w)]++;
        add_latency(w, now_ns() - start);
        w->count++;
        stream_close(&w->connection->stream);
    }
}

/* Tell whether the other side has not ended it. Its TLS tickets may well be waiting to be read. */
static int is_open(const stream *s)
{
    struct pollfd looked_at = {.fd = s->fd, .events = POLLRDHUP};
    return s->fd >= 0 && poll(&looked_at, 1, 0) == 0;
}

static void *work(void *argument)
{
    worker *w = argument;
    set_up(w);
    w->bytes = w->count = 0, w->latency_count = 0;
    pthread_barrier_wait(&barrier); /* ready */
    pthread_barrier_wait(&barrier); /* go */
    switch (mode) {
    case REQUESTS:
        do_requests(w);
        break;
    case TUNNELS:
        do_tunnels(w);
        break;
    case REFUSALS:
        do_refusals(w);
        break;
    case DOWNLOAD:
        w->count += !ready_again(w) && !request(w);
        break;
    case EVENTS:
        if (!ready_again(w))
            request(w);
        break;
    case IDLE:
        w->count += is_open(&w->connection->stream);
        break;
    }
    w->done_at = now_ns();
    pthread_barrier_wait(&barrier); /* done */
    pthread_barrier_wait(&barrier); /* let go */
    stream_close(&w->connection->stream);
    return NULL;
}

/* --- the whole */

static int build_request(char **text, const char *what, const char *verb, int body)
{
    char authority[300] = "";
    if (plain && !direct)
        snprintf(authority, sizeof authority, "http://%s:%d", host, port);
    char *out = *text = malloc(body + 4096);
    int size = sprintf(out,
                       "%s %s%s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: claude-cli/2.1 (bench)\r\n"
                       "Accept: application/json\r\nx-api-key: sk-ant-0123456789\r\n"
                       "anthropic-version: 2023-06-01\r\n",
                       verb, authority, what, host, port);
    if (body)
        size += sprintf(out + size, "Content-Type: application/json\r\nContent-Length: %d\r\n",
                        body);
    size += sprintf(out + size, "\r\n");
    memset(out + size, 'x', body);
    return size + body;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
           (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void wait_for_line(void)
{
    int c;
    while ((c = getchar()) != EOF && c != '\n') {
    }
}

static void read_options(int count, char **arguments)
{
    for (int i = 2; i + 1 < count; i += 2) {
        const char *name = arguments[i], *value = arguments[i + 1];
        if (!strcmp(name, "--proxy")) {
            if (sscanf(value, "%63[^:]:%d", dial_address, &dial_port) != 2)
                die("--proxy takes ADDRESS:PORT");
        } else if (!strcmp(name, "--direct"))
            direct = atoi(value);
        else if (!strcmp(name, "--plain"))
            plain = atoi(value);
        else if (!strcmp(name, "--host"))
            host = value;
        else if (!strcmp(name, "--port"))
            port = atoi(value);
        else if (!strcmp(name, "--ca"))
            ca_file = value;
        else if (!strcmp(name, "--connections"))
            connections = atoi(value);
        else if (!strcmp(name, "--secs"))
            seconds = atof(value);
        else if (!strcmp(name, "--method"))
            method = value;
        else if (!strcmp(name, "--path"))
            path = value;
        else if (!strcmp(name, "--body"))
            body_bytes = atoi(value);
        else if (!strcmp(name, "--expect"))
            expected_bytes = atoll(value);
        else
            die("unknown option %s", name);
    }
}

static void make_context(void)
{
    context = SSL_CTX_new(TLS_client_method());
    if (!ca_file || SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1)
        die("--ca names no file of certificates");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x08http/1.1", 9);
    /* TLS that is resumed would hide what a new connection costs. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

static void print_result(worker *workers, int64_t start, double cpu)
{
    worker all = {0};
    for (int i = 0; i < connections; i++) {
        worker *w = &workers[i];
        all.count += w->count, all.errors += w->errors, all.bytes += w->bytes;
        for (int k = 0; k < 3; k++)
            all.refused[k] += w->refused[k];
        for (size_t k = 0; k < w->latency_count; k++)
            add_latency(&all, w->latencies[k]);
        if (w->done_at > all.done_at)
            all.done_at = w->done_at;
        if (w->error[0] && !all.error[0])
            memcpy(all.error, w->error, sizeof all.error);
    }
    for (char *c = all.error; *c; c++)
        if (*c == '"' || *c == '\\')
            *c = '\'';
    if (all.latency_count)
        qsort(all.latencies, all.latency_count, sizeof *all.latencies, compare);
    double wall = (double)(all.done_at - start) / SECOND_NS, at[3] = {.5, .9, .99}, us[3] = {0};
    for (int k = 0; k < 3 && all.latency_count; k++)
        us[k] = all.latencies[(size_t)(at[k] * (all.latency_count - 1) + .5)] / 1e3;
    printf("{\"count\": %lld, \"errors\": %lld, \"error\": \"%s\", \"wall_s\": %.4f, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"bytes\": %lld, "
           "\"refused\": [%lld, %lld, %lld], \"load_cpu_s\": %.3f}\n",
           (long long)all.count, (long long)all.errors, all.error, wall, us[0], us[1], us[2],
           (long long)all.bytes, (long long)all.refused[0], (long long)all.refused[1],
           (long long)all.refused[2], cpu);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    int known = (int)(sizeof mode_names / sizeof *mode_names), found = 0;
    while (count > 1 && found < known && strcmp(arguments[1], mode_names[found]))
        found++;
    if (count < 2 || found == known)
        die("usage: load requests|tunnels|refusals|download|events|idle [--option value]...");
    mode = (enum mode)found;
    read_options(count, arguments);
    if (!plain)
        make_context();
    request_bytes = build_request(&request_text, path, method, body_bytes);
    warm_bytes = build_request(&warm_text, "/json", "GET", 0);

    worker *workers = calloc(connections, sizeof *workers);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    sem_init(&doors, 0, DOORS);
    pthread_barrier_init(&barrier, NULL, connections + 1);
    for (int i = 0; i < connections; i++) {
        workers[i].connection = calloc(1, sizeof(connection));
        workers[i].connection->stream.fd = -1;
        if (pthread_create(&workers[i].thread, &attributes, work, &workers[i]))
            die("too many threads");
    }
    pthread_barrier_wait(&barrier);
    puts("ready");
    fflush(stdout);
    wait_for_line();
    double cpu = cpu_seconds();
    int64_t start = now_ns();
    end_at = start + (int64_t)(seconds * SECOND_NS);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    cpu = cpu_seconds() - cpu;
    print_result(workers, start, cpu);
    wait_for_line();
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < connections; i++)
        pthread_join(workers[i].thread, NULL);
    return 0;
}
