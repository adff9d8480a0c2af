/* A crowd of WebSocket clients that is fast enough not to be what is measured: epoll, and one buffer for all.

   usage: swarm PORT CLIENTS [NAME=VALUE ...]
     path=/ws          what it connects to
     header=TEXT       one more header of the handshake; with "Sec-WebSocket-Extensions: permessage-deflate" compressed
                       messages are counted too, though nobody looks into them
     greeting=TEXT     what each client sends first; welcome=TEXT what the answer to it begins with: only then does the
                       client count as connected
     prefix=TEXT       what a broadcast begins with, other messages being the protocol's own; stamp_offset=BYTES where
                       in it the stamp of 20 digits begins
     answer_before=TEXT answer_at=-BYTES answer_bytes=BYTES answer_after=TEXT
                       what each broadcast is answered with: `before`, a piece of the message that begins so many bytes
                       from its end, `after`

   It prints "connected CLIENTS NANOSECONDS", or on standard error why not. For each line
   "expect TURNS JOINED BODY_BYTES TIMEOUT_MS" on its standard input it prints "expecting", and, when each client has
   had TURNS x JOINED messages or the time is over,
       arrived COUNT ASTRAY CLOSED MEDIAN_NS MAX_NS CPU_NS       or the same with "missing" in front.
   ASTRAY counts what must not be: a message that is too short, without a stamp, out of order, or more than was expected.
   CLOSED counts clients whose connection is gone. MEDIAN and MAX are over the turns: from the stamp in the text to the
   arrival at the last client. CPU is what this process used meanwhile. It ends when its standard input closes. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* So many handshakes are under way at a time: a server's backlog may be as short as 100. */
#define AT_ONCE 64
#define BUFFER_BYTES (256 * 1024)
/* Of each message so much is kept from its beginning and its end; a ping's text is no longer than 125. */
#define HEAD_BYTES 384
#define TAIL_BYTES 128
#define PING_BYTES 125
#define STAMP_DIGITS 20
#define PATIENCE_NS 60000000000

enum { NEW, ASKING, ANSWERING, OPEN, GONE };
enum { CONTINUATION = 0, CLOSE = 8, PING = 9 };

struct client {
    int socket, state;
    /* Of the frame that is being read: its header so far, and how much of its payload is still to come. */
    unsigned char header[14];
    int header_bytes, header_wanted;
    int is_final, opcode;
    uint64_t payload_left;
    /* Of the message that is being read: a message may have fragments, and a ping may come between them. */
    unsigned char head[HEAD_BYTES];
    int head_bytes, tail_bytes, is_compressed;
    unsigned char tail[TAIL_BYTES];
    uint64_t message_bytes;
    unsigned char ping[PING_BYTES];
    int ping_bytes;
    /* Of the block that is expected. */
    long received;
    int64_t last_stamp;
    int answer_matched, is_welcome;
};

static struct client *clients;
static int total, connected, begun, closed, poller;
static char request[2048];
static const char *path = "/ws", *header = "", *greeting = "", *welcome = "", *prefix = "";
static const char *answer_before = "", *answer_after = "";
static int stamp_offset, answer_at, answer_bytes, head_wanted;
static unsigned char buffer[BUFFER_BYTES];

static int is_expecting;
static long turns, joined, expected_each, count, astray;
static uint64_t body_bytes;
/* For each message of the block, the latest arrival, as nanoseconds after its stamp. */
static int64_t *last_arrivals;
static int64_t deadline, cpu_before, read_at;

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void give_up(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fprintf(stderr, "swarm: ");
    vfprintf(stderr, format, values);
    fprintf(stderr, "\n");
    exit(1);
}

/* Connecting */

static void watch(struct client *client, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, how, client->socket, &event))
        give_up("epoll_ctl: %s", strerror(errno));
}

static void begin(struct client *client, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->socket < 0)
        give_up("client %d gets no socket: %s (ulimit -n)", begun, strerror(errno));
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(client->socket, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        give_up("client %d cannot connect: %s", begun, strerror(errno));
    client->state = ASKING;
    watch(client, EPOLLOUT, EPOLL_CTL_ADD);
    begun++;
}

/* Sends a short frame, masked as a client has to, with zeros for a mask: the text may then go as it is. */
static void send_frame(struct client *client, int opcode, const void *text, size_t size)
{
    static unsigned char frame[8 + 65536];
    size_t at = 2;
    frame[0] = (unsigned char)(0x80 | opcode);
    frame[1] = (unsigned char)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) {
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
        at = 4;
    }
    memset(frame + at, 0, 4);
    memcpy(frame + at + 4, text, size);
    send(client->socket, frame, at + 4 + size, MSG_NOSIGNAL);
}

