//! One record of a recording, for a list.

use std::fmt::{self, Write};

use echovisor_event::{Event, Kind, Nanos, Position, Stamped};
use echovisor_log::Record;
use echovisor_machine::MachineState;
use serde::Serialize;

/// One record, for a list.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    position: Position,
    kind: &'static str,
    bytes: u64,
    what: String,
}

/// The pages of the delta that is being read.
#[derive(Default)]
pub(super) struct Pages {
    count: u64,
    bytes: u64,
}

impl Row {
    /// The row of a record. A page has none: it is counted, and belongs to its delta.
    pub(super) fn new(record: Stamped<Record<'_>>, pages: &mut Pages) -> Option<Row> {
        let (kind, mut bytes) = measure(&record.what);
        let what = match record.what {
            Record::Event(Event::Clock(time)) => time.to_string(),
            Record::Event(Event::Wall(nanos)) => format!("boot at {} UNIX time", Nanos(nanos)),
            Record::Event(Event::Frame(frame)) => ethernet(frame),
            Record::Event(Event::Console(bytes)) => format!("\"{}\"", bytes.escape_ascii()),
            // Entropy may be key material of the guest.
            Record::Event(Event::Entropy(_)) | Record::Checkpoint | Record::Stop => String::new(),
            Record::Digest { of, digest } => format!("of {of}: {digest}"),
            Record::Page { .. } => {
                pages.count += 1;
                pages.bytes += bytes;
                return None;
            }
            Record::Delta { cause, state } => {
                let Pages { count, bytes: size } = std::mem::take(pages);
                bytes += size;
                match MachineState::from_bytes(state) {
                    Ok(state) => format!("to {}, {count} pages, {}", state.position, cause.name()),
                    Err(error) => error.to_string(),
                }
            }
        };
        Some(Row { position: record.at, kind, bytes, what })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { position, kind, bytes, what } = self;
        let row = format!("{position:>14}  {kind:<10} {bytes:>6}  {what}");
        f.write_str(row.trim_end())
    }
}

/// Who sends a frame to whom, and of which type it is.
fn ethernet(frame: &[u8]) -> String {
    let Some((header, _)) = frame.split_first_chunk::<14>() else {
        return "not Ethernet".to_owned();
    };
    let address = |bytes: &[u8]| {
        bytes.iter().enumerate().fold(String::new(), |mut text, (n, byte)| {
            let _ = write!(text, "{}{byte:02x}", if n == 0 { "" } else { ":" });
            text
        })
    };
    let kind = u16::from_be_bytes([header[12], header[13]]);
    let kind = match kind {
        0x0800 => "IPv4".to_owned(),
        0x0806 => "ARP".to_owned(),
        0x86dd => "IPv6".to_owned(),
        other => format!("type {other:#06x}"),
    };
    format!("{} to {}, {kind}", address(&header[6..12]), address(&header[..6]))
}

/// The name of a record's kind, and the bytes of what it holds.
pub(super) fn measure(record: &Record<'_>) -> (&'static str, u64) {
    match record {
        Record::Event(event) => {
            let kind = match event.kind() {
                Kind::Clock => "clock",
                Kind::Wall => "wall",
                Kind::Frame => "frame",
                Kind::Console => "console",
                Kind::Entropy => "entropy",
            };
            let bytes = match event {
                Event::Clock(_) | Event::Wall(_) => 8,
                Event::Frame(bytes) | Event::Console(bytes) | Event::Entropy(bytes) => bytes.len() as u64,
            };
            (kind, bytes)
        }
        Record::Checkpoint => ("checkpoint", 0),
        Record::Digest { digest, .. } => ("digest", digest.0.len() as u64),
        Record::Page { contents, .. } => ("page", contents.len() as u64),
        Record::Delta { state, .. } => ("delta", state.len() as u64),
        Record::Stop => ("stop", 0),
    }
}
