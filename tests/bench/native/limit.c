/* The limit that all others are measured by: a C loop of send(), one ready frame to every socket, and nothing else.

   usage: limit PORT
   It speaks just enough WebSocket to be connected to. For each line "TURNS JOINED BODY_BYTES EVERY_US" on its standard
   input it broadcasts, prints "done", and how often a socket could not take all at once. It ends when its standard
   input closes. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
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

#define MOST_CLIENTS 65536
#define STAMP_DIGITS 20
#define LONGEST_HEADER 10

static int clients[MOST_CLIENTS];
static int count;
static long waits;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* SHA-1 (FIPS 180-4) of a short text: the handshake asks for nothing longer than 60 bytes, so two blocks are enough. */
static uint32_t rotated(uint32_t word, int by)
{
    return word << by | word >> (32 - by);
}

static void sha1_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t words[80];
    for (int i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        words[i] = rotated(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t mixed = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                         : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                  : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = rotated(a, 5) + mixed + e + words[i];
        e = d;
        d = c;
        c = rotated(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

static void sha1(const char *text, size_t length, unsigned char digest[20])
{
    unsigned char blocks[128] = {0};
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t size = length < 56 ? 64 : 128;
    memcpy(blocks, text, length);
    blocks[length] = 0x80;
    blocks[size - 2] = (unsigned char)(length * 8 >> 8);
    blocks[size - 1] = (unsigned char)(length * 8);
    for (size_t at = 0; at < size; at += 64)
        sha1_block(state, blocks + at);
    for (int i = 0; i < 20; i++)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* Base64 of the 20 bytes of a digest: 27 letters and one sign of padding. */
static void base64(const unsigned char digest[20], char text[29])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | digest[3 * i + 1] << 8 | (i < 6 ? digest[3 * i + 2] : 0);
        for (int j = 0; j < 4; j++)
            text[4 * i + j] = letters[three >> (18 - 6 * j) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

/* Reads a request to its empty line and answers it; returns 0 for anything that is no WebSocket handshake. */
static int shake_hands(int client)
{
    static const char key_name[] = "\r\nsec-websocket-key:";
    char request[4096], key[64 + 36 + 1], answer[256], accepted[29];
    unsigned char digest[20];
    size_t length = 0;
    do {
        ssize_t got = recv(client, request + length, sizeof request - 1 - length, 0);
        if (got <= 0)
            return 0;
        length += (size_t)got;
        request[length] = 0;
    } while (!strstr(request, "\r\n\r\n") && length < sizeof request - 1);
    const char *found = NULL;
    for (const char *at = request; (at = strstr(at, "\r\n")) && !found; at++)
        if (!strncasecmp(at, key_name, sizeof key_name - 1))
            found = at + sizeof key_name - 1;
    if (!found || sscanf(found, " %24s", key) != 1)
        return 0;
    strcat(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1(key, strlen(key), digest);
    base64(digest, accepted);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", accepted);
    return send(client, answer, (size_t)size, 0) == size;
}

static void accept_client(int listener)
{
    int client = accept(listener, NULL, NULL), yes = 1;
    if (client < 0)
        return;
    /* A client that connects and says nothing holds up the others for this long. */
    struct timeval patience = {5, 0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (count < MOST_CLIENTS && shake_hands(client))
        clients[count++] = client;
    else
        close(client);
}

/* Writes one unmasked text frame: the moment in 20 digits, filled up with x. Returns its size. */
static size_t write_frame(unsigned char *frame, size_t body_bytes)
{
    unsigned char *at = frame;
    char stamp[STAMP_DIGITS + 1];
    *at++ = 0x81;
    if (body_bytes < 126) {
        *at++ = (unsigned char)body_bytes;
    } else {
        int bytes = body_bytes < 65536 ? 2 : 8;
        *at++ = bytes == 2 ? 126 : 127;
        for (int i = bytes - 1; i >= 0; i--)
            *at++ = (unsigned char)((uint64_t)body_bytes >> (8 * i));
    }
    snprintf(stamp, sizeof stamp, "%020lld", (long long)now_ns());
    memset(at, 'x', body_bytes);
    memcpy(at, stamp, body_bytes < STAMP_DIGITS ? body_bytes : STAMP_DIGITS);
    return (size_t)(at - frame) + body_bytes;
}

/* Sends what a socket did not take at once; returns 0 when the client is gone. */
static int send_rest(int client, const unsigned char *rest, size_t size)
{
    waits++;
    while (size) {
        struct pollfd writable = {client, POLLOUT, 0};
        poll(&writable, 1, -1);
        ssize_t sent = send(client, rest, size, MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return 0;
        if (sent > 0) {
            rest += sent;
            size -= (size_t)sent;
        }
    }
    return 1;
}

static void send_to_all(const unsigned char *frame, size_t size)
{
    for (int i = 0; i < count; i++) {
        ssize_t sent = send(clients[i], frame, size, MSG_DONTWAIT);
        if (sent == (ssize_t)size)
            continue;
        int is_there = sent >= 0 || errno == EAGAIN || errno == EINTR;
        if (is_there)
            is_there = send_rest(clients[i], frame + (sent > 0 ? sent : 0), size - (size_t)(sent > 0 ? sent : 0));
        if (!is_there) {
            close(clients[i]);
            clients[i--] = clients[--count];
        }
    }
}

static void wait_until(int64_t due)
{
    int64_t left;
    while ((left = due - now_ns()) > 0) {
        struct timespec pause = {left / 1000000000, left % 1000000000};
        nanosleep(&pause, NULL);
    }
}

static void broadcast(long turns, long joined, long body_bytes, long every_us)
{
    unsigned char *frames = malloc((size_t)joined * (size_t)(body_bytes + LONGEST_HEADER));
    if (!frames)
        fail("frames");
    int64_t started_at = now_ns();
    waits = 0;
    for (long turn = 0; turn < turns; turn++) {
        wait_until(started_at + turn * every_us * 1000);
        size_t size = 0;
        for (long i = 0; i < joined; i++)
            size += write_frame(frames + size, (size_t)body_bytes);
        send_to_all(frames, size);
    }
    free(frames);
    printf("done, waited %ld times\n", waits);
    fflush(stdout);
}

/* Takes all lines that have come; returns 0 when the standard input is closed. */
static int obey(void)
{
    static char text[4096];
    static size_t length;
    ssize_t got = read(0, text + length, sizeof text - 1 - length);
    if (got <= 0)
        return 0;
    length += (size_t)got;
    text[length] = 0;
    char *end;
    while ((end = strchr(text, '\n'))) {
        long turns, joined, body_bytes, every_us;
        *end = 0;
        if (sscanf(text, "%ld %ld %ld %ld", &turns, &joined, &body_bytes, &every_us) != 4) {
            fprintf(stderr, "limit: not TURNS JOINED BODY_BYTES EVERY_US: %s\n", text);
            exit(2);
        }
        broadcast(turns, joined, body_bytes, every_us);
        length -= (size_t)(end + 1 - text);
        memmove(text, end + 1, length + 1);
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {0};
    struct rlimit descriptors;
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (argc != 2) {
        fprintf(stderr, "usage: limit PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 2048))
        fail("limit: listen");
    printf("ready limit C\n");
    fflush(stdout);
    struct pollfd watched[2] = {{0, POLLIN, 0}, {listener, POLLIN, 0}};
    while (poll(watched, 2, -1) >= 0 || errno == EINTR) {
        if (watched[1].revents)
            accept_client(listener);
        if (watched[0].revents && !obey())
            return 0;
    }
    return 1;
}