static void ask(struct client *client)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->socket, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        give_up("a client cannot connect: %s", strerror(error));
    if (send(client->socket, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        give_up("a client's request does not fit into its socket");
    client->state = ANSWERING;
    watch(client, EPOLLIN, EPOLL_CTL_MOD);
}

/* Takes the answer to the handshake to its empty line; returns how many bytes belonged to it. */
static size_t take_answer(struct client *client, const unsigned char *bytes, size_t size)
{
    static const char end[] = "\r\n\r\n";
    size_t at = 0;
    while (at < size && client->answer_matched < 4) {
        if (client->head_bytes < HEAD_BYTES)
            client->head[client->head_bytes++] = bytes[at];
        client->answer_matched = bytes[at] == end[client->answer_matched] ? client->answer_matched + 1
                                 : bytes[at] == '\r'                      ? 1
                                                                          : 0;
        at++;
    }
    if (client->answer_matched == 4) {
        if (client->head_bytes < 12 || memcmp(client->head + 8, " 101", 4))
            give_up("the server does not upgrade: %.*s", client->head_bytes < 60 ? client->head_bytes : 60,
                    (char *)client->head);
        client->head_bytes = 0;
        client->header_wanted = 2;
        client->state = OPEN;
        if (*greeting)
            send_frame(client, 1, greeting, strlen(greeting));
        client->is_welcome = !*welcome;
        connected += client->is_welcome;
    }
    return at;
}

/* Reading */

static void leave(struct client *client)
{
    if (client->state != OPEN)
        give_up("a connection was closed during its handshake");
    close(client->socket);
    client->state = GONE;
    closed++;
}

static int begins_with(const struct client *client, const char *text)
{
    int size = (int)strlen(text);
    return client->head_bytes >= size && !memcmp(client->head, text, (size_t)size);
}

/* Returns the stamp, or -1 where there is none. */
static int64_t stamp_of(const struct client *client)
{
    int64_t value = 0;
    if (client->head_bytes < stamp_offset + STAMP_DIGITS)
        return -1;
    for (int i = 0; i < STAMP_DIGITS; i++) {
        unsigned digit = client->head[stamp_offset + i] - (unsigned)'0';
        if (digit > 9)
            return -1;
        value = value * 10 + digit;
    }
    return value;
}

/* Takes a message that is no broadcast. */
static void chatter_arrived(struct client *client)
{
    if (!client->is_welcome && begins_with(client, welcome)) {
        client->is_welcome = 1;
        connected++;
    }
    /* Engine.IO, which Socket.IO speaks, asks in a text of its own whether its client is there. */
    if (client->message_bytes == 1 && client->head[0] == '2')
        send_frame(client, 1, "3", 1);
}

static void answer(struct client *client)
{
    char text[1024];
    int size = snprintf(text, sizeof text, "%s%.*s%s", answer_before, answer_bytes,
                        (const char *)client->tail + client->tail_bytes + answer_at, answer_after);
    if (client->tail_bytes < -answer_at || size >= (int)sizeof text)
        give_up("a message cannot be answered: too short, or the answer too long");
    send_frame(client, 1, text, (size_t)size);
}

static void message_arrived(struct client *client)
{
    if (!client->is_welcome || (!client->is_compressed && !begins_with(client, prefix))) {
        chatter_arrived(client);
        return;
    }
    if (answer_bytes)
        answer(client);
    int64_t stamp = client->is_compressed ? 0 : stamp_of(client);
    if (!is_expecting || client->received == expected_each) {
        astray++;
        return;
    }
    if ((!client->is_compressed && client->message_bytes < body_bytes) || stamp < client->last_stamp)
        astray++;
    client->last_stamp = stamp;
    int64_t *last = &last_arrivals[client->received++];
    if (stamp > 0 && read_at - stamp > *last)
        *last = read_at - stamp;
    count++;
}

static void frame_arrived(struct client *client)
{
    if (client->opcode == PING) {
        send_frame(client, 10, client->ping, (size_t)client->ping_bytes);
        client->ping_bytes = 0;
    } else if (client->opcode == CLOSE) {
        leave(client);
    } else if (client->opcode < CLOSE && client->is_final) {
        message_arrived(client);
        client->head_bytes = 0;
        client->tail_bytes = 0;
        client->message_bytes = 0;
    }
    client->header_bytes = 0;
    client->header_wanted = 2;
}

/* Takes the next bytes of a header; the second byte says how many there are. Returns how many bytes belonged to it. */
static size_t take_header(struct client *client, const unsigned char *bytes, size_t size)
{
    size_t taken = 0;
    while (client->header_bytes < client->header_wanted) {
        if (taken == size)
            return taken;
        client->header[client->header_bytes++] = bytes[taken++];
        if (client->header_bytes == 2) {
            int length = client->header[1];
            if (length & 0x80)
                give_up("a server's frame is masked, or is no frame");
            client->header_wanted = length == 126 ? 4 : length == 127 ? 10 : 2;
        }
    }
    client->is_final = client->header[0] >> 7;
    client->opcode = client->header[0] & 15;
    client->payload_left = 0;
    if (client->header_wanted == 2)
        client->payload_left = client->header[1];
    for (int i = 2; i < client->header_wanted; i++)
        client->payload_left = client->payload_left << 8 | client->header[i];
    if (client->opcode < CLOSE)
        client->message_bytes += client->payload_left;
    if (client->opcode < CLOSE && client->opcode != CONTINUATION)
        client->is_compressed = client->header[0] >> 6 & 1;
    return taken;
}

static void keep(unsigned char *kept, int *kept_bytes, int most, const unsigned char *bytes, size_t size)
{
    size_t room = (size_t)(most - *kept_bytes);
    size_t more = size < room ? size : room;
    memcpy(kept + *kept_bytes, bytes, more);
    *kept_bytes += (int)more;
}

static void keep_tail(struct client *client, const unsigned char *bytes, size_t size)
{
    size_t more = size < TAIL_BYTES ? size : TAIL_BYTES;
    size_t still = (size_t)client->tail_bytes + more > TAIL_BYTES ? TAIL_BYTES - more : (size_t)client->tail_bytes;
    memmove(client->tail, client->tail + client->tail_bytes - still, still);
    memcpy(client->tail + still, bytes + size - more, more);
    client->tail_bytes = (int)(still + more);
}

static void take_frames(struct client *client, const unsigned char *bytes, size_t size)
{
    while (client->state == OPEN) {
        if (client->header_bytes < client->header_wanted) {
            size_t taken = take_header(client, bytes, size);
            bytes += taken;
            size -= taken;
            if (client->header_bytes < client->header_wanted)
                return;
        }
        size_t part = size < client->payload_left ? size : (size_t)client->payload_left;
        if (client->opcode == PING)
            keep(client->ping, &client->ping_bytes, PING_BYTES, bytes, part);
        else if (client->opcode < CLOSE)
            keep(client->head, &client->head_bytes, head_wanted, bytes, part);
        if (answer_bytes && client->opcode < CLOSE)
            keep_tail(client, bytes, part);
        bytes += part;
        size -= part;
        client->payload_left -= part;
        if (client->payload_left)
            return;
        frame_arrived(client);
    }
}

static void read_from(struct client *client)
{
    ssize_t size = recv(client->socket, buffer, sizeof buffer, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        leave(client);
        return;
    }
    size_t answer_bytes = 0;
    read_at = clock_ns(CLOCK_MONOTONIC);
    if (client->state == ANSWERING)
        answer_bytes = take_answer(client, buffer, (size_t)size);
    take_frames(client, buffer + answer_bytes, (size_t)size - answer_bytes);
}

/* Expecting */

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void expect(int timeout_ms)
{
    free(last_arrivals);
    expected_each = turns * joined;
    last_arrivals = calloc((size_t)expected_each, sizeof *last_arrivals);
    if (!last_arrivals)
        give_up("no memory for %ld messages", expected_each);
    for (int i = 0; i < total; i++) {
        clients[i].received = 0;
        clients[i].last_stamp = 0;
    }
    count = 0;
    is_expecting = 1;
    deadline = clock_ns(CLOCK_MONOTONIC) + (int64_t)timeout_ms * 1000000;
    cpu_before = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    printf("expecting\n");
}

static void report(const char *how)
{
    int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
    /* The latest of the messages of a turn stands for the turn. */
    for (long turn = 0; turn < turns; turn++) {
        int64_t latest = 0;
        for (long i = turn * joined; i < (turn + 1) * joined; i++)
            latest = last_arrivals[i] > latest ? last_arrivals[i] : latest;
        last_arrivals[turn] = latest;
    }
    qsort(last_arrivals, (size_t)turns, sizeof *last_arrivals, ascending);
    printf("%s %ld %ld %d %lld %lld %lld\n", how, count, astray, closed, (long long)last_arrivals[turns / 2],
           (long long)last_arrivals[turns - 1], (long long)cpu);
    is_expecting = 0;
    astray = 0;
}

/* Takes all lines that have come; returns 0 when the standard input is closed. */
static int obey(void)
{
    static char text[4096];
    static size_t length;
    ssize_t got = read(0, text + length, sizeof text - 1 - length);
    if (got < 0 && errno == EAGAIN)
        return 1;
    if (got <= 0)
        return 0;
    length += (size_t)got;
    text[length] = 0;
    char *end;
    while ((end = strchr(text, '\n'))) {
        unsigned long long body;
        int timeout_ms;
        *end = 0;
        if (sscanf(text, "expect %ld %ld %llu %d", &turns, &joined, &body, &timeout_ms) != 4 || turns * joined < 1)
            give_up("not \"expect TURNS JOINED BODY_BYTES TIMEOUT_MS\": %s", text);
        body_bytes = body;
        expect(timeout_ms);
        length -= (size_t)(end + 1 - text);
        memmove(text, end + 1, length + 1);
    }
    return 1;
}

/* Does what the sockets and the standard input ask for; returns 0 when the standard input is closed. */
static int turn_round(int timeout_ms)
{
    struct epoll_event events[512];
    int ready = epoll_wait(poller, events, 512, timeout_ms);
    for (int i = 0; i < ready; i++) {
        struct client *client = events[i].data.ptr;
        if (!client) {
            if (!obey())
                return 0;
        } else if (client->state == ASKING) {
            ask(client);
        } else if (client->state != GONE) {
            read_from(client);
        }
    }
    return 1;
}

/* Connects all; returns 0 when the standard input is closed before that. */
static int connect_all(int port)
{
    int64_t started_at = clock_ns(CLOCK_MONOTONIC), now = started_at, last_connected_at = started_at;
    for (int before = 0; connected < total; before = connected) {
        while (begun < total && begun - connected < AT_ONCE)
            begin(&clients[begun], port);
        if (!turn_round(1000))
            return 0;
        now = clock_ns(CLOCK_MONOTONIC);
        if (connected > before)
            last_connected_at = now;
        if (now - last_connected_at > PATIENCE_NS)
            give_up("%d of %d clients are connected, and then nothing happened for a minute", connected, total);
    }
    printf("connected %d %lld\n", connected, (long long)(now - started_at));
    return 1;
}

/* Looks whether all has arrived, or the time is over; returns for how many ms to wait at most, -1 for without end. */
static int look(void)
{
    if (!is_expecting)
        return -1;
    int64_t left_ns = deadline - clock_ns(CLOCK_MONOTONIC);
    if (count == expected_each * total)
        report("arrived");
    else if (closed == total || left_ns < 0)
        report("missing");
    else
        return (int)(left_ns / 1000000) + 1;
    return -1;
}

static int longest(int a, int b)
{
    return a > b ? a : b;
}

static void set(const char *option)
{
    static const struct { const char *name; const char **text; int *number; } known[] = {
        {"path=", &path, NULL}, {"header=", &header, NULL}, {"greeting=", &greeting, NULL},
        {"welcome=", &welcome, NULL}, {"prefix=", &prefix, NULL}, {"stamp_offset=", NULL, &stamp_offset},
        {"answer_before=", &answer_before, NULL}, {"answer_after=", &answer_after, NULL},
        {"answer_at=", NULL, &answer_at}, {"answer_bytes=", NULL, &answer_bytes},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t size = strlen(known[i].name);
        if (strncmp(option, known[i].name, size))
            continue;
        if (known[i].text)
            *known[i].text = option + size;
        else
            *known[i].number = atoi(option + size);
        return;
    }
    give_up("there is no option %s", option);
}

static void prepare(int argc, char **argv, int port)
{
    for (int i = 3; i < argc; i++)
        set(argv[i]);
    head_wanted = longest(stamp_offset + STAMP_DIGITS, longest((int)strlen(welcome), (int)strlen(prefix)));
    if (head_wanted > HEAD_BYTES || answer_at < -TAIL_BYTES || answer_at + answer_bytes > 0)
        give_up("a stamp, a welcome or a prefix lies behind byte %d, or an answer's piece outside of the last %d",
                HEAD_BYTES, TAIL_BYTES);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s\r\n",
                        path, port, header, *header ? "\r\n" : "");
    if (size >= (int)sizeof request)
        give_up("the request is longer than %d bytes", (int)sizeof request);
}

int main(int argc, char **argv)
{
    struct rlimit descriptors;
    if (argc < 3)
        give_up("usage: swarm PORT CLIENTS [NAME=VALUE ...]");
    int port = atoi(argv[1]);
    total = atoi(argv[2]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    prepare(argc, argv, port);
    clients = calloc((size_t)total, sizeof *clients);
    poller = epoll_create1(EPOLL_CLOEXEC);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);

    struct epoll_event standard_input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &standard_input))
        give_up("standard input is no pipe: %s", strerror(errno));
    if (connect_all(port))
        while (turn_round(look()))
            ;
    return 0;
}
