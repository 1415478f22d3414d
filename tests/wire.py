# SPDX-License-Identifier: GPL-2.0-only
"""Frames from text, and two ends of a link that tell which frames crossed it.

Nothing here comes from the tools under test: the oracle must not share their
mistakes. Only the standard library is used; a test is one process.

A packet is 'PROTO SRC[:PORT] > DST[:PORT] [KEY=VALUE]...' with IPv6 as [ADDR]:PORT;
PROTO is a name of PROTOS or a number. Keys:
  flags=SAFRPU   TCP flags (S)             type=TYPE[/CODE]  of ICMP (echo request)
  id=N           identification            frag=OFFSET[+]    a fragment; +: more follow
  ttl=N          or hop limit              opt=BYTES         IPv4 options, NOPs
  ext=A,B,...    hbh dst rt ah frag none   vlan=N,N          tags, outermost first
  len=N          bytes of payload          sel=N             echo identifier
  tot=N          claimed length of the IP packet     ihl=N   claimed header length in words
  doff=N         claimed TCP header length in words  cut=N   drop the last bytes of the frame
  quote='PACKET' what an ICMP error is about         ver=N   claimed IP version
"""
import ctypes
import errno
import os
import select
import shlex
import socket
import struct

PROTOS = {'icmp': 1, 'igmp': 2, 'tcp': 6, 'udp': 17, 'dccp': 33, 'gre': 47, 'esp': 50, 'ah': 51,
          'icmp6': 58, 'ospf': 89, 'sctp': 132, 'udplite': 136}
EXT = {'hbh': 0, 'rt': 43, 'frag': 44, 'ah': 51, 'dst': 60}
MAC_A, MAC_B = b'\x02\0\0\0\0\x0a', b'\x02\0\0\0\0\x0b'
SENTINEL = struct.pack('!HHBBH6s4s6s4s', 1, 0x800, 6, 4, 1, MAC_A, bytes(4), MAC_B, bytes(4))


