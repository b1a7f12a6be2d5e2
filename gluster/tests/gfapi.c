/* What a program on gfapi does, without FUSE in between.
 *
 *   gfapi VOLUME HOST|VOLFILE [MIB]     a path to a volume file, or the host that has it; how much to write at a time, 2 at
 *                                       least: 8
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glusterfs/api/glfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno));                       \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define VECTORS 200

static int answered;

static void done(glfs_fd_t *fd, ssize_t n, struct glfs_stat *before, struct glfs_stat *after, void *arg)
{
    (void)fd, (void)before, (void)after;
    if (n == (ssize_t)(intptr_t)arg) __atomic_fetch_add(&answered, 1, __ATOMIC_SEQ_CST);
}

static void io(glfs_t *fs, size_t size)
{
    char *out = malloc(size), *in = malloc(size);
    struct iovec vector[VECTORS];
    size_t each = 4001, total = 0;
    glfs_fd_t *fd = glfs_creat(fs, "/gfapi", O_RDWR | O_TRUNC, 0644);
    CHECK(fd && out && in);
    for (size_t i = 0; i < size; i++) out[i] = (char)(i * 2654435761u >> 13);
    /* One write, and one of many pieces. */
    CHECK(glfs_pwrite(fd, out, size, 0, 0, NULL, NULL) == (ssize_t)size);
    for (int i = 0; i < VECTORS; i++, total += each) vector[i] = (struct iovec){ out + i * each, each };
    CHECK(glfs_pwritev(fd, vector, VECTORS, size, 0) == (ssize_t)total);
    CHECK(glfs_fsync(fd, NULL, NULL) == 0);
    for (size_t at = 0; at < size;) {
        ssize_t n = glfs_pread(fd, in + at, size - at < 1 << 20 ? size - at : (size_t)1 << 20, (off_t)at, 0, NULL);
        CHECK(n > 0);
        at += (size_t)n;
    }
    CHECK(memcmp(in, out, size) == 0);
    CHECK(glfs_pread(fd, in, total, size, 0, NULL) == (ssize_t)total && memcmp(in, out, total) == 0);
    /* More at a time than there are credits. */
    for (int i = 0; i < 400; i++) CHECK(glfs_pread_async(fd, in + i * 4096, 4096, i * 4096, 0, done, (void *)4096) == 0);
    for (int i = 0; i < 3000 && __atomic_load_n(&answered, __ATOMIC_SEQ_CST) < 400; i++) usleep(10000);
    CHECK(answered == 400 && memcmp(in, out, 400 * 4096) == 0);
    CHECK(glfs_close(fd) == 0 && glfs_unlink(fs, "/gfapi") == 0);
    free(out);
    free(in);
}

int main(int argc, char **argv)
{
    int mib = argc > 3 ? atoi(argv[3]) : 8;
    glfs_t *fs = argc >= 3 && mib >= 2 ? glfs_new(argv[1]) : NULL;
    CHECK(fs);
    alarm(120);
    CHECK(glfs_set_logging(fs, "/var/log/glusterfs/gfapi.log", 7) == 0);
    if (argv[2][0] == '/') CHECK(glfs_set_volfile(fs, argv[2]) == 0);
    else CHECK(glfs_set_volfile_server(fs, "tcp", argv[2], 24007) == 0);
    CHECK(glfs_init(fs) == 0);
    io(fs, (size_t)mib << 20);
    CHECK(glfs_mkdir(fs, "/of-gfapi", 0755) == 0 && glfs_rmdir(fs, "/of-gfapi") == 0);
    CHECK(glfs_fini(fs) == 0);
    return 0;
}
