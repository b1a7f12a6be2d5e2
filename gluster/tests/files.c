/* Work on files of a mount, with contents that can be told again: each command writes, reads back and compares, or only
 * compares ("check").
 *
 *   files write|check DIR COUNT      COUNT small files in directories of 20
 *   files stream|compare FILE MIB    one large file
 *   files names DIR COUNT            names of up to 255 octets, COUNT in one directory, and in depth
 *   files xattrs FILE                values of 1 octet to 60 KiB
 *   files direct FILE                O_DIRECT, holes, truncate
 *   files locks FILE FILE            one file by two clients
 *
 * Exit 0 = as it should be. SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                                \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fprintf(stderr, ": %s\n", strerror(errno));                                                                    \
        exit(1);                                                                                                       \
    } while (0)
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) FAIL(__VA_ARGS__);                                                                           \
    } while (0)

#define BLOCK (1 << 20)

static void fill(void *to, size_t octets, uint64_t seed)
{
    unsigned char *out = to;
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < octets; i++) {
        if (i % 8 == 0) x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        out[i] = (unsigned char)(x >> (8 * (i % 8)));
    }
}

static void put(int fd, const void *from, size_t octets, off_t at, const char *what)
{
    ssize_t n = pwrite(fd, from, octets, at);
    CHECK(n == (ssize_t)octets, "%s: %zd of %zu octets written", what, n, octets);
}

static void expect(int fd, const void *wanted, size_t octets, off_t at, const char *what)
{
    char *got = aligned_alloc(4096, (octets + 4096) & ~4095u);
    size_t done = 0;
    while (done < octets) {
        ssize_t n = pread(fd, got + done, octets - done, at + (off_t)done);
        CHECK(n > 0, "%s: %zd octets read at %lld", what, n, (long long)at + (long long)done);
        done += (size_t)n;
    }
    errno = 0;
    CHECK(memcmp(got, wanted, octets) == 0, "%s: other octets at %lld", what, (long long)at);
    free(got);
}

static int open_or_fail(const char *path, int flags)
{
    int fd = open(path, flags, 0644);
    CHECK(fd >= 0, "open %s", path);
    return fd;
}

/* ---- small files ---- */

static size_t small_size(int i)
{
    return (size_t)i * 37 % 20011;
}

static void small_files(const char *dir, int count, int writing)
{
    static char path[4096], text[20011];
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/d%d", dir, i / 20);
        if (writing && i % 20 == 0 && mkdir(path, 0755) && errno != EEXIST) FAIL("mkdir %s", path);
        snprintf(path, sizeof path, "%s/d%d/f%d", dir, i / 20, i);
        fill(text, small_size(i), (uint64_t)i);
        int fd = open_or_fail(path, writing ? O_CREAT | O_RDWR | O_TRUNC : O_RDONLY);
        if (writing) put(fd, text, small_size(i), 0, path);
        struct stat st;
        CHECK(fstat(fd, &st) == 0 && st.st_size == (off_t)small_size(i), "%s: %lld octets", path, (long long)st.st_size);
        expect(fd, text, small_size(i), 0, path);
        CHECK(close(fd) == 0, "close %s", path);
    }
}

/* ---- a large file ---- */

static void stream(const char *path, int mib, int writing)
{
    static char text[BLOCK];
    int fd = open_or_fail(path, writing ? O_CREAT | O_RDWR | O_TRUNC : O_RDONLY);
    for (int i = 0; writing && i < mib; i++) {
        fill(text, BLOCK, (uint64_t)i + 77);
        put(fd, text, BLOCK, (off_t)i * BLOCK, path);
    }
    CHECK(!writing || fsync(fd) == 0, "fsync %s", path);
    if (writing) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    for (int i = 0; i < mib; i++) {
        fill(text, BLOCK, (uint64_t)i + 77);
        expect(fd, text, BLOCK, (off_t)i * BLOCK, path);
    }
    CHECK(close(fd) == 0, "close %s", path);
}

/* ---- names ---- */

