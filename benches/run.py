#!/usr/bin/env python3
"""The library beside its peers and the limit, in interleaved rounds: run.py [--short] [--own] [--write] BIN

BIN has the compiled programs. --short: a look, not figures. --own: without libfabric, UCX, valgrind and strace.
--write: the tables and the picture go to doc/, else the tables are only printed. Everything measured goes to
BIN/results.json. Runs in a network namespace of its own, where it sets the congestion control for all alike.
"""
import argparse, datetime, json, os, pathlib, platform, re, resource, statistics, subprocess, sys, tempfile, time

from tables import Failed, replace_between, spread

HERE = pathlib.Path(__file__).resolve().parent
DOC = HERE.parent / "doc"
CONGESTION = "reno"
KIB, MIB = 1 << 10, 1 << 20
UCX_ENV = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo", "UCX_WARN_UNUSED_ENV_VARS": "n"}
RAW = "raw TCP"


def priority():
    """Where it is permitted, what is measured runs at real-time priority, so that what else the machine does is not measured.
    A slice is short enough for the kernel's throttle. Round robin: UCX has a second thread."""
    chrt = ["chrt", "--rr", "1"]
    return chrt if subprocess.run([*chrt, "true"], capture_output=True).returncode == 0 else []


def output(command, **more):
    """What it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def ours(program, *args):
    """A measurement by a program of ours, which pins its two sides: a function of the time that it may take."""
    command = [*PRIORITY, options.bin / program, *map(str, args), "--seconds"]
    return lambda seconds: float(output([*command, str(seconds)]))


def await_listener(port, server):
    suffix = f":{port:04X}"
    for _ in range(1000):
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in open(table).read().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[1].endswith(suffix):
                    return
        if server.poll() is not None:
            break
        time.sleep(0.01)
    raise Failed(f"{' '.join(server.args)}: the server does not listen")


class Foreign:
    """A peer's own benchmark, both sides pinned by taskset. It wants to know how many messages: as many as the last time
    would have taken the time. `value` finds the figure in its last line, `rate` makes messages in a second of that."""

    def __init__(self, port, server, client, value, rate, guess):
        self.port, self.server, self.client, self.value, self.rate, self.guess = port, server, client, value, rate, guess

    def __call__(self, seconds):
        count = max(20, int(self.guess * seconds))
        env = os.environ | UCX_ENV
        expand = lambda command: [str(count) if word == "COUNT" else word for word in command]
        server = subprocess.Popen([*PRIORITY, "taskset", "-c", "1", *expand(self.server)], env=env, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            await_listener(self.port, server)
            text = output([*PRIORITY, "taskset", "-c", "0", *expand(self.client)], env=env)
        finally:
            server.kill()
            server.wait()
        value = self.value(text.strip().splitlines()[-1])
        self.guess = self.rate(value)
        return value


def fi_pingpong():
    command = ["fi_pingpong", "-p", "tcp", "-e", "msg", "-I", "COUNT", "-S", "64"]
    return Foreign(47592, command, [*command, "127.0.0.1"], lambda line: 2 * float(line.split()[6]),
                   lambda us: 1e6 / us, 5e4)


# Of the lines of ucx_perftest: which column, times what, and how that becomes messages in a second.
UCX_COLUMNS = {"us": (2, 2, lambda us, size: 1e6 / us), "rate": (7, 1, lambda rate, size: rate),
               "bandwidth": (5, MIB, lambda bandwidth, size: bandwidth / size)}


def ucx(test, size, kind, guess, *more):
    column, factor, rate = UCX_COLUMNS[kind]
    common = ["ucx_perftest", "-p", "13400"]
    client = [*common, "127.0.0.1", "-t", test, "-s", str(size), "-n", "COUNT", "-w", "50", "-f", "-v", *more]
    return Foreign(13400, common, client, lambda line: factor * float(line.split(",")[column]),
                   lambda value: rate(value, size), guess)


def groups():
    """Name, unit, whether more is better, who takes part; the first is what all others are compared with."""
    foreign = not options.own
    spin = {RAW: ours("tcp", "lat"), "Send": ours("ours", "lat"), "Send, CRC": ours("ours", "lat", "--crc"),
            "RPC NULL call": ours("ours", "rpc")}
    sleep = {RAW: ours("tcp", "lat", "--sleep"), "Send": ours("ours", "lat", "--sleep")}
    connect = {RAW: ours("tcp", "connect", "--sleep"), "connect": ours("ours", "connect", "--sleep")}
    rate = {RAW: ours("tcp", "rate"), "Send": ours("ours", "rate"), "RDMA Write": ours("ours", "rate", "--write")}
    if foreign:
        spin |= {"libfabric Send": ours("fabric", "lat"), "fi_pingpong": fi_pingpong(),
                 "UCX tag": ucx("tag_lat", 64, "us", 5e4)}
        sleep |= {"libfabric Send": ours("fabric", "lat", "--sleep"),
                  "UCX tag": ucx("tag_lat", 64, "us", 1e4, "-E", "sleep")}
        connect["libfabric connect"] = ours("fabric", "connect", "--sleep")
        rate |= {"libfabric Send": ours("fabric", "rate"), "libfabric RDMA Write": ours("fabric", "rate", "--write"),
                 "UCX tag": ucx("tag_bw", 64, "rate", 5e5)}
    yield "64 B round trip, both spinning", "us", False, spin
    yield "64 B round trip, both sleeping", "us", False, sleep
    yield "connect, beside raw TCP's and one round trip, both sleeping", "us", False, connect
    yield "64 B messages one way", "million/s", True, rate
    for size, hot in ((64 * KIB, True), (64 * KIB, False), (MIB, True), (MIB, False)):
        args = ("--size", size, "--footprint", 2 * size if hot else 64 * MIB)
        bandwidth = {RAW: ours("tcp", "send", *args)}
        kinds = ("Send", "send"), ("RDMA Write", "write"), ("RDMA Read", "read")
        bandwidth |= {name: ours("ours", case, *args) for name, case in kinds}
        bandwidth |= {f"{name}, CRC": ours("ours", case, *args, "--crc") for name, case in kinds}
        if foreign:
            bandwidth |= {f"libfabric {name}": ours("fabric", case, *args) for name, case in kinds}
        if foreign and hot:
            bandwidth |= {f"UCX {name}": ucx(test, size, "bandwidth", 1e9 / size)
                          for name, test in (("tag", "tag_bw"), ("get", "ucp_get"))}
        yield f"{size // KIB} KiB one way, {'2 buffers' if hot else '64 MiB'}", "GB/s", True, bandwidth


def patient(member, seconds):
    """A peer's program that fails once does not cost the whole run."""
    try:
        return member(seconds)
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"once more: {error}", file=sys.stderr)
        return member(seconds)


