//! Clients of a key-value server in an emulated machine that may go dark at any moment.

use std::{
    io::{BufRead, BufReader, Read, Result, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use echovisor_tests::Namespace;
use fastrand::Rng;

use crate::history::{History, KEYS, Write, name, number, value};

/// How long a client waits for a machine that may be there or not. What is late is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a machine is reached.
pub(crate) struct Clients<'a> {
    /// From here.
    pub(crate) network: &'a Namespace,
    /// At this address.
    pub(crate) server: SocketAddr,
}

impl Clients<'_> {
    /// What each key holds, as numbers of writes.
    ///
    /// # Errors
    /// If no machine answers.
    ///
    /// # Panics
    /// If a key holds what nobody wrote.
    pub(crate) fn read(&self, connections: usize) -> Result<Vec<[usize; KEYS]>> {
        let mut stream = self.connect()?;
        let mut found = vec![[0; KEYS]; connections];
        for (connection, numbers) in found.iter_mut().enumerate() {
            for (key, found) in numbers.iter_mut().enumerate() {
                let name = name(connection, key);
                stream.get_mut().write_all(&request(&["GET", &name]))?;
                if let Some(held) = bulk(&mut stream)? {
                    let number = number(connection, key, &held);
                    *found = number.unwrap_or_else(|| panic!("nobody wrote {held:?} to {name}"));
                }
            }
        }
        Ok(found)
    }

    /// Writes on all connections, and waits for all replies as they come, until `is_over` says so of their count: then
    /// `cut` must end the machine, so that the connections end.
    ///
    /// # Panics
    /// If a write is refused.
    pub(crate) fn write(
        &self,
        history: &mut History,
        random: &mut Rng,
        is_over: impl Fn(u64) -> bool,
        cut: impl FnOnce(),
    ) {
        let answers = AtomicU64::new(0);
        thread::scope(|scope| {
            let writers: Vec<_> = history
                .writes
                .iter_mut()
                .enumerate()
                .map(|(connection, writes)| {
                    let (random, answers) = (random.fork(), &answers);
                    // A connection that ends is what is waited for.
                    scope.spawn(move || {
                        drop(
                            self.connect()
                                .and_then(|stream| write(stream, connection, writes, random, answers)),
                        )
                    })
                })
                .collect();
            while !is_over(answers.load(Ordering::Relaxed))
                && !writers.iter().all(|writer| writer.is_finished())
            {
                thread::sleep(Duration::from_millis(1));
            }
            cut();
        });
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = self.network.enter(|| TcpStream::connect_timeout(&self.server, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

/// Writes until the connection ends. Every second connection waits for each reply, the others have a few requests under way.
fn write(
    mut stream: BufReader<TcpStream>,
    connection: usize,
    writes: &mut Vec<Write>,
    mut random: Rng,
    answers: &AtomicU64,
) -> Result<()> {
    let depth = if connection.is_multiple_of(2) { 1 } else { 8 };
    let mut answered = writes.len();
    loop {
        while writes.len() - answered < depth {
            let key = random.usize(..KEYS);
            writes.push(Write { key, asked: Instant::now(), answered: None });
            let value = value(connection, key, writes.len());
            stream.get_mut().write_all(&request(&["SET", &name(connection, key), &value]))?;
        }
        let reply = line(&mut stream)?;
        assert_eq!(reply, "+OK", "to write {} of connection {connection}", answered + 1);
        writes[answered].answered = Some(Instant::now());
        answered += 1;
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request as RESP has it.
fn request(words: &[&str]) -> Vec<u8> {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), words.collect::<String>()).into_bytes()
}

/// A line of a reply. One that is cut short is none.
fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let whole = line.strip_suffix("\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(whole.to_owned())
}

/// A string, if there is one.
fn bulk(stream: &mut BufReader<TcpStream>) -> Result<Option<String>> {
    let head = line(stream)?;
    let length = head.strip_prefix('$').and_then(|length| length.parse::<i64>().ok());
    let length = length.unwrap_or_else(|| panic!("{head:?} is no string"));
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(length);
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
