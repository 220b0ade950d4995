//! Recordings that are whole, read in parts, and damaged.

use std::{fs, path::Path};

use echovisor_event::{Digest, Event, Nanos, Term, VmId};
use echovisor_log::{
    Encoder, Mark,
    link::Fingerprint,
    store::{Header, Store},
};

use super::{summary::Count, *};

const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    frame[0] = 2;
    frame[5] = 2;
    frame[6] = 2;
    frame[11] = 1;
    frame[12] = 8;
    frame
};

/// A recording of one segment with three batches: positions 0 to 10, to 20, to 30.
fn recording(dir: &Path) {
    let header = Header {
        vm: VmId([1; 16]),
        fingerprint: Fingerprint { text: "test".to_owned(), digest: Digest([2; 32]) },
        guest: Digest([3; 32]),
        machine: Vec::new(),
    };
    let mut store = Store::create(dir, &header).expect("a store");
    let start = store.next_start(Term(1));
    let mut encoder = Encoder::new(start);
    store.begin(&start).expect("a segment");
    for n in 1..=3_u64 {
        let mut batch = Batch::new();
        let at = Position(10 * n - 5);
        batch.push(at, Record::Event(Event::Clock(Nanos(n * 1_500_000_000)))).expect("room");
        batch.push(at, Record::Event(Event::Frame(&FRAME))).expect("room");
        batch.push(at.next(), Record::Event(Event::Console(b"ls\n"))).expect("room");
        if n == 2 {
            batch.push(Position(20), Record::Checkpoint).expect("room");
        }
        if n == 3 {
            let digest = Record::Digest { of: Position(20), digest: Digest([0xab; 32]) };
            batch.push(Position(30), digest).expect("room");
        }
        let watermark = Position(10 * n);
        let mark = Mark { watermark, released: Position::BOOT, trail: 0, trail_at: Position::BOOT };
        let encoded = encoder.encode(&batch, mark).expect("a batch");
        store.append(&encoded.head, &batch, encoded.body).expect("appended");
    }
    store.seal().expect("sealed");
}

fn everything() -> Range {
    Range { from: Position::BOOT, to: Position(u64::MAX) }
}

#[test]
fn a_recording_is_counted_by_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("recording");
    recording(&dir);
    let recording = Recording::open(&dir).expect("a recording");
    let (summary, damaged) = Summary::of(&recording, everything()).expect("a summary");
    assert!(damaged.is_empty());
    assert_eq!((summary.first, summary.last), (Some(Position(0)), Some(Position(30))));
    assert_eq!((summary.segments, summary.checkpoints, summary.batches), (1, 1, 3));
    assert_eq!(summary.kinds["frame"], Count { records: 3, bytes: 180 });
    assert_eq!(summary.kinds["checkpoint"], Count { records: 1, bytes: 0 });
    assert_eq!(summary.kinds["digest"], Count { records: 1, bytes: 32 });
    assert_eq!(summary.content_bytes, 3 * (8 + 60 + 3) + 32);
    let text = summary.to_string();
    assert!(text.contains("\npositions       0 to 30\n"), "{text}");
    assert!(text.ends_with(&format!("\n{:<12}{:>14}{:>18}", "frame", 3, 180)), "{text}");
    let json = serde_json::to_value(&summary).expect("JSON");
    assert_eq!(json["kinds"]["console"]["bytes"], 9);
}

#[test]
fn a_range_holds_both_its_ends_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("recording");
    recording(&dir);
    let recording = Recording::open(&dir).expect("a recording");
    let rows = |from, to| {
        let mut rows = Vec::new();
        let range = Range { from: Position(from), to: Position(to) };
        read(&recording, range, |visit| {
            if let Visit::Record(record) = visit {
                rows.push(Row::new(record).to_string());
            }
            Ok(true)
        })
        .expect("a range");
        rows
    };
    assert_eq!(rows(6, 15).len(), 3);
    assert_eq!(rows(7, 14), [""; 0]);
    assert_eq!(rows(31, 99), [""; 0]);
    assert_eq!(
        rows(15, 20),
        [
            "            15  clock           8  3.000000000s".to_owned(),
            "            15  frame          60  02:00:00:00:00:01 to 02:00:00:00:00:02, IPv4".to_owned(),
            "            16  console         3  \"ls\\n\"".to_owned(),
            "            20  checkpoint      0".to_owned(),
        ]
    );
    assert_eq!(rows(27, 30), [format!("            30  digest         32  of 20: {}", "ab".repeat(32))]);
}

#[test]
fn damage_is_named_and_what_is_before_it_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("recording");
    recording(&dir);
    let opened = Recording::open(&dir).expect("a recording");
    let mut reader = opened.read(opened.segments()[0].start.segment).expect("a segment");
    while reader.next(&mut Batch::new()).expect("intact").is_some() {}
    drop(opened);
    let segments = walk(&dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg"));
    for path in segments {
        let mut bytes = fs::read(&path).expect("a segment");
        let place = bytes.len() * 2 / 3;
        bytes[place] ^= 1;
        fs::write(&path, bytes).expect("a segment");
    }
    let recording = Recording::open(&dir).expect("a recording");
    let (summary, damaged) = Summary::of(&recording, everything()).expect("a summary");
    assert_eq!((damaged.len(), summary.damaged.len()), (1, 1));
    assert!((1..3).contains(&summary.batches), "{summary:?}");
    assert_eq!(report(damaged).expect_err("damage").exit(), Exit::Corrupt);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let args =
        |from, to| InspectArgs { recording: folder.path().join("none"), from, to, events: true, json: false };
    assert_eq!(run(&args(2, 1)).expect_err("no range").exit(), Exit::Usage);
    let failure = run(&args(0, 1)).expect_err("no recording");
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(failure.to_string().contains("holds no recording\nhint: "), "{failure}");
}