def csum(data):
    data += b'\0' * (len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def side(text):
    """An address, as bytes, and a port."""
    if text.startswith('['):
        addr, _, port = text[1:].partition(']')
        return socket.inet_pton(socket.AF_INET6, addr), int(port[1:] or 0)
    if text.count(':') > 1:
        return socket.inet_pton(socket.AF_INET6, text), 0
    addr, _, port = text.partition(':')
    return socket.inet_pton(socket.AF_INET, addr), int(port or 0)


def transport(proto, src, dst, sport, dport, keys):
    payload = bytes(i & 0xff for i in range(int(keys.get('len', 8))))
    if proto == 6:
        flags = sum(1 << 'FSRPAU'.index(c) for c in keys.get('flags', 'S'))
        data = struct.pack('!HHIIBBHHH', sport, dport, 1, 1 if flags & 16 else 0,
                           int(keys.get('doff', 5)) << 4, flags, 1000, 0, 0) + payload
        at = 16
    elif proto in (17, 136):
        data = struct.pack('!HHHH', sport, dport, 8 + len(payload), 0) + payload
        at = 6
    elif proto in (33, 132):
        return struct.pack('!HHII', sport, dport, 0, 0) + payload
    elif proto in (1, 58):
        default = '8' if proto == 1 else '128'
        kind, _, code = keys.get('type', default).partition('/')
        rest = struct.pack('!HH', int(keys.get('sel', 7)), 1)
        if 'quote' in keys:
            rest = bytes(4)
            payload = packet(keys['quote'])
        data = struct.pack('!BBH', int(kind), int(code or 0), 0) + rest + payload
        at = 2
    else:
        return payload
    pseudo = b''
    if proto != 1:
        pseudo = src + dst + struct.pack('!II', len(data), proto)
    c = csum(pseudo + data)
    return data[:at] + struct.pack('!H', c or 0xffff) + data[at + 2:]


def packet(text):
    """The IP packet."""
    words = shlex.split(text)
    proto = PROTOS.get(words[0])
    if proto is None:
        proto = int(words[0])
    (src, sport), (dst, dport) = side(words[1]), side(words[3])
    keys = dict(w.split('=', 1) for w in words[4:])
    data = transport(proto, src, dst, sport, dport, keys)
    offset, more = 0, False
    if 'frag' in keys:
        more = keys['frag'].endswith('+')
        offset = int(keys['frag'].rstrip('+'))
        if offset:
            data = bytes(int(keys.get('len', 8)))
    ident = int(keys.get('id', 1))
    ttl = int(keys.get('ttl', 64))
    if len(src) == 4:
        options = b'\x01' * (int(keys.get('opt', 0)) + 3 & ~3)
        words32 = int(keys.get('ihl', 5 + len(options) // 4))
        total = int(keys.get('tot', 20 + len(options) + len(data)))
        head = struct.pack('!BBHHHBBH4s4s', int(keys.get('ver', 4)) << 4 | words32, 0, total, ident,
                           offset | more << 13, ttl, proto, 0, src, dst) + options
        return head[:10] + struct.pack('!H', csum(head)) + head[12:] + data
    chain = [e for e in keys.get('ext', '').split(',') if e]
    if 'frag' in keys and 'frag' not in chain:
        chain.append('frag')
    nexthdr = 59 if 'none' in chain else proto
    chain = [e for e in chain if e != 'none']
    for e in reversed(chain):
        if e == 'frag':
            body = struct.pack('!BBHI', nexthdr, 0, offset << 3 | more, ident)
        elif e == 'ah':
            body = struct.pack('!BBHIII', nexthdr, 2, 0, 1, 1, 1)
        elif e == 'rt':
            body = struct.pack('!BBBBI', nexthdr, 0, 4, 0, 0)
        else:
            body = struct.pack('!BB', nexthdr, 0) + b'\x01\x04\0\0\0\0'
        data = body + data
        nexthdr = EXT[e]
    total = int(keys.get('tot', len(data)))
    return struct.pack('!IHBB16s16s', int(keys.get('ver', 6)) << 28, total, nexthdr, ttl,
                       src, dst) + data


def frame(text):
    """The Ethernet frame. 'arp' and 'type=0x1234' are frames as well."""
    words = shlex.split(text)
    keys = dict(w.split('=', 1) for w in words if '=' in w)
    if words[0] == 'arp':
        kind, body = 0x806, SENTINEL
    elif words[0].startswith('type='):
        kind, body = int(keys['type'], 0), bytes(46)
    else:
        body = packet(text)
        kind = 0x800 if len(side(words[1])[0]) == 4 else 0x86dd
    for tag in reversed([t for t in keys.get('vlan', '').split(',') if t]):
        body = struct.pack('!HH', int(tag), kind) + body
        kind = 0x8100
    whole = MAC_B + MAC_A + struct.pack('!H', kind) + body
    return whole[:len(whole) - int(keys.get('cut', 0))]


def setns(name):
    path = name if '/' in name else '/run/netns/' + name
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):
            raise OSError(ctypes.get_errno(), 'setns', path)
    finally:
        os.close(fd)


def new_netns():
    """Leave for a namespace of our own, without IPv6 chatter."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), 'unshare')
    for scope in 'all', 'default':
        with open('/proc/sys/net/ipv6/conf/%s/disable_ipv6' % scope, 'w') as f:
            f.write('1')


class End:
    """One end of a link. Sockets for a protocol see a frame after the ingress hooks."""

    def __init__(self, dev):
        self.rx = []
        for proto in 0x800, 0x86dd, 0x8100, 0x88b5:
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(proto))
            s.bind((dev, proto))
            s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)   # SO_RCVBUFFORCE
            s.setblocking(False)
            self.rx.append(s)
        self.arp = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x806))
        self.arp.bind((dev, 0x806))
        self.tx = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.dev = dev

    def mark(self, mark):
        self.tx.setsockopt(socket.SOL_SOCKET, 36, mark)    # SO_MARK

    def send(self, data):
        try:
            self.tx.sendto(data, (self.dev, struct.unpack('!H', data[12:14])[0]))
        except OSError as e:
            if e.errno != errno.ENOBUFS:    # so the sender learns of a drop
                raise

    def arrivals(self, timeout):
        """Frames up to the sentinel's."""
        frames, arps = [], 0
        while True:
            if not select.select([self.arp], [], [], timeout)[0]:
                raise TimeoutError('%s: the sentinel did not arrive' % self.dev)
            data = self.arp.recv(65536)
            if data[:6] != MAC_B:
                continue
            if data[12 + 2 + 8:12 + 2 + 14] == b'\xff' * 6:
                break
            arps += 1
        for s in self.rx:
            while True:
                try:
                    data, addr = s.recvfrom(65536)
                except BlockingIOError:
                    break
                if data[:6] == MAC_B and addr[2] != socket.PACKET_OUTGOING:
                    frames.append(data)
        return len(frames) + arps


class Wire:
    """A link with both ends at hand. Frames stay in order as long as one CPU sends them."""

    def __init__(self, dev_a, dev_b, netns_a=None, netns_b=None):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        self.timeout = 10 * int(os.environ.get('TIMEOUT_FACTOR') or 1)
        self.ends = []
        for dev, netns in (dev_a, netns_a), (dev_b, netns_b):
            if netns:
                setns(netns)
            self.ends.append(End(dev))
        self.sentinel = MAC_B + MAC_A + b'\x08\x06' + SENTINEL[:8] + b'\xff' * 6 + SENTINEL[14:]

    def mark(self, mark):
        for end in self.ends:
            end.mark(mark)

    def cross(self, text, from_a=True):
        """Whether a packet gets from one end to the other."""
        near, far = self.ends if from_a else reversed(self.ends)
        near.send(frame(text))
        near.send(self.sentinel)
        return far.arrivals(self.timeout) > 0
