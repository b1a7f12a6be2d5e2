#!/usr/bin/env python3
"""What tshark reads in a capture of RPC-over-RDMA on iWARP, checked: rpcrdma_capture.py CAPTURE [KIND...]

Each message decodes, none is an error, each reply answers a call and each call is answered, and a reply gives back the
segments that its call offered (RFC 8166 section 3.4): same handles and offsets, in the same order, lengths not greater. Each
KIND named (read, write, reply, call, backchannel) must have occurred: chunks in the three lists, a long call, a call by the
server. Of several messages in one TCP segment tshark 4.0 reads the first only: the others are looked for by their xid.
"""
import collections
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

MSG, NOMSG = 0, 1
SENDS = ("0x03", "0x04", "0x05", "0x06")
Segment = collections.namedtuple("Segment", "handle length offset")


class Message:
    """A header, as tshark names its fields."""

    def __init__(self, frame, stream, port, proto):
        self.frame, self.stream, self.port = frame, stream, port
        self.xid = self.kind = self.error = None
        self.positions = []
        self.lists = {"reads": [], "writes": [], "reply": []}
        within = None
        for field in proto.iter("field"):
            name, show = field.get("name").removeprefix("rpcordma."), field.get("show")
            if name == "xid":
                self.xid = int(show, 16)
            elif name == "msg_type":
                self.kind = int(show)
            elif name == "errcode":
                self.error = int(show)
            elif name in ("reads_count", "writes_count", "reply_count"):
                within = self.lists[name.removesuffix("_count")]
            elif name == "position":
                self.positions.append(int(show))
            elif name == "rdma_handle":
                handle = int(show, 16)
            elif name == "rdma_length":
                length = int(show)
            elif name == "rdma_offset":
                within.append(Segment(handle, length, int(show, 16)))

    def __str__(self):
        return f"frame {self.frame}, xid {self.xid:#x}"


def values(packet, name, attribute="show"):
    return [field.get(attribute) for field in packet.iter("field") if field.get("name") == name]


def packets(capture):
    """Of each with a message: frame, stream and port, the messages that were read, and all octets if not all were."""
    command = ["tshark", "-r", capture, "-Y", "rpcordma", "-T", "pdml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tshark:
        for _, packet in ElementTree.iterparse(tshark.stdout):
            if packet.tag != "packet":
                continue
            where = [values(packet, name)[0] for name in ("frame.number", "tcp.stream", "tcp.srcport")]
            protos = [proto for proto in packet.iter("proto") if proto.get("name") == "rpcordma"]
            read = [message for message in (Message(*where, proto) for proto in protos) if message.xid is not None]
            sends = [opcode for opcode in values(packet, "iwarp_rdma.opcode") if opcode in SENDS]
            yield where, read, values(packet, "tcp.payload", "value") if len(sends) > len(read) else []
            packet.clear()
    if tshark.returncode:
        sys.exit(f"tshark: status {tshark.returncode}")


def given_back(offered, returned, message, faults):
    if len(offered) != len(returned):
        faults.append(f"{message}: {len(returned)} segments for {len(offered)}")
    for call, reply in zip(offered, returned):
        if (call.handle, call.offset) != (reply.handle, reply.offset) or reply.length > call.length:
            faults.append(f"{message}: {reply} for {call}")


def check(capture, wanted):
    seen, faults, calls, client_ports = collections.Counter(), [], {}, {}
    messages, unread = [], []
    for (frame, stream, _), read, octets in packets(capture):
        messages += read
        unread += [(frame, stream, payload) for payload in octets]

    def half_read(message):
        """Its call or its reply stands behind another message."""
        return any(
            stream == message.stream and frame != message.frame and f"{message.xid:08x}" in payload
            for frame, stream, payload in unread
        )

    for message in messages:
        seen["messages"] += 1
        if message.kind not in (MSG, NOMSG) or message.error is not None:
            faults.append(f"{message}: type {message.kind}, error {message.error}")
            continue
        # Whose message is the first of a connection is the client.
        client = client_ports.setdefault(message.stream, message.port)
        key = message.stream, message.xid
        call = calls.get(key)
        if call is None:
            calls[key] = message
            continue
        if call.port == message.port:
            faults.append(f"{message}: the call of frame {call.frame} was sent again")
        if message.lists["reads"]:
            faults.append(f"{message}: a read list in a reply")
        if message.kind == NOMSG and not call.lists["reply"]:
            faults.append(f"{message}: no reply chunk was offered")
        for name in ("writes", "reply"):
            # A reply chunk that was not used is left out.
            if name == "writes" or message.lists[name]:
                given_back(call.lists[name], message.lists[name], message, faults)
        seen["answered"] += 1
        seen["backchannel"] += call.port != client
        seen["read"] += any(call.positions)
        seen["call"] += 0 in call.positions
        seen["write"] += bool(call.lists["writes"])
        seen["reply"] += bool(call.lists["reply"])
        del calls[key]
    faults += [f"{call}: not answered" for call in calls.values() if not half_read(call)]
    seen["half read"] = sum(map(half_read, calls.values()))
    faults += [f"none with {kind}" for kind in ["messages", *wanted] if not seen[kind]]
    return seen, faults


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    seen, faults = check(sys.argv[1], sys.argv[2:])
    print(", ".join(f"{name} {count}" for name, count in seen.items()))
    for fault in faults[:20]:
        print(f"-- {fault}")
    sys.exit(bool(faults))


main()
