//! The bytes of every format, as files. If one of these tests fails, what older releases wrote can't be read any more, or
//! they can't read what this one writes: raise `limits::VERSION`, then `ECHOVISOR_BLESS=1 cargo test --test golden`.
//!
//! Bodies are not compared compressed, since a newer zstd may compress differently; the hash chain stands for their
//! uncompressed bytes.

mod synthetic;

use std::{fs, path::PathBuf};

use echovisor_event::{Digest, Event, Nanos, NodeId, Position, Term, VmId, limits::PAGE_SIZE};
use echovisor_log::{
    Batch, Cause, Encoder, Mark, Record, SegmentStart, arbiter,
    limits::VERSION,
    link::{
        Ack, Diverged, Fingerprint, HandOver, Heartbeat, Hello, Link, Message, Ready, Refuse, RefuseCode,
        Resume, SyncAsk, SyncBegin, Welcome,
    },
    store::{Header, Recording, Store, Writer},
};
use synthetic::{Clients, Value};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// Compares with the file of this name, or writes it when blessing.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{VERSION}/{name}"));
    if std::env::var_os("ECHOVISOR_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn fingerprint() -> Fingerprint {
    Fingerprint { text: "cpu: made up".to_owned(), digest: Digest([0x11; 32]) }
}

fn header() -> Header {
    Header {
        vm: VmId([0x22; 16]),
        fingerprint: fingerprint(),
        guest: Digest([0x33; 32]),
        machine: b"opaque".to_vec(),
    }
}

/// Batches with every kind of record, the same on every run.
fn batches() -> Vec<(Batch, Mark)> {
    let mut clients = Clients::new(2, Value::Digits, true);
    let requests: Vec<_> = (0..8).map(|_| clients.frame()).collect();
    let mut again = [0x77; PAGE_SIZE];
    again[100] = 1;
    let again = &again;
    let records = [
        vec![
            Record::Event(Event::Wall(1_700_000_000_000_000_000)),
            Record::Event(Event::Clock(Nanos(1_000_000))),
            Record::Event(Event::Frame(b"no headers at all")),
            Record::Event(Event::Console(b"help\n")),
            Record::Event(Event::Entropy(&[0xee; 16])),
        ],
        vec![],
        requests.iter().map(|frame| Record::Event(Event::Frame(frame))).collect(),
        vec![
            Record::Page { page: 7, contents: &[0x77; PAGE_SIZE] },
            Record::Page { page: 9, contents: &[] },
            Record::Delta { cause: Cause::Quantum, state: b"opaque" },
            Record::Page { page: 7, contents: again },
            Record::Page { page: 9, contents: &[] },
            Record::Delta { cause: Cause::Epoch, state: b"opaque" },
        ],
        vec![
            Record::Event(Event::Clock(Nanos(2_500_000))),
            Record::Checkpoint,
            Record::Digest { of: Position(144), digest: Digest([0x44; 32]) },
            Record::Stop,
        ],
    ];
    let mut at = 100;
    records
        .into_iter()
        .map(|records| {
            let mut batch = Batch::new();
            for record in records {
                batch.push(Position(at), record).unwrap();
                at += 1;
            }
            at += 10;
            let (watermark, released) = (Position(at), Position(at - 5));
            (batch, Mark { watermark, released, trail: 0x0123_4567, trail_at: Position(at - 1) })
        })
        .collect()
}

