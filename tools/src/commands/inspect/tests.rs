//! Recordings that are whole, read in parts, and damaged.

use std::{fs, path::Path};

use echovisor_event::{
    Digest, Event, Nanos, Term, VmId,
    limits::{MEMORY_MIN, PAGE_SIZE},
};
use echovisor_log::{
    Cause, Encoder, Mark,
    link::Fingerprint,
    store::{Header, Store},
};

use echovisor_machine::{Machine, MachineState, Memory, cpu::scripted::ScriptedCpu, devices::DevicesConfig};
use echovisor_snapshot::{
    PageDigests,
    store::{PageStore, SnapshotParts},
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
        store.append(&encoded.head, batch.digests(), encoded.body).expect("appended");
    }
    store.seal().expect("sealed");
}

/// Adds snapshots at the beginning and at the end.
fn snapshots(dir: &Path) {
    let memory = Memory::new(MEMORY_MIN).expect("memory");
    let config = DevicesConfig { mac: None, mtu: 1500 };
    let machine = Machine::new(ScriptedCpu::new(memory.clone(), 0), memory, &config);
    let mut store = PageStore::open(&dir.join("snapshots")).expect("a store");
    for (position, segment, page) in [(0, FIRST, 1), (30, FIRST + 1, 2)] {
        machine.memory().write_page(page, &[7; PAGE_SIZE]);
        let state = MachineState { position: Position(position), ..machine.save().expect("a state") };
        let digests = PageDigests::of(machine.memory());
        let parts = SnapshotParts { state: &state, digests: &digests, taken: 1_700_000_000, segment };
        store.write(&parts, machine.memory()).expect("a snapshot");
    }
}

/// The number of a recording's first segment.
const FIRST: u64 = 0;

