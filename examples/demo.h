/* What the two demo programs share: their small protocol, SHA-256, files, and the clock. */
#ifndef DEMO_H
#define DEMO_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rdmacm_gluster.h>

#define CHUNK (256 * 1024) /* octets of one Send */
#define BEGIN "begin"      /* the client, before it writes */
#define WRITTEN "written"  /* and behind what it has written */
#define ARRIVED "arrived"  /* what the server answers first */

/* The client's private data: how much will come. */
struct hello {
    uint64_t size;
};

/* The server's private data: where the client may write, and read. */
struct offer {
    uint64_t addr;
    uint32_t key;
    uint32_t reserved;
};

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Ends the program when a call has failed, with what the library knows about it. */
static inline void check(int rc, const char *what)
{
    rcg_error why = { RCG_ERROR_INIT };
    if (rc >= 0) return;
    if (rcg_last_error(&why) != 0) why.text[0] = why.remedy[0] = '\0';
    fprintf(stderr, "%s: %s\n%s\n%s\n", what, strerror(-rc), why.text, why.remedy);
    exit(1);
}

/* SHA-256 of memory, by way of the file `path`, which is kept. */
static inline void save_and_sum(const void *data, size_t size, const char *path, char sum[65])
{
    char command[4200];
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    snprintf(command, sizeof command, "sha256sum '%s'", path);
    file = popen(command, "r");
    if (file == NULL || fscanf(file, "%64s", sum) != 1 || pclose(file) != 0) {
        fprintf(stderr, "%s failed\n", command);
        exit(1);
    }
}

static inline void print_rate(const char *who, const char *what, uint64_t size, double took)
{
    printf("%s: %-11s %6.1f MiB in %7.1f ms = %8.1f MiB/s\n", who, what, (double)size / 1048576, took * 1e3,
           (double)size / 1048576 / took);
}

/* How long each stage of the connect took. */
static inline void print_stages(const char *who, rcg_conn *conn)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    check(rcg_conn_query(conn, &info), "query");
    printf("%s: connected over %s, CRC %s, MPA revision %u; stages:", who, info.device, info.crc ? "on" : "off",
           info.mpa_revision);
    for (uint32_t stage = 0; stage < RCG_STAGE_COUNT; stage++)
        if (info.stage_us[stage] > 0) printf(" %s %u us", rcg_stage_name(stage), info.stage_us[stage]);
    printf("\n");
}

#endif
