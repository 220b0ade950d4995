//! A link as it looks on the wire: captured frames become a byte stream, messages, and a log that can be executed again.

use std::{collections::BTreeMap, convert::Infallible, io::Cursor, sync::Arc, time::Duration, time::Instant};

use echovisor_event::{Effect, Position};
use echovisor_log::{
    Batch, Decoder, Mark,
    link::{Link, LinkError, Message, SyncBegin},
};
use echovisor_machine::{Effects, cpu::kvm::KvmCpu};
use echovisor_replayer::{
    Arrived, Follower, History, Progress, Replay, Witness,
    secondary::{Base, Fetched, make},
};
use echovisor_snapshot::{PageDigests, sync::unpack};
use echovisor_tests::Frame;

/// Bytes before the body of a message: its length and its kind (docs/formats/link.md).
const PREFIX: usize = 5;

/// One direction of a TCP connection.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Behind which byte each segment ended, and when it was there together with all before it.
    ends: Vec<(usize, Duration)>,
}

/// A TCP segment with something in it.
struct Segment<'a> {
    from: u16,
    to: u16,
    number: u32,
    payload: &'a [u8],
}

impl Stream {
    /// What went from one port to the other, as it came in at the receiver.
    fn new(frames: &[Frame], from: u16, to: u16) -> Stream {
        let segments = frames.iter().filter_map(|frame| Some((segment(&frame.bytes)?, frame.at)));
        let ours = segments.filter(|(segment, _)| (segment.from, segment.to) == (from, to));
        let mut first = None;
        let mut pieces: BTreeMap<u32, (&[u8], Duration)> = BTreeMap::new();
        for (segment, at) in ours {
            let number = segment.number.wrapping_sub(*first.get_or_insert(segment.number));
            // The same bytes may come twice; what counts is the first time.
            pieces.entry(number).or_insert((segment.payload, at));
        }
        let mut stream = Stream::default();
        let mut last = Duration::ZERO;
        for (number, (payload, at)) in pieces {
            let known =
                stream.bytes.len().checked_sub(number as usize).expect("a piece of the stream is missing");
            stream.bytes.extend(payload.iter().skip(known));
            last = last.max(at);
            stream.ends.push((stream.bytes.len(), last));
        }
        stream
    }

    /// Hands each message to `take`, with the time when the last of it was there.
    fn messages(&self, mut take: impl FnMut(Message<'_>, Duration)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut receiver = Link::new(Cursor::new(self.bytes.clone()), tokio::io::sink()).receiver;
        let mut end = 0;
        loop {
            match runtime.block_on(receiver.receive()) {
                Ok(message) => {
                    let length = self.bytes[end..].first_chunk().map(|length| u32::from_le_bytes(*length));
                    end += PREFIX + length.expect("a message has a length") as usize;
                    let piece = self.ends.partition_point(|(behind, _)| *behind < end);
                    take(message, self.ends[piece].1);
                }
                // The capture may begin to miss things only where the nodes ended.
                Err(LinkError::Closed | LinkError::CutOff { .. }) => return,
                Err(error) => panic!("on the wire: {error}"),
            }
        }
    }
}

/// The TCP segment in an Ethernet frame, if there is one that carries anything.
fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (version, protocol) = (*packet.first()?, *packet.get(9)?);
    if ethernet[12..] != [0x08, 0x00] || version >> 4 != 4 || protocol != 6 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let tcp = packet.get(usize::from(version & 15) * 4..length)?;
    let number = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    if payload.is_empty() {
        return None;
    }
    let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    Some(Segment { from: number(0)?, to: number(2)?, number: sequence, payload })
}

/// What crossed the link of a primary and its secondary.
pub(crate) struct Wire {
    /// To the secondary.
    pub(crate) log: Log,
    /// From it.
    pub(crate) acknowledged: Acknowledged,
}

/// A state, and the log from there.
pub(crate) struct Log {
    begin: SyncBegin,
    /// The pages that came, compressed, and those that were asked for, in the same order.
    pages: Vec<Vec<u8>>,
    asked: Vec<Vec<u32>>,
    batches: Vec<(Batch, Mark)>,
}

/// Up to which watermark the log was acknowledged, and when that was on the wire. Both rise.
pub(crate) struct Acknowledged(Vec<(Position, Duration)>);