fn everything_of(dir: &Path) -> InspectArgs {
    InspectArgs {
        recording: dir.to_owned(),
        from: 0,
        to: u64::MAX,
        events: false,
        snapshots: false,
        verify: false,
        json: true,
    }
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

/// Its pages are no rows of their own.
#[test]
fn a_delta_is_one_row() {
    let memory = Memory::new(MEMORY_MIN).expect("memory");
    let config = DevicesConfig { mac: None, mtu: 1500 };
    let machine = Machine::new(ScriptedCpu::new(memory.clone(), 0), memory, &config);
    let state = MachineState { position: Position(8), ..machine.save().expect("a state") }.to_bytes();
    let mut pages = Pages::default();
    let mut row = |what| Row::new(Stamped { at: Position(7), what }, &mut pages).map(|row| row.to_string());
    assert_eq!(row(Record::Page { page: 1, contents: &[1; PAGE_SIZE] }), None);
    assert_eq!(row(Record::Page { page: 2, contents: &[] }), None);
    let bytes = PAGE_SIZE + state.len();
    let delta = Record::Delta { cause: Cause::Quantum, state: &state };
    assert_eq!(
        row(delta).expect("a row"),
        format!("             7  delta      {bytes:>6}  to 8, 2 pages, quantum")
    );
    assert!(row(delta).expect("a row").ends_with(" 0 pages, quantum"));
}

#[test]
fn a_range_holds_both_its_ends_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("recording");
    recording(&dir);
    let recording = Recording::open(&dir).expect("a recording");
    let rows = |from, to| {
        let (mut rows, mut pages) = (Vec::new(), Pages::default());
        let range = Range { from: Position(from), to: Position(to) };
        read(&recording, range, |visit| {
            if let Visit::Record(record) = visit {
                rows.extend(Row::new(record, &mut pages).map(|row| row.to_string()));
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
    let found = damaged.iter().map(|damage| Found::new(damage, damage.hint())).collect();
    assert_eq!(report(found).expect_err("damage").exit(), Exit::Corrupt);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Flips a bit in the middle of a file.
fn spoil(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    fs::write(path, bytes).expect("a file");
}

#[test]
fn snapshots_are_listed_with_what_they_take() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("recording");
    recording(&dir);
    snapshots(&dir);
    let opened = Snapshots::open(&dir.join("snapshots")).expect("a store");
    let listing = Listing::of(&opened, everything()).expect("a listing");
    let positions: Vec<_> = listing.snapshots.iter().map(|row| (row.position.0, row.segment)).collect();
    assert_eq!(positions, [(0, FIRST), (30, FIRST + 1)]);
    let holds: Vec<_> = listing.snapshots.iter().map(|row| row.holds.expect("whole")).collect();
    // The second page has the content of the first.
    assert_eq!(
        [(holds[0].pages, holds[0].new_pages), (holds[1].pages, holds[1].new_pages)],
        [(1, 1), (2, 0)]
    );
    assert_eq!(listing.content_bytes, 3 * PAGE_SIZE as u64);
    assert!(holds.iter().all(|holds| (1..listing.stored_bytes).contains(&holds.own_bytes)), "{listing:?}");
    let text = listing.to_string();
    assert!(text.contains("            30  2023-11-14T22:13:20Z"), "{text}");
    assert_eq!(serde_json::to_value(&listing).expect("JSON")["snapshots"][1]["new_pages"], 0);
    let end = Range { from: Position(1), to: Position(30) };
    assert_eq!(Listing::of(&opened, end).expect("a listing").snapshots, listing.snapshots[1..]);
    drop(opened);
    assert_eq!(run(&InspectArgs { snapshots: true, ..everything_of(&dir) }).expect("whole"), Exit::Done);

    fs::write(dir.join("snapshots/manifests/00000000000000000030.snapshot"), "nothing").expect("a file");
    let args = InspectArgs { snapshots: true, ..everything_of(&dir) };
    assert_eq!(run(&args).expect_err("damage").exit(), Exit::Corrupt);
}

#[test]
fn every_damaged_thing_is_named_and_what_can_be_replayed_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("recording");
    recording(&dir);
    snapshots(&dir);
    let verdict = || Verdict::of(&Recording::open(&dir).expect("a recording")).expect("a verdict");
    let stretches = |verdict: &Verdict| -> Vec<(u64, u64)> {
        verdict.replayable.iter().map(|stretch| (stretch.from.0, stretch.to.0)).collect()
    };
    let whole = verdict();
    assert!(whole.damaged.is_empty(), "{whole:?}");
    assert_eq!((whole.segments, whole.batches, whole.snapshots.len()), (1, 3, 2));
    assert_eq!(stretches(&whole), [(0, 30)]);
    assert!(
        whole.to_string().ends_with("damaged         nothing\nreplayable      positions 0 to 30"),
        "{whole}"
    );
    assert_eq!(run(&InspectArgs { verify: true, ..everything_of(&dir) }).expect("whole"), Exit::Done);

    let pack = dir.join("snapshots/packs/00000000.pack");
    let segment = dir.join(format!("segments/{FIRST:08}.seg"));
    let kept = [&pack, &segment].map(|path| fs::read(path).expect("a file"));
    spoil(&pack);
    let spoilt = verdict();
    assert!(spoilt.damaged.iter().all(|found| found.what.contains("00000000.pack")), "{spoilt:?}");
    assert!(!spoilt.damaged.is_empty() && spoilt.snapshots.len() < 2, "{spoilt:?}");
    spoil(&segment);
    fs::write(dir.join("writer"), "nobody").expect("a file");
    let both = verdict();
    assert_eq!(both.damaged.len(), spoilt.damaged.len() + 2, "{both:?}");
    let failure = run(&InspectArgs { verify: true, ..everything_of(&dir) }).expect_err("damage");
    assert_eq!(failure.exit(), Exit::Corrupt);
    fs::remove_file(dir.join("writer")).expect("a file");

    // With its snapshots whole, the log can be replayed as far as it is.
    fs::write(&pack, &kept[0]).expect("a file");
    let log = verdict();
    let [found] = &log.damaged[..] else { panic!("{log:?}") };
    assert!(found.what.contains(".seg: byte "), "{found:?}");
    let [(0, to)] = stretches(&log)[..] else { panic!("{log:?}") };
    assert!(to < 30 && log.batches < 3, "{log:?}");
    let json = serde_json::to_value(&log).expect("JSON");
    assert_eq!(json["replayable"][0]["to"], to);
    assert!(json["damaged"][0]["hint"].is_string(), "{json}");

    // Without the beginning nothing can be.
    fs::write(&segment, &kept[1]).expect("a file");
    fs::remove_file(dir.join("snapshots/manifests/00000000000000000000.snapshot")).expect("a file");
    let late = verdict();
    assert!(late.damaged.is_empty() && late.replayable.is_empty(), "{late:?}");
    assert!(late.to_string().ends_with("replayable      nothing"), "{late}");
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = folder.path().join("none");
    let args = |from, to| InspectArgs { from, to, events: true, ..everything_of(&none) };
    assert_eq!(run(&args(2, 1)).expect_err("no range").exit(), Exit::Usage);
    let failure = run(&args(0, 1)).expect_err("no recording");
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(failure.to_string().contains("holds no recording\nhint: "), "{failure}");
}
