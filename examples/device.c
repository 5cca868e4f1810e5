/* A device that never loses or duplicates a position: numbered batches over TCP, see docs/devices.md ("Frames").
 *
 *     cc -std=c99 -Wall -Wextra -o device device.c
 *     ./device box.example.com 9999 gateway-3 < positions.csv
 *
 * Each line of standard input is a position: device id,time,latitude,longitude,speed in km/h. The last two and the time
 * (ISO 8601, or seconds since 1970) may be empty. Lines that are available are sent as one batch of up to 32. A batch is
 * sent again with the same number, over a new connection if necessary, until the box has acknowledged or rejected it; no
 * line is read meanwhile. If the box requires a key, set the environment variable WHIMBREL_KEY.
 *
 * It needs only C99 and POSIX sockets, and some 60 KB of static memory.
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH_RECORDS = 32,
    TEXT_BYTES = 256, /* a device id has up to 255 */
    FRAME_BYTES = 24576,
    ANSWER_BYTES = 1024,
    LINES_BYTES = 4096,
    SENDER_BYTES = 64,
    TIMEOUT_S = 30,
    FIRST_PAUSE_MS = 250,
    LONGEST_PAUSE_MS = 30000
};

enum { STORED, REPEATED, REFUSED, BUSY }; /* greater: error in the program or its key */

struct record {
    char device_id[TEXT_BYTES], time[TEXT_BYTES];
    double latitude, longitude, speed_kmh; /* NAN: unknown */
};

struct box {
    const char *host, *port, *key;
    char sender_id[SENDER_BYTES + 1];
    int socket; /* -1: none */
};

struct answer {
    int64_t number, status, index; /* -1: nil */
    char reason[ANSWER_BYTES];
};

static void die(const char *what) {
    fprintf(stderr, "device: %s\n", what);
    exit(1);
}

/* Encode msgpack ------------------------------------------------------------------------------------- */

struct frame {
    unsigned char bytes[FRAME_BYTES];
    size_t size;
};

static void put(struct frame *frame, const void *bytes, size_t size) {
    if (size > sizeof frame->bytes - frame->size) die("a batch is larger than its frame may be");
    memcpy(frame->bytes + frame->size, bytes, size);
    frame->size += size;
}

static void put_big_endian(struct frame *frame, int tag, uint64_t value, int width) {
    unsigned char bytes[9] = {(unsigned char)tag};
    for (int i = 0; i < width; i++) bytes[1 + i] = (unsigned char)(value >> 8 * (width - 1 - i));
    put(frame, bytes, (size_t)width + 1);
}

static void put_byte(struct frame *frame, int byte) { put_big_endian(frame, byte, 0, 0); }

static void put_text(struct frame *frame, const char *text) {
    size_t size = strlen(text);
    put_big_endian(frame, 0xda, size, 2); /* str 16 */
    put(frame, text, size);
}

static void put_number(struct frame *frame, const char *name, double value) {
    uint64_t bits;
    if (isnan(value)) return;
    memcpy(&bits, &value, sizeof bits);
    put_text(frame, name);
    put_big_endian(frame, 0xcb, bits, 8); /* float 64 */
}

static void put_record(struct frame *frame, const struct record *record) {
    int fields = 1 + (record->time[0] != 0);
    fields += !isnan(record->latitude) + !isnan(record->longitude) + !isnan(record->speed_kmh);
    put_byte(frame, 0x80 | fields); /* fixmap */
    put_text(frame, "device_id");
    put_text(frame, record->device_id);
    if (record->time[0] != 0) {
        put_text(frame, "time");
        put_text(frame, record->time);
    }
    put_number(frame, "latitude", record->latitude);
    put_number(frame, "longitude", record->longitude);
    put_number(frame, "speed_kmh", record->speed_kmh);
}

/* A frame begins with its length, which is known at the end. */
static void begin(struct frame *frame) { frame->size = 4; }

static void end(struct frame *frame) {
    size_t size = frame->size - 4;
    for (int i = 0; i < 4; i++) frame->bytes[i] = (unsigned char)(size >> 8 * (3 - i));
}

/* Decode msgpack: only types that responses contain ----------------------------------------------- */

struct reader {
    const unsigned char *at, *end;
    bool is_bad;
};

static uint64_t take(struct reader *in, int width) {
    uint64_t value = 0;
    if (in->end - in->at < width) {
        in->is_bad = true;
        return 0;
    }
    while (width-- > 0) value = value << 8 | *in->at++;
    return value;
}

/* An integer that is not negative, or -1 for nil. */
static int64_t take_number(struct reader *in) {
    int tag = (int)take(in, 1);
    if (tag <= 0x7f) return tag;
    if (tag >= 0xcc && tag <= 0xcf) return (int64_t)(take(in, 1 << (tag - 0xcc)) & INT64_MAX);
    if (tag != 0xc0) in->is_bad = true;
    return -1;
}

