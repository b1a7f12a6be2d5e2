/* The limit: plain loops of send() and recv(), each message with a call of its own. bench.h says how it is used. */
#include "bench.h"

enum { RECV_AT_ONCE = 256 << 10 };

static void send_all(int fd, const unsigned char *buf, size_t n)
{
    for (ssize_t rc; n > 0; buf += rc, n -= (size_t)rc) {
        rc = send(fd, buf, n, MSG_NOSIGNAL);
        MUST(rc > 0);
    }
}

/* false = the peer has ended. */
static bool recv_all(int fd, unsigned char *buf, size_t n, int flags)
{
    for (ssize_t rc; n > 0; buf += rc, n -= (size_t)rc) {
        while ((rc = recv(fd, buf, n, flags)) < 0) MUST(errno == EAGAIN);
        if (rc == 0) return false;
    }
    return true;
}

static void no_delay(int fd)
{
    MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) == 0);
}

/* What has come is not looked at; where messages are short, many are taken at once. */
static void take_stream(int fd, unsigned char *buf)
{
    if (is_case("rate"))
        while (recv(fd, buf, RECV_AT_ONCE, 0) > 0) {}
    else
        for (uint64_t n = 0; recv_all(fd, buf + slot(n), opt.size, MSG_WAITALL); n++) {}
    send_all(fd, buf, 1);
}

static int connected(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    MUST(connect(fd, (const struct sockaddr *)to, sizeof *to) == 0);
    no_delay(fd);
    return fd;
}

/* When the client goes on the server has closed as well. */
static uint64_t connect_often(const struct sockaddr_in *to, unsigned char *buf)
{
    uint64_t n = 0;
    for (; n == 0 || more(n); n++) {
        double since = now_s();
        int fd = connected(to);
        send_all(fd, buf, opt.size);
        MUST(recv_all(fd, buf, opt.size, 0));
        note(n, since);
        MUST(shutdown(fd, SHUT_WR) == 0 && !recv_all(fd, buf, 1, 0));
        close(fd);
    }
    return n;
}

static void serve(int control)
{
    struct sockaddr_in at = loopback(0);
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd, flags = opt.sleep ? 0 : MSG_DONTWAIT;
    unsigned char *buf = memory_of(area() > RECV_AT_ONCE ? area() : RECV_AT_ONCE);
    MUST(bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 1) == 0);
    MUST(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    tell(control, &(struct hello){ .port = ntohs(at.sin_port) });
    do {
        MUST((fd = accept(listener, NULL, NULL)) >= 0);
        no_delay(fd);
        if (is_case("lat") || is_case("connect"))
            while (recv_all(fd, buf, opt.size, flags)) send_all(fd, buf, opt.size);
        else
            take_stream(fd, buf);
        close(fd);
    } while (is_case("connect"));
}

static void ask(const struct hello *hello)
{
    struct sockaddr_in to = loopback(hello->port);
    int fd = is_case("connect") ? -1 : connected(&to), flags = opt.sleep ? 0 : MSG_DONTWAIT;
    unsigned char *buf = memory_of(area());
    uint64_t n = 0;
    begin();
    if (is_case("connect")) {
        n = connect_often(&to, buf);
    } else if (is_case("lat")) {
        for (; more(n); n++) {
            send_all(fd, buf, opt.size);
            MUST(recv_all(fd, buf, opt.size, flags));
        }
    } else {
        for (; n % BATCH != 0 || more(n); n++) send_all(fd, buf + slot(n), opt.size);
        MUST(shutdown(fd, SHUT_WR) == 0);
        MUST(recv_all(fd, buf, 1, 0));
    }
    report(n);
}

int main(int argc, char **argv)
{
    static const char *const cases[] = { "lat", "connect", "rate", "send", NULL };
    return both_sides(argc, argv, cases, serve, ask);
}