static int entries(const char *dir)
{
    DIR *open = opendir(dir);
    int n = 0;
    CHECK(open, "opendir %s", dir);
    for (struct dirent *e; (e = readdir(open));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(open);
    return n;
}

static void names(const char *dir, int count)
{
    char path[8192], name[256];
    struct stat st;
    for (int i = 0; i < count; i++) {
        int length = 255 - i % 7;
        snprintf(name, sizeof name, "%0*d", length, i);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        close(open_or_fail(path, O_CREAT | O_WRONLY));
        CHECK(stat(path, &st) == 0, "stat of a name of %d octets", length);
    }
    errno = 0;
    int n = entries(dir);
    CHECK(n == count, "%d entries of %d", n, count);
    strcpy(path, dir);
    for (int i = 0; i < 12; i++) {
        snprintf(path + strlen(path), sizeof path - strlen(path), "/%0200d", i);
        CHECK(mkdir(path, 0755) == 0, "mkdir at depth %d", i);
    }
    CHECK(stat(path, &st) == 0 && S_ISDIR(st.st_mode), "stat in depth");
}

/* ---- extended attributes ---- */

static void xattrs(const char *path)
{
    static const size_t sizes[] = { 1, 3, 100, 1000, 2000, 2012, 2048, 4096, 7800, 8192, 16384, 32768, 61440 };
    static char value[65536], got[65536];
    char name[64];
    close(open_or_fail(path, O_CREAT | O_WRONLY));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill(value, sizes[i], sizes[i]);
        snprintf(name, sizeof name, "user.of%zu", sizes[i]);
        CHECK(setxattr(path, name, value, sizes[i], 0) == 0, "setxattr of %zu octets", sizes[i]);
        ssize_t n = getxattr(path, name, got, sizeof got);
        CHECK(n == (ssize_t)sizes[i] && memcmp(got, value, sizes[i]) == 0, "getxattr of %zu octets gave %zd", sizes[i], n);
    }
    ssize_t n = listxattr(path, got, sizeof got);
    CHECK(n > 0 && memmem(got, (size_t)n, "user.of61440", 13), "listxattr gave %zd", n);
    CHECK(removexattr(path, "user.of61440") == 0, "removexattr");
    CHECK(getxattr(path, "user.of61440", got, sizeof got) == -1 && errno == ENODATA, "getxattr of what is not there");
}

/* ---- O_DIRECT and truncate ---- */

static void direct(const char *path)
{
    char *text = aligned_alloc(4096, 4 * BLOCK), *zeros = calloc(1, BLOCK);
    struct stat st;
    int fd = open_or_fail(path, O_CREAT | O_RDWR | O_TRUNC | O_DIRECT);
    fill(text, 4 * BLOCK, 5);
    for (int i = 0; i < 4; i++) put(fd, text + i * BLOCK, BLOCK, 2 * i * (off_t)BLOCK, path); /* holes of 1 MiB */
    put(fd, text, 4096, 8 * (off_t)BLOCK, path);
    for (int i = 0; i < 4; i++) expect(fd, text + i * BLOCK, BLOCK, 2 * i * (off_t)BLOCK, path);
    expect(fd, zeros, BLOCK, BLOCK, path);
    CHECK(ftruncate(fd, 2 * (off_t)BLOCK + 4096) == 0 && fstat(fd, &st) == 0 && st.st_size == 2 * BLOCK + 4096, "truncate");
    expect(fd, text + BLOCK, 4096, 2 * (off_t)BLOCK, path);
    CHECK(ftruncate(fd, 3 * (off_t)BLOCK) == 0, "truncate to more");
    expect(fd, zeros, BLOCK - 4096, 2 * (off_t)BLOCK + 4096, path);
    close(fd);
}

/* ---- locks ---- */

static int lock(int fd, int command, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10 };
    return fcntl(fd, command, &lock);
}

static void locks(const char *here, const char *there)
{
    int fd = open_or_fail(here, O_CREAT | O_RDWR), pipes[2], status;
    char octet;
    CHECK(pipe(pipes) == 0, "pipe");
    CHECK(lock(fd, F_SETLK, F_WRLCK) == 0, "lock");
    pid_t child = fork();
    if (child == 0) {
        int other = open_or_fail(there, O_RDWR);
        CHECK(lock(other, F_SETLK, F_WRLCK) == -1 && (errno == EAGAIN || errno == EACCES), "the other client has the lock, too");
        CHECK(write(pipes[1], "x", 1) == 1, "pipe");
        CHECK(lock(other, F_SETLKW, F_WRLCK) == 0, "wait for the lock"); /* until it is given */
        exit(0);
    }
    CHECK(read(pipes[0], &octet, 1) == 1, "the other client has not come so far");
    CHECK(waitpid(child, &status, WNOHANG) == 0, "the other client does not wait");
    CHECK(lock(fd, F_SETLK, F_UNLCK) == 0, "unlock");
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the other client has failed");
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    int number = argc > 3 ? atoi(argv[3]) : 0;
    alarm(600);
    if (!strcmp(what, "write") || !strcmp(what, "check")) small_files(argv[2], number, *what == 'w');
    else if (!strcmp(what, "stream") || !strcmp(what, "compare")) stream(argv[2], number, *what == 's');
    else if (!strcmp(what, "names")) names(argv[2], number);
    else if (!strcmp(what, "xattrs")) xattrs(argv[2]);
    else if (!strcmp(what, "direct")) direct(argv[2]);
    else if (!strcmp(what, "locks") && argc > 3) locks(argv[2], argv[3]);
    else return 2;
    return 0;
}