static void take_text(struct reader *in, char *text, size_t room) {
    int tag = (int)take(in, 1);
    size_t size = 0;
    if (tag >= 0xa0 && tag <= 0xbf) size = (size_t)tag & 0x1f;
    else if (tag >= 0xd9 && tag <= 0xdb) size = (size_t)take(in, 1 << (tag - 0xd9));
    else if (tag != 0xc0) in->is_bad = true;
    if (in->is_bad || (size_t)(in->end - in->at) < size) {
        in->is_bad = true;
        return;
    }
    snprintf(text, room, "%.*s", (int)size, (const char *)in->at);
    in->at += size;
}

/* [batch number, status, accepted, nil or {"index": …, "field": …, "reason": …}]; false if it has another form. */
static bool understand(const unsigned char *bytes, size_t size, struct answer *answer) {
    struct reader in = {bytes, bytes + size, false};
    char name[16], field[ANSWER_BYTES];
    if (take(&in, 1) != 0x94) return false;
    answer->number = take_number(&in);
    answer->status = take_number(&in);
    take_number(&in);
    answer->index = -1;
    answer->reason[0] = 0;
    int tag = (int)take(&in, 1), members = (tag & 0xf0) == 0x80 ? tag & 0x0f : 0;
    for (int i = 0; i < members && !in.is_bad; i++) {
        name[0] = 0;
        take_text(&in, name, sizeof name);
        if (strcmp(name, "index") == 0) answer->index = take_number(&in);
        else if (strcmp(name, "reason") == 0) take_text(&in, answer->reason, sizeof answer->reason);
        else take_text(&in, field, sizeof field);
    }
    return !in.is_bad;
}

/* The connection ---------------------------------------------------------------------------------- */

static void leave(struct box *box) {
    if (box->socket >= 0) close(box->socket);
    box->socket = -1;
}

