//! Data for the key-value server that nothing can make smaller, so that whoever sends it can be told by the bytes.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use fastrand::Rng;

use crate::Lab;

/// Bytes of one value.
const VALUE: usize = 64 << 10;

/// Values that a guest was given.
#[derive(Debug)]
pub struct Filling {
    seed: u64,
    count: usize,
}

impl Filling {
    /// Gives the guest so many bytes, on a connection of its own.
    ///
    /// # Panics
    /// If it does not take them.
    #[must_use]
    pub fn of(lab: &Lab, bytes: usize) -> Filling {
        let filling = Filling { seed: fastrand::u64(..), count: bytes.div_ceil(VALUE) };
        let mut stream = lab.connect(6379);
        for (key, value) in filling.values() {
            let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE}\r\n", key.len());
            let request = [head.as_bytes(), &value, b"\r\n"].concat();
            stream.write_all(&request).expect("a guest that listens");
            must_answer(&mut stream, b"+OK\r\n");
        }
        filling
    }

    /// Reads all of it back, on a connection of its own.
    ///
    /// # Panics
    /// If anything is missing.
    pub fn must_be_there(&self, lab: &Lab) {
        let mut stream = lab.connect(6379);
        for (key, value) in self.values() {
            write!(stream, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).expect("a guest that listens");
            must_answer(&mut stream, &[format!("${VALUE}\r\n").as_bytes(), &value, b"\r\n"].concat());
        }
    }

    fn values(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let mut random = Rng::with_seed(self.seed);
        (0..self.count).map(move |number| {
            let mut value = vec![0; VALUE];
            random.fill(&mut value);
            (format!("filling-{number}"), value)
        })
    }
}

fn must_answer(stream: &mut TcpStream, expected: &[u8]) {
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert!(
        answer == expected,
        "another answer: {:?}",
        String::from_utf8_lossy(&answer[..answer.len().min(80)])
    );
}
