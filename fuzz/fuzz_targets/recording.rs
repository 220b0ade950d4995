//! Recordings: the header, segments and index that lie in a directory.
//!
//! Each part of the input is one thing of the recording; its first byte says which.

#![no_main]

use std::{fs, path::Path};

use echovisor_fuzz::{Stream, envelope, parts, record};
use echovisor_log::{
    Batch,
    store::{Recording, Store},
};
use echovisor_machine::MachineConfig;
use libfuzzer_sys::fuzz_target;

/// The kinds of parts; see [`lay_out`].
const HEADER: u8 = 0;
const SEGMENT: u8 = 1;
const ARCHIVED: u8 = 2;
const BODY: u8 = 3;
const TRAILER: u8 = 4;
const BYTES: u8 = 5;
const INDEX: [(u8, &str, usize); 3] = [(6, "segments", 8), (7, "checkpoints", 8), (8, "terms", 8)];

/// Marks the trailer, in its length.
const TRAILER_FLAG: u32 = 1 << 31;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    lay_out(dir.path(), data);
    read(dir.path());
    // Whoever continues it cuts it behind its last whole batch.
    if let Ok(store) = Store::open(dir.path()) {
        drop(store);
        let recording = Recording::open(dir.path()).expect("what can be continued can be read");
        if let Some(last) = recording.segments().last() {
            assert!(last.sealed);
        }
        drop(recording);
        read(dir.path());
    }
});

/// Writes the files that the input tells.
fn lay_out(dir: &Path, data: &[u8]) {
    fs::create_dir_all(dir.join("segments")).expect("a directory");
    let mut index: Option<sled::Db> = None;
    let mut segment = Vec::new();
    let mut number = 0;
    let mut stream = Stream::new();
    let flush = |number: u8, segment: &[u8]| {
        fs::write(dir.join(format!("segments/{number:08}.seg")), segment).expect("a file");
    };
    for (kind, rest) in parts(data).filter_map(<[u8]>::split_first) {
        match *kind {
            HEADER => fs::write(dir.join("header"), envelope(b"ECHOHEAD", rest)).expect("a file"),
            SEGMENT => {
                if !segment.is_empty() {
                    flush(number, &segment);
                }
                let Some((next, header)) = rest.split_first() else { continue };
                (number, segment, stream) = (*next, envelope(b"ECHOSEGM", header), Stream::new());
            }
            ARCHIVED => segment.extend(record(0, &stream.body(rest))),
            BODY => segment.extend(record(0, rest)),
            TRAILER => segment.extend(record(TRAILER_FLAG, rest)),
            BYTES => segment.extend(rest),
            kind => {
                let Some((_, tree, key)) = INDEX.iter().find(|(known, ..)| *known == kind) else { continue };
                let index = index.get_or_insert_with(|| {
                    let config = sled::Config::new().path(dir.join("index")).flush_every_ms(None);
                    config.open().expect("an index")
                });
                let (key, value) = rest.split_at(rest.len().min(*key));
                index.open_tree(tree).expect("a tree").insert(key, value).expect("an entry");
            }
        }
    }
    if !segment.is_empty() {
        flush(number, &segment);
    }
}

/// Reads all that there is.
fn read(dir: &Path) {
    let recording = match Recording::open(dir) {
        Ok(recording) => recording,
        Err(error) => return drop((error.to_string(), error.hint().map(str::to_owned))),
    };
    let _ = MachineConfig::from_bytes(&recording.header().machine);
    let mut batch = Batch::new();
    for segment in recording.segments() {
        let Ok(mut reader) = recording.read(segment.start.segment) else { continue };
        loop {
            match reader.next(&mut batch) {
                Ok(Some(head)) => assert!(head.from <= head.mark.watermark),
                Ok(None) => break,
                Err(damage) => {
                    let _ = damage.to_string();
                    assert!(matches!(reader.next(&mut batch), Ok(None)), "nothing is read behind damage");
                    break;
                }
            }
        }
    }
}