static bool reach(struct box *box) {
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found, *one;
    struct timeval timeout = {.tv_sec = TIMEOUT_S};
    if (getaddrinfo(box->host, box->port, &wanted, &found) != 0) return false;
    for (one = found; one != NULL && box->socket < 0; one = one->ai_next) {
        box->socket = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (box->socket < 0) continue;
        setsockopt(box->socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(box->socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
        if (connect(box->socket, one->ai_addr, one->ai_addrlen) != 0) leave(box);
    }
    freeaddrinfo(found);
    return box->socket >= 0;
}

static bool read_all(int socket, unsigned char *bytes, size_t size) {
    while (size > 0) {
        ssize_t got = recv(socket, bytes, size, 0);
        if (got <= 0) return false;
        bytes += got;
        size -= (size_t)got;
    }
    return true;
}

/* Send a frame and wait for the response; false if the connection was lost: it is then unknown whether it was stored. */
static bool ask(struct box *box, const struct frame *frame, struct answer *answer) {
    unsigned char head[4], bytes[ANSWER_BYTES];
    for (size_t sent = 0; sent < frame->size;) {
        ssize_t count = send(box->socket, frame->bytes + sent, frame->size - sent, MSG_NOSIGNAL);
        if (count <= 0) return false;
        sent += (size_t)count;
    }
    if (!read_all(box->socket, head, sizeof head)) return false;
    size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    if (size > sizeof bytes) die("the answer is longer than any of a Whimbrel");
    if (!read_all(box->socket, bytes, size)) return false;
    if (!understand(bytes, size, answer)) die("the answer is none of a Whimbrel");
    return true;
}

/* Connect, and send the key if there is one. */
static bool greet(struct box *box, struct answer *answer) {
    static struct frame hello;
    if (!reach(box)) return false;
    if (box->key == NULL) return true;
    begin(&hello);
    put_byte(&hello, 0x92);
    put_byte(&hello, 0);
    put_text(&hello, box->key);
    end(&hello);
    if (!ask(box, &hello, answer)) return false;
    if (answer->status != STORED && answer->status != BUSY) die(answer->reason);
    return answer->status == STORED;
}

static void pause_for(int *pause_ms) {
    struct timespec time = {.tv_sec = *pause_ms / 1000, .tv_nsec = *pause_ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
    *pause_ms = *pause_ms * 2 < LONGEST_PAUSE_MS ? *pause_ms * 2 : LONGEST_PAUSE_MS;
}

/* Send a frame until it is acknowledged or rejected: always the same bytes with the same number. */
static void deliver(struct box *box, const struct frame *frame, int64_t number, struct answer *answer) {
    int pause_ms = FIRST_PAUSE_MS;
    for (;; pause_for(&pause_ms)) {
        if ((box->socket >= 0 || greet(box, answer)) && ask(box, frame, answer)) {
            if (answer->status > BUSY) die(answer->reason);
            if (answer->number != number) die("the answer is for another batch");
            if (answer->status != BUSY) return;
        } else {
            leave(box);
        }
    }
}

/* Batches ----------------------------------------------------------------------------------------- */

static struct record records[BATCH_RECORDS];
static int waiting;
static int64_t last_number;

static void send_batch(struct box *box) {
    static struct frame frame;
    static struct answer answer;
    while (waiting > 0) {
        begin(&frame);
        put_byte(&frame, 0x94); /* [1, sender id, number, [record, …]] */
        put_byte(&frame, 1);
        put_text(&frame, box->sender_id);
        put_big_endian(&frame, 0xcf, (uint64_t)++last_number, 8); /* uint 64 */
        put_big_endian(&frame, 0xdc, (uint64_t)waiting, 2);       /* array 16 */
        for (int i = 0; i < waiting; i++) put_record(&frame, &records[i]);
        end(&frame);
        deliver(box, &frame, last_number, &answer);
        if (answer.status != REFUSED) {
            const char *again = answer.status == REPEATED ? ", repeated" : "";
            printf("batch %lld: %d on disk%s\n", (long long)last_number, waiting, again);
            waiting = 0;
        } else { /* no record of it is stored: remove the invalid one, and send the others as a new batch */
            if (answer.index < 0 || answer.index >= waiting) die(answer.reason);
            fprintf(stderr, "refused: %s: %s\n", records[answer.index].device_id, answer.reason);
            struct record *gone = &records[answer.index];
            memmove(gone, gone + 1, (size_t)(--waiting - answer.index) * sizeof *gone);
        }
        fflush(stdout);
    }
}

/* Return the next field of a line and advance the line to the field after it. */
static char *field(char **line) {
    char *begins = *line;
    *line += strcspn(*line, ",");
    if (**line != 0) *(*line)++ = 0;
    return begins;
}

static bool copy(char *text, const char *from) {
    return snprintf(text, TEXT_BYTES, "%s", from) < TEXT_BYTES;
}

static bool read_number(double *number, const char *text) {
    char *end = NULL;
    *number = *text == 0 ? NAN : strtod(text, &end);
    return end == NULL || *end == 0;
}

static void add(struct box *box, char *line) {
    struct record *record = &records[waiting];
    line[strcspn(line, "\r")] = 0;
    if (*line == 0) return;
    bool is_good = copy(record->device_id, field(&line)) && copy(record->time, field(&line));
    is_good = is_good && read_number(&record->latitude, field(&line)) && read_number(&record->longitude, field(&line));
    if (is_good && read_number(&record->speed_kmh, field(&line)) && *line == 0) waiting++;
    else fprintf(stderr, "refused: %s: the line is not device id,time,latitude,longitude,speed\n", record->device_id);
    if (waiting == BATCH_RECORDS) send_batch(box);
}

/* Read lines; send the available ones before waiting for more. */
static void follow(struct box *box) {
    static char lines[LINES_BYTES];
    size_t size = 0;
    for (;;) {
        ssize_t got = read(STDIN_FILENO, lines + size, sizeof lines - 1 - size);
        if (got <= 0) break;
        size += (size_t)got;
        char *line = lines, *stop;
        while ((stop = memchr(line, '\n', size - (size_t)(line - lines))) != NULL) {
            *stop = 0;
            add(box, line);
            line = stop + 1;
        }
        size -= (size_t)(line - lines);
        if (size == sizeof lines - 1) die("a line is too long");
        memmove(lines, line, size);
        send_batch(box);
    }
    lines[size] = 0;
    add(box, lines);
    send_batch(box);
}

/* Numbers begin at 1 with each start, so each start uses a new sender id. */
static void name_sender(struct box *box, const char *name) {
    unsigned char random[8];
    int file = open("/dev/urandom", O_RDONLY);
    if (file < 0 || read(file, random, sizeof random) != (ssize_t)sizeof random) die("cannot read /dev/urandom");
    close(file);
    int size = snprintf(box->sender_id, sizeof box->sender_id, "%.40s-", name);
    for (size_t i = 0; i < sizeof random; i++) size += sprintf(box->sender_id + size, "%02x", random[i]);
}

int main(int count, char **arguments) {
    struct box box = {.socket = -1, .key = getenv("WHIMBREL_KEY")};
    if (count != 4) die("usage: device HOST PORT NAME < positions.csv");
    box.host = arguments[1];
    box.port = arguments[2];
    name_sender(&box, arguments[3]);
    follow(&box);
    leave(&box);
    return 0;
}
