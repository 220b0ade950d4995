//! Writes the seeds: what each fuzz target begins with. `cargo run --example seeds`, in this directory.
//!
//! Most of them are the golden files of the formats, without the layers that the targets put around them.

use std::{fs, path::PathBuf};

use echovisor_event::{Digest, Nanos, NodeId, Position, Term, VmId, limits::MEMORY_MIN};
use echovisor_fuzz::{
    Columns,
    guest::{Guest, table},
    join, stored,
};
use echovisor_log::{
    limits::VERSION,
    link::{Fingerprint, Hello, Link, Message, Resume, SyncBegin, Welcome},
};
use echovisor_machine::{
    MachineConfig, MachineState, Trail,
    cpu::{CpuState, scripted::ScriptedState},
};
use echovisor_snapshot::{IMAGE_VERSION, Image, store::STORE_VERSION};
use echovisor_tools::control::{Role, Status};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

#[allow(dead_code, reason = "it serves the machine's own tests")]
#[path = "../../machine/tests/elf_file/mod.rs"]
mod elf_file;

fn main() {
    messages();
    let segment = Segment::read(&golden("segment"));
    batches(&segment);
    recording(&segment);
    image();
    store();
    elf();
    devices();
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A golden file of the log's formats.
fn golden(name: &str) -> Vec<u8> {
    read(&format!("../log/tests/golden/v{VERSION}/{name}"))
}

/// A golden file of the page store's.
fn of_store(name: &str) -> Vec<u8> {
    read(&format!("../snapshot/tests/golden/v{STORE_VERSION}/{name}"))
}

fn read(path: &str) -> Vec<u8> {
    let path = root().join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let dir = root().join("seeds").join(target);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(name), bytes).expect("a file");
}

/// An input with parts, each with a first byte that says what it is.
fn tagged(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = parts.iter().map(|(tag, bytes)| [&[*tag][..], bytes].concat()).collect();
    join(parts.iter().map(Vec::as_slice))
}

