//! Fills a guest's memory with what no compression makes smaller.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use fastrand::Rng;

/// Bytes of a value.
const VALUE: usize = 3000;

/// Values under way.
const BURST: usize = 32;

/// Writes random values until so many bytes are in the guest's memory. Returns how many those are.
pub(crate) fn fill(guest: &mut TcpStream, bytes: u64) -> u64 {
    let mut random = Rng::with_seed(7);
    let bursts = bytes.div_ceil((VALUE * BURST) as u64);
    let mut value = [0; VALUE];
    let mut replies = [0; 5 * BURST];
    for burst in 0..bursts {
        let mut requests = Vec::new();
        for n in 0..BURST {
            random.fill(&mut value);
            let key = format!("{burst:08x}{n:02x}");
            requests.extend(format!("*3\r\n$3\r\nSET\r\n$10\r\n{key}\r\n${VALUE}\r\n").bytes());
            requests.extend(value);
            requests.extend(b"\r\n");
        }
        guest.write_all(&requests).expect("the guest takes it");
        guest.read_exact(&mut replies).expect("the guest answers");
        assert!(replies.chunks(5).all(|reply| reply == b"+OK\r\n"), "a value was refused");
    }
    bursts * (VALUE * BURST) as u64
}
