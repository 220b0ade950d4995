//! Recordings that are written as a recorder does, and looked at.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use echovisor_event::{Digest, Event, Nanos, Position, Term, VmId};
use echovisor_log::{
    Batch, Encoder, Mark, Record,
    link::Fingerprint,
    store::{Damage, Header, Recording, Store, StoreError},
};

use crate::synthetic::{Clients, Value};

pub(crate) fn header() -> Header {
    let fingerprint = Fingerprint { text: "cpu: made up\nkvm: none".to_owned(), digest: Digest([1; 32]) };
    Header { vm: VmId([7; 16]), fingerprint, guest: Digest([2; 32]), machine: vec![3; 100] }
}

/// Writes segments of batches into a store as a recorder does.
pub(crate) struct Recorder {
    pub(crate) store: Store,
    pub(crate) encoder: Encoder,
    pub(crate) clients: Clients,
    batch: Batch,
    pub(crate) at: Position,
}

impl Recorder {
    pub(crate) fn new(mut store: Store, term: Term) -> Recorder {
        let start = store.next_start(term);
        store.begin(&start).unwrap();
        let clients = Clients::new(2, Value::Digits, false);
        Recorder { store, encoder: Encoder::new(start), clients, batch: Batch::new(), at: start.position }
    }

    pub(crate) fn batch(&mut self) {
        self.batch.clear();
        self.at = self.at.next();
        self.batch.push(self.at, Record::Event(Event::Clock(Nanos(self.at.0 * 1000)))).unwrap();
        self.batch.push(self.at, Record::Event(Event::Frame(&self.clients.frame()))).unwrap();
        if self.at.0.is_multiple_of(3) {
            self.batch.push(self.at, Record::Checkpoint).unwrap();
            let digest = Digest([self.at.0 as u8; 32]);
            self.batch.push(self.at, Record::Digest { of: self.at, digest }).unwrap();
        }
        let encoded =
            self.encoder.encode(&self.batch, Mark { watermark: self.at, ..Mark::default() }).unwrap();
        self.store.append(&encoded.head, self.batch.digests(), encoded.body).unwrap();
    }

    pub(crate) fn stop(&mut self) {
        self.batch.clear();
        self.batch.push(self.at, Record::Stop).unwrap();
        let mark = Mark { watermark: self.at, ..Mark::default() };
        let encoded = self.encoder.encode(&self.batch, mark).unwrap();
        self.store.append(&encoded.head, self.batch.digests(), encoded.body).unwrap();
    }

    pub(crate) fn segment(&mut self, term: Term) {
        let start = self.encoder.next_segment(term);
        self.store.begin(&start).unwrap();
    }
}

/// A recording with three segments of four batches, sealed.
pub(crate) fn recorded(dir: &Path) -> Recorder {
    let mut recorder = Recorder::new(Store::create(dir, &header()).unwrap(), Term(1));
    for segment in 0..3 {
        if segment > 0 {
            recorder.segment(Term(1));
        }
        (0..4).for_each(|_| recorder.batch());
    }
    recorder
}

/// Reads a segment; returns the watermarks of its batches, and what stopped the reading.
pub(crate) fn read(recording: &Recording, segment: u64) -> (Vec<u64>, Option<Box<Damage>>) {
    let mut reader = match recording.read(segment) {
        Ok(reader) => reader,
        Err(StoreError::Damage(damage)) => return (Vec::new(), Some(damage)),
        Err(error) => panic!("{error}"),
    };
    let mut batch = Batch::new();
    let mut watermarks = Vec::new();
    loop {
        match reader.next(&mut batch) {
            Ok(Some(head)) => {
                assert!(batch.records().all(|record| record.at == head.mark.watermark));
                watermarks.push(head.mark.watermark.0);
            }
            Ok(None) => return (watermarks, None),
            Err(damage) => return (watermarks, Some(damage)),
        }
    }
}

pub(crate) fn segment_file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segments/{number:08}.seg"))
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Length of a segment file's header: its envelope says it.
pub(crate) fn header_len(file: &[u8]) -> usize {
    48 + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize
}

/// Where the batches of a segment's file end.
pub(crate) fn record_ends(file: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = header_len(file);
    while at < file.len() {
        let len = u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        if len >> 31 == 1 {
            break;
        }
        at += 24 + len as usize;
        ends.push(at);
    }
    ends
}