fn messages() {
    // As the target's own sides expect their peers to be.
    let fingerprint = Fingerprint { text: "cpu: a".into(), digest: Digest([1; 32]) };
    let hello = Hello {
        vm: Some(VmId([2; 16])),
        term: Term(5),
        resume: Some(Resume { segment: 4, sequence: 500 }),
        suspicion_ms: 500,
        ..Hello::new(NodeId([4; 16]), fingerprint)
    };
    let welcome = Welcome {
        version: VERSION,
        vm: VmId([2; 16]),
        node: NodeId([3; 16]),
        term: Term(5),
        fingerprint: Digest([1; 32]),
        resumed: false,
    };
    let config = MachineConfig {
        memory: MEMORY_MIN,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        guest: "kv".into(),
        arguments: "ip=10.0.0.2/24".into(),
        program: Digest([7; 32]),
    };
    let begin = SyncBegin {
        position: Position(9),
        memory: MEMORY_MIN,
        root: Digest([9; 32]),
        digest: Digest([8; 32]),
        config: config.to_bytes(),
        state: Vec::new(),
    };
    let golden = golden("messages");
    let rest = frames(&golden);
    for (listener, name, first) in [
        (0, "primary", vec![Message::Hello(hello)]),
        (1, "secondary", vec![Message::Welcome(welcome), Message::SyncBegin(begin)]),
    ] {
        let stream = stream(&first);
        let first = frames(&stream);
        let all = tagged(&[first, rest.clone()].concat());
        seed("messages", name, &[&[listener][..], &all].concat());
        seed("messages", &format!("{name}-raw"), &[&[listener + 2][..], &stream, &golden].concat());
    }
    seed("messages", "arbiter", &[&[4][..], &self::golden("arbiter.json")].concat());
    for (name, line) in [
        ("control-status", br#"{"command":"status"}"#.to_vec()),
        ("control-stop", br#"{"command":"stop"}"#.to_vec()),
        ("control-promote", br#"{"command":"promote"}"#.to_vec()),
        ("control-answer", serde_json::to_vec(&Status::new(Role::Primary)).expect("a status is JSON")),
    ] {
        seed("messages", name, &[&[5][..], &line].concat());
    }
}

/// Messages as they stand on the wire.
fn stream(messages: &[Message<'_>]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (here, mut there) = tokio::io::duplex(1 << 16);
        let mut link = Link::new(tokio::io::empty(), here);
        messages.iter().for_each(|message| link.sender.queue(message).expect("a message"));
        link.sender.flush().await.expect("room");
        drop(link);
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut there, &mut bytes).await.expect("what was written");
        bytes
    })
}

/// Kind and body of each message of a stream.
fn frames(mut stream: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = stream.split_first_chunk() {
        let (body, after) = rest[1..].split_at(u32::from_le_bytes(*len) as usize);
        frames.push((rest[0], body));
        stream = after;
    }
    frames
}

/// What stands in a segment's file.
struct Segment {
    header: Vec<u8>,
    bodies: Vec<Vec<u8>>,
    archived: Vec<Vec<u8>>,
    trailer: Vec<u8>,
}

impl Segment {
    fn read(file: &[u8]) -> Segment {
        let len = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let mut at = 48 + len(12) as usize;
        let header = file[48..at].to_vec();
        let (mut bodies, mut archived) = (Vec::new(), Vec::new());
        let mut decoder = Decoder::new().expect("memory");
        loop {
            let body = &file[at + 24..at + 24 + (len(at) & !(1 << 31)) as usize];
            if len(at) >> 31 == 1 {
                return Segment { header, bodies, archived, trailer: body.to_vec() };
            }
            let mut raw = vec![0; 1 << 20];
            let mut output = OutBuffer::around(&mut raw[..]);
            let mut input = InBuffer::around(body);
            while input.pos() < body.len() {
                decoder.run(&mut input, &mut output).expect("a good body");
            }
            let len = output.pos();
            raw.truncate(len);
            archived.push(raw);
            bodies.push(body.to_vec());
            at += 24 + body.len();
        }
    }
}

fn batches(segment: &Segment) {
    let bytes = |parts: &[Vec<u8>]| join(parts.iter().map(Vec::as_slice));
    // The target's segment begins at 0, in term 1: another head.
    let columns = columns(segment);
    let whole: Vec<Vec<u8>> = columns.iter().map(Columns::archived).collect();
    seed("batches", "archived", &[&[1][..], &bytes(&whole)].concat());
    let mut stream = echovisor_fuzz::Stream::new();
    let bodies: Vec<Vec<u8>> = whole.iter().map(|archived| stream.body(archived)).collect();
    seed("batches", "bodies", &[&[0][..], &bytes(&bodies)].concat());
    let parts: Vec<Vec<u8>> = columns.iter().flat_map(|columns| columns.columns.clone()).collect();
    seed("batches", "columns", &[&[2][..], &bytes(&parts)].concat());
}

/// The columns of the golden batches, with heads as they are at the beginning of a log.
fn columns(segment: &Segment) -> Vec<Columns> {
    let read = |(sequence, archived): (usize, &Vec<u8>)| {
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(archived);
        let archived =
            rkyv::access::<rkyv::Archived<Columns>, rkyv::rancor::Error>(&aligned).expect("a good batch");
        let mut columns = Columns { columns: archived.columns.each_ref().map(|column| column.to_vec()) };
        let (span, unreleased, trail_lag, trail) = (100, 5, 1, 9);
        columns.columns[Columns::COUNT - 1] =
            vec![sequence as u8, span, unreleased, trail_lag, trail, trail, trail, trail];
        columns
    };
    segment.archived.iter().enumerate().map(read).collect()
}

fn recording(segment: &Segment) {
    let header_file = golden("header");
    let header = &header_file[48..];
    let named = [&[3][..], &segment.header].concat();
    let mut parts: Vec<(u8, &[u8])> = vec![(0, header), (1, &named)];
    parts.extend(segment.archived.iter().map(|archived| (2, archived.as_slice())));
    parts.push((5, &[0, 1, 2, 3]));
    seed("recording", "torn", &tagged(&parts));
    parts.pop();
    parts.push((4, &segment.trailer));
    let (term, checkpoint) = (
        [0, 0, 0, 0, 0, 0, 0, 2],
        [[0; 8], [0x44; 8], [0x44; 8], [0x44; 8], [0x44; 8], [0, 0, 0, 0, 0, 0, 0, 3]].concat(),
    );
    parts.extend([(7, checkpoint.as_slice()), (8, &term[..])]);
    seed("recording", "sealed", &tagged(&parts));
    let bodies: Vec<(u8, &[u8])> = segment.bodies.iter().map(|body| (3, body.as_slice())).collect();
    seed("recording", "bodies", &tagged(&[&[(0, header), (1, &named)], &bodies[..]].concat()));
}

fn image() {
    for name in ["kvm", "scripted"] {
        let image = read(&format!("../snapshot/tests/golden/v{IMAGE_VERSION}/{name}.image"));
        seed("image", &format!("{name}-whole"), &[&[0][..], &image].concat());
        let body = zstd::decode_all(&image[20..]).expect("a good image");
        seed("image", name, &[&[1][..], &body].concat());
    }
    // A guest whose network device works and has buffers for what comes.
    let mut guest = Guest::new();
    guest.bring_up(8);
    for head in 0..4 {
        let at = table(0) + 16 * u64::from(head);
        guest.put(at, &[[0, 0, 0x40, 0, 0, 0, 0, 0], [0, 8, 0, 0, 2, 0, 0, 0]].concat());
        guest.offer(0, head);
    }
    let state = MachineState {
        position: Position(1234),
        trail: Trail(1),
        clock: Nanos(5_000_000_000),
        idle: Some(Nanos(6_000_000_000)),
        powered_off: None,
        cpu: CpuState::Scripted(ScriptedState { pc: 0x20_0000, registers: Default::default() }),
        devices: guest.devices.save(),
    };
    let image = Image::capture(&guest.memory, state).to_bytes().expect("a small guest");
    let body = zstd::decode_all(&image[20..]).expect("a good image");
    seed("image", "network", &[&[1][..], &body].concat());
}

fn store() {
    let (pack, manifest) = (of_store("store.pack"), of_store("store.snapshot"));
    // The position of the golden snapshot, which its file is named after.
    let manifest = [&[7][..], &manifest[48..]].concat();
    let objects: Vec<Vec<u8>> = stored::records(&pack)
        .into_iter()
        .map(|(kind, compressed, body)| match compressed {
            false => [&[kind][..], body].concat(),
            true => {
                [&[kind | 0x80][..], &zstd::bulk::decompress(body, 1 << 20).expect("a good body")].concat()
            }
        })
        .collect();
    let objects: Vec<(u8, &[u8])> = objects.iter().map(|object| (1, object.as_slice())).collect();
    seed("store", "objects", &tagged(&[&[(0, manifest.as_slice())], &objects[..]].concat()));
    let raw = &pack[stored::PACK.len()..];
    seed("store", "raw", &tagged(&[(0, manifest.as_slice()), (3, raw)]));
    let half = objects.len() / 2;
    let packs = [&objects[..half], &[(4, &[1][..])], &objects[half..], &[(6, &[0; 16][..])]].concat();
    seed("store", "packs", &tagged(&[&packs[..], &[(0, manifest.as_slice())]].concat()));
}

fn elf() {
    use elf_file::{Segment, code, file};
    seed("elf", "code", &code(&[0x90, 0xf4]));
    let segments = [
        Segment { address: 0x20_0000, bytes: vec![0x90; 64], executable: true },
        Segment { address: 0x20_1000, bytes: b"data".to_vec(), executable: false },
    ];
    seed("elf", "symbols", &file(&segments, 0x20_0004, &[0x20_0000, 0x20_0010, 0x20_0030]));
    seed("elf", "rdtsc", &code(&[0x0f, 0x31]));
}

fn devices() {
    // Brings the device up, offers a buffer and a frame, rings, receives; types something.
    let driver = [
        &[11, 3][..],
        &[0x07, 0, 0, 0, 0, 0x00, 0x08, 2, 0, 0], // receive: one buffer of 2048 bytes
        &[8, 0, 0],
        &[0x07, 1, 0, 0, 0x20, 72, 0, 0, 0, 0], // transmit: 72 bytes
        &[8, 1, 0],
        &[12],
        &[9, 60, 0],
        &[10, 3],
        &[1, 0],
    ]
    .concat();
    seed("devices", "driver", &driver);
    // A chain, and a table of descriptors elsewhere.
    let chains = [
        &[11, 4][..],
        &[0x07, 1, 0, 0, 0x20, 12, 0, 1, 0, 1],
        &[0x07, 1, 1, 0, 0x30, 60, 0, 0, 0, 0],
        &[0x07, 1, 2, 0, 0x40, 32, 0, 4, 0, 0],
        &[8, 1, 0],
        &[8, 1, 2],
        &[12],
    ]
    .concat();
    seed("devices", "chains", &chains);
    // The bus: address register, then reads and writes of the data register.
    let bus = [
        &[0x20, 1, 0x10, 0x08, 0, 0x80][..],
        &[0x20, 2, 0xff, 0xff, 0xff, 0xff],
        &[0x21, 2],
        &[0x20, 1, 0x04, 0x08, 0, 0x80],
        &[0x10, 2, 6, 4],
        &[0x21, 10],
    ]
    .concat();
    seed("devices", "bus", &bus);
}
