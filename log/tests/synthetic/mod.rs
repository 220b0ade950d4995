//! Traffic that looks like redis-benchmark's, made up: `SET key:<12 random digits> <random value>` on many connections.

#![allow(dead_code, reason = "each test uses its part")]

use std::fmt::Write;

/// A small generator of pseudo-random numbers (xorshift64*), equal on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the clients send.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    /// Always the same key and value.
    Fixed,
    /// A random key and three bytes.
    Short,
    /// A random key and nine random digits.
    Digits,
}

struct Connection {
    port: u16,
    seq: u32,
    ack: u32,
    ip_id: u16,
    stamps: [u32; 2],
}

/// Clients with a connection each, that send requests in turns.
pub(crate) struct Clients {
    connections: Vec<Connection>,
    random: Random,
    value: Value,
    timestamps: bool,
    /// Requests sent so far.
    pub(crate) sent: u64,
}

impl Clients {
    pub(crate) fn new(connections: usize, value: Value, timestamps: bool) -> Clients {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let connections = (0..connections)
            .map(|index| Connection {
                port: 40_000 + 2 * index as u16,
                seq: random.next() as u32,
                ack: random.next() as u32,
                ip_id: random.next() as u16,
                stamps: [random.next() as u32, 1000],
            })
            .collect();
        Clients { connections, random, value, timestamps, sent: 0 }
    }

    /// The next request, as an Ethernet frame with valid checksums.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        let key = match self.value {
            Value::Fixed => 0,
            _ => self.random.below(1_000_000_000),
        };
        let value = match self.value {
            Value::Digits => format!("{:09}", self.random.below(1_000_000_000)),
            _ => "xxx".to_owned(),
        };
        let mut request = String::new();
        write!(request, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${}\r\n{value}\r\n", value.len())
            .unwrap();
        let index = self.random.below(self.connections.len() as u64) as usize;
        let connection = &mut self.connections[index];
        connection.stamps[0] = connection.stamps[0].wrapping_add((self.sent / 64) as u32 % 3);
        let frame = tcp_frame(connection, request.as_bytes(), self.timestamps);
        connection.seq = connection.seq.wrapping_add(request.len() as u32);
        connection.ack = connection.ack.wrapping_add(5);
        connection.ip_id = connection.ip_id.wrapping_add(1);
        connection.stamps[1] = connection.stamps[0].wrapping_mul(3);
        self.sent += 1;
        frame
    }
}

fn tcp_frame(connection: &Connection, data: &[u8], timestamps: bool) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(connection.port.to_be_bytes());
    tcp.extend(6379u16.to_be_bytes());
    tcp.extend(connection.seq.to_be_bytes());
    tcp.extend(connection.ack.to_be_bytes());
    tcp.extend([if timestamps { 0x80 } else { 0x50 }, 0x18, 0x01, 0xf6, 0, 0, 0, 0]);
    if timestamps {
        tcp.extend([1, 1, 8, 10]);
        connection.stamps.iter().for_each(|stamp| tcp.extend(stamp.to_be_bytes()));
    }
    tcp.extend(data);
    let mut ip = vec![0x45, 0];
    ip.extend((20 + tcp.len() as u16).to_be_bytes());
    ip.extend(connection.ip_id.to_be_bytes());
    ip.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = [&[0, 6][..], &(tcp.len() as u16).to_be_bytes()].concat();
    let sum = checksum(&[&ip[12..20], &pseudo, &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    [&ethernet[..], &ip, &tcp].concat()
}

/// The Internet checksum; all parts but the last have an even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