#[test]
fn recording() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::create(dir.path(), &header()).unwrap();
    let start = SegmentStart {
        segment: 3,
        term: Term(2),
        sequence: 77,
        position: Position(100),
        chain: Digest([0x55; 32]),
    };
    let mut encoder = Encoder::new(start);
    store.begin(&start).unwrap();
    for (batch, mark) in batches() {
        let encoded = encoder.encode(&batch, mark).unwrap();
        store.append(&encoded.head, batch.digests(), encoded.body).unwrap();
    }
    store.seal().unwrap();
    store.set_writer(Writer { node: NodeId([0x66; 16]), arbitrated: true, durable: false }).unwrap();
    drop(store);

    let header_file = fs::read(dir.path().join("header")).unwrap();
    assert_eq!(golden("header", &header_file), header_file);
    let writer_file = fs::read(dir.path().join("writer")).unwrap();
    assert_eq!(golden("writer", &writer_file), writer_file);
    let segment_file = dir.path().join("segments/00000003.seg");
    let written = fs::read(&segment_file).unwrap();
    let kept = golden("segment", &written);
    // The file's header and its trailer, which holds the hash chain.
    assert_eq!(kept[..128], written[..128]);
    assert_eq!(kept[kept.len() - 80..], written[written.len() - 80..]);

    // What was kept is read as what was meant.
    fs::write(&segment_file, kept).unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(*recording.header(), header());
    let mut reader = recording.read(3).unwrap();
    assert_eq!(*reader.start(), start);
    let mut found = Batch::new();
    for (batch, mark) in batches() {
        let head = reader.next(&mut found).unwrap().expect("a batch");
        assert_eq!(head.mark, mark);
        assert!(found.records().eq(batch.records()));
    }
    assert_eq!(reader.next(&mut found).unwrap(), None);
    assert!(recording.segments()[0].sealed && recording.damaged().is_empty());
}

#[tokio::test]
async fn messages() {
    let messages = [
        Message::Hello(Hello {
            vm: Some(VmId([0x22; 16])),
            term: Term(3),
            resume: Some(Resume { segment: 4, sequence: 500 }),
            ..Hello::new(NodeId([0x66; 16]), fingerprint())
        }),
        Message::Welcome(Welcome {
            version: VERSION,
            vm: VmId([0x22; 16]),
            node: NodeId([0x77; 16]),
            term: Term(3),
            fingerprint: Digest([0x11; 32]),
            resumed: true,
        }),
        Message::Refuse(Refuse { code: RefuseCode::Busy, text: "one is enough".to_owned() }),
        Message::SyncBegin(SyncBegin {
            position: Position(1000),
            memory: 1 << 26,
            root: Digest([0x87; 32]),
            digest: Digest([0x88; 32]),
            config: b"opaque".to_vec(),
            state: b"registers".to_vec(),
        }),
        Message::SyncAsk(SyncAsk { level: 1, left: 0, numbers: vec![3, 5] }),
        Message::SyncNodes(&[0x89; 64]),
        Message::SyncPages(b"compressed"),
        Message::Ready(Ready { position: Position(1000), digest: Digest([0x88; 32]) }),
        Message::Grant(Position(1001)),
        Message::SegmentStart(SegmentStart {
            segment: 4,
            term: Term(3),
            sequence: 500,
            position: Position(1000),
            chain: Digest([0x99; 32]),
        }),
        Message::Batch(b"body"),
        Message::Heartbeat(Heartbeat {
            stamp: 123_456_789,
            watermark: Position(1300),
            released: Position(1200),
        }),
        Message::Ack(Ack { sequence: 501, executed: Position(1250), echo: 123_456_789, durable: true }),
        Message::Diverged(Diverged { position: Position(1300), text: "rip".to_owned() }),
        Message::Bye("stopped".to_owned()),
        Message::Listens("10.1.0.2:7000".to_owned()),
        Message::Promote,
        Message::HandOver(HandOver { position: Position(1400), digest: Digest([0x88; 32]) }),
        Message::Keep("later".to_owned()),
    ];
    let (here, mut there) = tokio::io::duplex(1 << 16);
    let mut link = Link::new(tokio::io::empty(), here);
    messages.iter().for_each(|message| link.sender.queue(message).unwrap());
    link.sender.flush().await.unwrap();
    drop(link);
    let mut written = Vec::new();
    there.read_to_end(&mut written).await.unwrap();
    let kept = golden("messages", &written);
    assert_eq!(kept, written);
    let mut link = Link::new(std::io::Cursor::new(kept), tokio::io::sink());
    for message in &messages {
        assert_eq!(link.receiver.receive().await.unwrap(), *message);
    }
}

#[test]
fn arbiter_file() {
    let record = arbiter::Record {
        vm: VmId([0x22; 16]),
        term: Term(3),
        holder: NodeId([0x77; 16]),
        mode: arbiter::Mode::Protected(NodeId([0x66; 16])),
    };
    let text = record.to_json();
    assert_eq!(golden("arbiter.json", text.as_bytes()), text.as_bytes());
    assert_eq!(arbiter::Record::from_json(text.as_bytes()), Ok(record));
}