impl Wire {
    /// Reads the only connection to `port` that carries anything, from what came in at the loopback interface.
    ///
    /// # Panics
    /// If it is not a link's, or there are two.
    pub(crate) fn new(frames: &[Frame], port: u16) -> Wire {
        let segments = frames.iter().filter_map(|frame| segment(&frame.bytes));
        let mut peers: Vec<u16> = segments.filter(|s| s.to == port).map(|s| s.from).collect();
        peers.dedup();
        let [peer] = peers[..] else { panic!("not one link but those from {peers:?}") };

        let mut begin = None;
        let (mut pages, mut asked, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        // The watermark behind each batch, by its number.
        let mut watermarks = BTreeMap::new();
        let mut decoder: Option<Decoder> = None;
        Stream::new(frames, port, peer).messages(|message, _| match message {
            Message::SyncBegin(found) => assert!(begin.replace(found).is_none(), "it joined twice"),
            Message::SyncPages(bytes) => pages.push(bytes.to_vec()),
            Message::SegmentStart(start) => match &mut decoder {
                None => decoder = Some(Decoder::new(start)),
                Some(decoder) => decoder.start(start),
            },
            Message::Batch(body) => {
                let mut batch = Batch::new();
                let decoder = decoder.as_mut().expect("a batch belongs to a segment");
                let head = decoder.decode(body, &mut batch).expect("a batch");
                watermarks.insert(head.sequence, head.mark.watermark);
                batches.push((batch, head.mark));
            }
            _ => {}
        });
        let mut acknowledged: Vec<(Position, Duration)> = Vec::new();
        Stream::new(frames, peer, port).messages(|message, at| match message {
            // It holds every batch before this number.
            Message::Ack(ack) => {
                if let Some((_, watermark)) = watermarks.range(..ack.sequence).next_back() {
                    acknowledged.push((*watermark, at));
                }
            }
            Message::SyncAsk(ask) if ask.level == 0 => asked.push(ask.numbers),
            _ => {}
        });
        let log = Log { begin: begin.expect("a state"), pages, asked, batches };
        Wire { log, acknowledged: Acknowledged(acknowledged) }
    }
}

impl Acknowledged {
    /// When the log up to and including `position` was acknowledged, if it was.
    pub(crate) fn at(&self, position: Position) -> Option<Duration> {
        let first = self.0.partition_point(|(watermark, _)| *watermark < position);
        self.0.get(first).map(|(_, at)| *at)
    }
}

impl Log {
    /// Executes the log, as the secondary did, and gives every frame that the guest sent, with the position of its sending.
    pub(crate) fn frames(self) -> Vec<(Position, Vec<u8>)> {
        let Base { memory, .. } = Base::new(self.begin.memory).expect("memory");
        for (numbers, bytes) in self.asked.iter().zip(&self.pages) {
            let pages = unpack(bytes, numbers.len()).expect("pages");
            numbers.iter().zip(&pages).for_each(|(number, page)| memory.write_page(*number as usize, page));
        }
        let base = Base { digests: PageDigests::of(&memory), memory, state: None };
        let fetched = Fetched { begin: self.begin, base };
        let (machine, _) = make(fetched, KvmCpu::new).expect("a machine in that state");
        let replay = Replay::new(
            Captured(self.batches.into_iter()),
            Sent::default(),
            true,
            Arc::new(Progress::default()),
        );
        let mut follower = Follower::new(machine, replay);
        follower.run(None).expect("the guest does again what it did");
        let (_, sent, _) = follower.into_parts();
        sent.0
    }
}

/// Batches that were captured.
struct Captured(std::vec::IntoIter<(Batch, Mark)>);

impl History for Captured {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Arrived>, Infallible> {
        Ok(self.0.next().map(|(batch, mark)| Arrived { batch, mark, at: Instant::now() }))
    }

    fn recycle(&mut self, _: Batch) {}
}

/// Frames that the guest has sent.
#[derive(Default)]
struct Sent(Vec<(Position, Vec<u8>)>);

impl Effects for Sent {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        if let Effect::Frame(bytes) = effect {
            self.0.push((at, bytes.to_vec()));
        }
    }
}

impl Witness for Sent {
    fn released(&mut self, _: Position) {}
}