def measure(all_groups, rounds, seconds):
    """Samples by group and name. Every second round goes backwards: what drifts meets all alike."""
    samples = {name: {who: [] for who in members} for name, _, _, members in all_groups}
    for number in range(rounds):
        for name, _, _, members in all_groups:
            for who in list(members) if number % 2 == 0 else reversed(members):
                samples[name][who].append(patient(members[who], seconds))
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return samples


def ratios(samples, group, who, base=RAW):
    return [a / b for a, b in zip(samples[group][who], samples[group][base])]


def table(group, unit, samples):
    scale = {"us": 1, "million/s": 1e6, "GB/s": 1e9}[unit]
    yield f"| {group} | {unit} | of raw TCP |\n|---|---|---|"
    for who, values in samples[group].items():
        ratio = "1" if who == RAW else spread(ratios(samples, group, who))
        yield f"| {who} | {statistics.median(values) / scale:.2f} | {ratio} |"
    yield ""


# ---- what is counted, not timed ----


def counted(program, case, count, *more):
    """Instructions of one post(), by callgrind: of so many operations, the last of which only ends the stream."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=post", f"--callgrind-out-file={folder}/out.%p",
                   options.bin / program, case, "--count", str(count), *more]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        errors = process.communicate(timeout=120)[1]
        if process.returncode:
            raise Failed(errors)
        text = pathlib.Path(f"{folder}/out.{process.pid}").read_text()
    return int(re.findall(r"^(?:totals|summary): (\d+)", text, re.M)[-1]) / count


def system_calls(program, case, count, *more):
    """System calls of both sides for one message: the difference between many and few, by strace."""
    totals = []
    for number in (count // 10, count):
        with tempfile.NamedTemporaryFile("r") as file:
            output(["strace", "-f", "-c", "-U", "calls,name", "-o", file.name, options.bin / program, case,
                    "--count", str(number), *more])
            totals.append(sum(int(n) for n, name in re.findall(r"^ *(\d+) +(\w+)$", file.read(), re.M) if name != "total"))
    return (totals[1] - totals[0]) / (count - count // 10)


def stable(short):
    small, large = (500, 3200) if short else (3000, 19200)
    cases = (("64 B Send, one at a time", "lat", small, "--sleep"), ("64 B Sends, 32 at a time", "rate", large, "--sleep"),
             ("64 B RDMA Writes, 32 at a time", "rate", large, "--sleep", "--write"))
    for name, case, count, *more in cases:
        row = {program: (counted(program, case, count, *more), system_calls(program, case, count, *more))
               for program in ("ours", "fabric")}
        row["tcp"] = (None, None if "--write" in more else system_calls("tcp", case, count, *more))
        yield name, row


def stable_table(rows):
    yield ("| | instructions to post, ours | libfabric | system calls, ours | libfabric | raw TCP |\n"
           "|---|---|---|---|---|---|")
    for name, row in rows:
        raw = row["tcp"][1]
        yield (f"| {name} | {row['ours'][0]:.0f} | {row['fabric'][0]:.0f} | {row['ours'][1]:.2f} | {row['fabric'][1]:.2f} | "
               f"{'-' if raw is None else f'{raw:.2f}'} |")
    yield ""


# ---- targets ----


def targets(samples, idle):
    """What, the measured ratios, the bound, whether it is a lower one."""
    spin, sleep, connect, rate, *bandwidths = samples
    yield "64 B round trip, spinning, of raw TCP", ratios(samples, spin, "Send"), 1.10, False
    yield "64 B round trip, sleeping, of raw TCP", ratios(samples, sleep, "Send"), 1.05, False
    yield "connect, sleeping, of raw TCP's and one round trip", ratios(samples, connect, "connect"), 1.05, False
    yield "64 B Sends, batched, of one send() each", ratios(samples, rate, "Send"), 5, True
    yield "RPC NULL call, of a Send's round trip", ratios(samples, spin, "RPC NULL call", "Send"), 1.25, False
    for peer in ("libfabric Send", "fi_pingpong", "UCX tag"):
        if peer in samples[spin]:
            yield f"64 B round trip, spinning, of {peer}", ratios(samples, spin, "Send", peer), 1, False
        if peer in samples[rate]:
            yield f"64 B Sends, batched, of {peer}", ratios(samples, rate, "Send", peer), 1, True
    for group in bandwidths:
        for op in ("Send", "RDMA Write", "RDMA Read"):
            large = group.startswith("1024")
            if large or op == "Send":
                yield f"{op}, {group}, of raw TCP", ratios(samples, group, op), 0.97 if large else 0.95, True
            if large:
                yield f"{op}, CRC, {group}, of raw TCP", ratios(samples, group, f"{op}, CRC"), 0.85, True
    many = f"one of {idle[0]['connections']} idle connections"
    yield f"KiB of memory of {many}", [max(run["client"], run["server"]) / KIB for run in idle], 16, False
    yield f"Round trip on {many}, of one with one", [run["many"] / run["one"] for run in idle], 1.05, False


def target_table(rows):
    yield "| target | median (spread) | bound | |\n|---|---|---|---|"
    for name, values, bound, lower in rows:
        met = statistics.median(values) >= bound if lower else statistics.median(values) <= bound
        yield f"| {name} | {spread(values)} | {'>=' if lower else '<='} {bound} | {'met' if met else '**missed**'} |"
    yield ""


def idle_connections(count):
    client, server, one, many = map(float, output([*PRIORITY, options.bin / "idle", "connections", "--count", str(count)]).split())
    return {"connections": count, "client": client, "server": server, "one": one, "many": many}


# ---- the picture ----


def picture(samples, title):
    """Bars of medians with their spread, as a multiple of raw TCP, more is better everywhere; they end at three times it."""
    rows = []
    for group, members in samples.items():
        rows.append((group, None))
        for who in list(members)[1:]:
            values = ratios(samples, group, who)
            rows.append((who, [1 / v for v in values] if "round trip" in group else values))
    height, left, width = 17, 230, 460
    top = 3
    x = lambda value: left + min(value, top) / top * width
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{height * (len(rows) + 3)}" '
           f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
           f'<text x="8" y="20" font-size="14">{title}</text>']
    for at, (name, values) in enumerate(rows):
        y = height * (at + 2.5)
        if values is None:
            svg.append(f'<text x="8" y="{y}" font-weight="bold">{name}</text>')
            continue
        median = statistics.median(values)
        colour = "#888" if re.match("libfabric|fi_|UCX", name) else "#1f77b4"
        svg.append(f'<text x="20" y="{y}">{name}</text><rect x="{left}" y="{y - 10}" width="{x(median) - left:.1f}" height="11" '
                   f'fill="{colour}"/><path d="M{x(min(values)):.1f} {y - 4.5}H{x(max(values)):.1f}" stroke="black"/>'
                   f'<text x="{left + width + 8}" y="{y}">{median:.2f}</text>')
    svg.append(f'<path d="M{x(1):.1f} {height * 2}V{height * (len(rows) + 2)}" stroke="#d62728" stroke-dasharray="3"/></svg>')
    return "\n".join(svg) + "\n"


# ---- the run ----


def machine():
    model = re.search(r"^model name\s*: (.*)", open("/proc/cpuinfo").read(), re.M)
    return f"{os.cpu_count()} processors {model[1] if model else platform.machine()}, Linux {platform.release()}"


def versions():
    if options.own:
        return ""
    fabric = re.search(r"libfabric: (\S+)", output(["fi_info", "--version"]))[1]
    found = re.search(r"[Vv]ersion[ =:]+(\d\S+)", output(["ucx_info", "-v"]))[1]
    return f"; libfabric {fabric}, UCX {found}"


def main():
    rounds, seconds, connections, repeats = (3, 0.04, 1000, 1) if options.short else (11, 0.2, 10000, 3)
    all_groups = list(groups())
    idle = [idle_connections(connections) for _ in range(repeats)]
    rows = [] if options.own else list(stable(options.short))
    samples = measure(all_groups, rounds, seconds)
    head = (f"{machine()}{versions()}; loopback, {CONGESTION}, client on processor 0, server on 1, {'' if PRIORITY else 'not '}at real-time "
            f"priority; {rounds} rounds of {seconds} s each; {datetime.date.today()}")
    found = [head + ".\n", *target_table(targets(samples, idle))]
    for name, unit, _, _ in all_groups:
        found += table(name, unit, samples)
    if rows:
        found += stable_table(rows)
    found = "\n".join(found)
    results = {"head": head, "samples": samples, "idle": idle, "counted": rows}
    (options.bin / "results.json").write_text(json.dumps(results, indent=1))
    print(found)
    if options.write:
        replace_between(DOC / "performance.md", "native", found)
        (DOC / "performance.svg").write_text(picture(samples, "Speed as a multiple of raw TCP: median and spread"))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for flag in ("--short", "--own", "--write", "--inside"):
    parser.add_argument(flag, action="store_true")
parser.add_argument("bin", type=lambda path: pathlib.Path(path).resolve())
options = parser.parse_args()
PRIORITY = priority()
if not options.inside:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    os.execvp("unshare", ["unshare", "--net", *user, sys.executable, __file__, "--inside", *sys.argv[1:]])
try:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    output(["ip", "link", "set", "lo", "up"])
    pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(CONGESTION)
    main()
except (Failed, OSError, subprocess.TimeoutExpired) as error:
    sys.exit(f"run.py: {error}")
