/* libfabric's provider tcp, endpoints of type MSG, in the same loops. bench.h says how it is used. */
#include "bench.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

enum { RECVS = 256, SMALL = 64, EVENTS = 64 };

#define MUST_FI(call)                                                                                                  \
    do {                                                                                                               \
        ssize_t rc_ = (call);                                                                                          \
        if (rc_ < 0) die("%s:%d: %s: %s", __FILE__, __LINE__, #call, fi_strerror((int)-rc_));                          \
    } while (0)

static struct fid_fabric *fabric;
static struct fid_eq *eq;
static struct fid_domain *domain;
static struct fid_cq *cq;
static struct fid_ep *ep;
static struct fid_mr *mr;
static unsigned char *memory;
static struct hello peer;
static int posted_context, received_context;
static uint64_t received, completed;

static size_t recv_size(void)
{
    return is_case("send") ? opt.size : SMALL;
}

static struct fi_info *info_of(struct sockaddr_in *at, bool passive)
{
    struct fi_info *hints = fi_allocinfo(), *info;
    MUST(hints != NULL);
    hints->ep_attr->type = FI_EP_MSG;
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = ~0ULL;
    hints->addr_format = FI_SOCKADDR_IN;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    MUST(hints->fabric_attr->prov_name = strdup("tcp"));
    struct sockaddr_in *copy = malloc(sizeof *copy);
    MUST(copy != NULL);
    *copy = *at;
    if (passive) hints->src_addr = copy, hints->src_addrlen = sizeof *copy;
    else hints->dest_addr = copy, hints->dest_addrlen = sizeof *copy;
    MUST_FI(fi_getinfo(FI_VERSION(1, 15), NULL, NULL, 0, hints, &info));
    fi_freeinfo(hints);
    return info;
}

static void open_fabric(struct fi_info *info)
{
    struct fi_eq_attr attr = { .wait_obj = FI_WAIT_UNSPEC };
    MUST_FI(fi_fabric(info->fabric_attr, &fabric, NULL));
    MUST_FI(fi_eq_open(fabric, &attr, &eq, NULL));
}

static void post_receive(uint64_t n)
{
    unsigned char *at = is_case("send") ? memory + slot(n) : memory + area() + n % RECVS * SMALL;
    MUST_FI(fi_recv(ep, at, recv_size(), fi_mr_desc(mr), 0, &received_context));
}

static uint64_t receives(void)
{
    return is_case("connect") ? 0 : is_case("send") ? 2 * WINDOW : RECVS;
}

static void open_domain(struct fi_info *info)
{
    struct fi_cq_attr attr = { .format = FI_CQ_FORMAT_MSG, .size = 4096,
                               .wait_obj = opt.sleep ? FI_WAIT_UNSPEC : FI_WAIT_NONE };
    uint64_t access = FI_SEND | FI_RECV | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
    memory = memory_of(area() + RECVS * SMALL);
    MUST_FI(fi_domain(fabric, info, &domain, NULL));
    MUST_FI(fi_cq_open(domain, &attr, &cq, NULL));
    MUST_FI(fi_mr_reg(domain, memory, area() + RECVS * SMALL, access, 0, 1, 0, &mr, NULL));
}

static void open_endpoint(struct fi_info *info)
{
    MUST_FI(fi_endpoint(domain, info, &ep, NULL));
    MUST_FI(fi_ep_bind(ep, &eq->fid, 0));
    MUST_FI(fi_ep_bind(ep, &cq->fid, FI_TRANSMIT | FI_SELECTIVE_COMPLETION));
    MUST_FI(fi_ep_bind(ep, &cq->fid, FI_RECV));
    MUST_FI(fi_enable(ep));
    for (uint64_t i = 0; i < receives(); i++) post_receive(i);
}

static uint32_t next_event(struct fi_eq_cm_entry *entry)
{
    uint32_t event;
    ssize_t rc;
    while ((rc = fi_eq_sread(eq, &event, entry, sizeof *entry, -1, 0)) == -FI_EAGAIN || rc == -FI_EINTR) {}
    MUST_FI(rc);
    return event;
}

/* Returns what a request brings. */
static struct fi_info *await_event(uint32_t wanted)
{
    struct fi_eq_cm_entry entry;
    uint32_t event = next_event(&entry);
    if (event != wanted) die("event %u instead of %u", event, wanted);
    return entry.info;
}

/* What has come; with --sleep waits until something has. Returns the number of octets of the last message. */
static size_t poll_events(void)
{
    struct fi_cq_msg_entry entries[EVENTS];
    size_t last = 0;
    ssize_t got = opt.sleep ? fi_cq_sread(cq, entries, EVENTS, NULL, -1) : fi_cq_read(cq, entries, EVENTS);
    if (got == -FI_EAGAIN || got == -FI_EINTR) return 0;
    MUST_FI(got);
    for (ssize_t i = 0; i < got; i++) {
        if (entries[i].op_context == &received_context) {
            last = entries[i].len;
            post_receive(received++ + receives());
        } else {
            completed += is_case("rate") ? (uint64_t)BATCH : 1;
        }
    }
    return last;
}

/* What posting costs is counted in here. */
__attribute__((noinline)) static bool post(struct fi_msg *msg, struct fi_msg_rma *rma, uint64_t flags)
{
    ssize_t rc = !rma               ? fi_sendmsg(ep, msg, flags)
                 : is_case("read") ? fi_readmsg(ep, rma, flags)
                                   : fi_writemsg(ep, rma, flags);
    if (rc == -FI_EAGAIN) return false;
    MUST_FI(rc);
    return true;
}

static void send_short(size_t octets)
{
    struct iovec iov = { memory, octets };
    struct fi_msg msg = { .msg_iov = &iov, .iov_count = 1 };
    while (!post(&msg, NULL, FI_INJECT)) poll_events();
}

/* The next one of a stream; false = not now. Of short ones the last of a batch has a completion. */
static bool post_one(uint64_t n)
{
    bool batch = is_case("rate"), last = !batch || n % BATCH == BATCH - 1;
    void *desc = fi_mr_desc(mr);
    struct iovec iov = { memory + slot(n), opt.size };
    struct fi_rma_iov there = { peer.addr + slot(n), opt.size, peer.key };
    struct fi_msg msg = { .msg_iov = &iov, .desc = &desc, .iov_count = 1, .context = &posted_context };
    struct fi_msg_rma rma = { .msg_iov = &iov, .desc = &desc, .iov_count = 1, .rma_iov = &there, .rma_iov_count = 1,
                              .context = &posted_context };
    uint64_t flags = (last ? FI_COMPLETION : FI_MORE) | (batch ? FI_INJECT : 0);
    return post(&msg, is_case("send") || (batch && !opt.write) ? NULL : &rma, flags);
}

static uint64_t stream(void)
{
    uint64_t n = 0, window = is_case("rate") ? 4 * BATCH : WINDOW;
    for (bool going = true; going || completed < n;) {
        while (going && n - completed < window) {
            if (n % (is_case("rate") ? BATCH : 1) == 0 && !(going = more(n))) break;
            if (!post_one(n)) break;
            n++;
        }
        if (completed < n) poll_events();
    }
    received = 0;
    send_short(1); /* comes back when all has come */
    while (received == 0) poll_events();
    return n;
}

/* Connections one after the other; the next one may ask before the last one's end is told. */
static void serve_connects(struct fi_info *first)
{
    struct fi_eq_cm_entry entry = { .info = first };
    for (uint32_t event = FI_CONNREQ;; event = next_event(&entry)) {
        if (event == FI_SHUTDOWN) MUST_FI(fi_close(entry.fid));
        if (event != FI_CONNREQ) continue;
        open_endpoint(entry.info);
        MUST_FI(fi_accept(ep, NULL, 0));
        fi_freeinfo(entry.info);
    }
}

static uint64_t connect_often(struct fi_info *info)
{
    uint64_t n = 0;
    for (; n == 0 || more(n); n++) {
        double since = now_s();
        open_endpoint(info);
        MUST_FI(fi_connect(ep, info->dest_addr, NULL, 0));
        await_event(FI_CONNECTED);
        note(n, since);
        MUST_FI(fi_shutdown(ep, 0));
        await_event(FI_SHUTDOWN);
        MUST_FI(fi_close(&ep->fid));
    }
    return n;
}

static void serve(int control)
{
    struct sockaddr_in at = loopback(0);
    size_t len = sizeof at;
    struct fi_info *info = info_of(&at, true);
    struct fid_pep *pep;
    open_fabric(info);
    MUST_FI(fi_passive_ep(fabric, info, &pep, NULL));
    MUST_FI(fi_pep_bind(pep, &eq->fid, 0));
    MUST_FI(fi_listen(pep));
    MUST_FI(fi_getname(&pep->fid, &at, &len));
    tell(control, &(struct hello){ .port = ntohs(at.sin_port) }); /* the rest is known later */
    info = await_event(FI_CONNREQ);
    open_domain(info);
    if (is_case("connect")) serve_connects(info);
    open_endpoint(info);
    struct hello hello = { 0, (uintptr_t)memory, fi_mr_key(mr) };
    if (!(info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)) hello.addr = 0;
    tell(control, &hello);
    MUST_FI(fi_accept(ep, NULL, 0));
    await_event(FI_CONNECTED);
    for (;;) {
        size_t octets = poll_events();
        if (octets && (is_case("lat") || octets == 1)) send_short(octets);
    }
}

static void ask(const struct hello *hello)
{
    struct sockaddr_in to = loopback(hello->port);
    struct fi_info *info = info_of(&to, false);
    uint64_t n = 0;
    open_fabric(info);
    open_domain(info);
    if (!is_case("connect")) {
        open_endpoint(info);
        MUST_FI(fi_connect(ep, info->dest_addr, NULL, 0));
        await_event(FI_CONNECTED);
        hear(&peer);
    }
    begin();
    if (is_case("connect"))
        n = connect_often(info);
    else if (is_case("lat"))
        for (; more(n); n++) {
            uint64_t before = received;
            send_short(opt.size);
            while (received == before) poll_events();
        }
    else n = stream();
    report(n);
}

int main(int argc, char **argv)
{
    static const char *const cases[] = { "lat", "connect", "rate", "send", "write", "read", NULL };
    return both_sides(argc, argv, cases, serve, ask);
}
