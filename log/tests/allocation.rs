//! The vCPU thread fills batches; it must not wait for an allocator.

mod synthetic;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use echovisor_event::{Event, Nanos, Position, Term, limits::FRAME_MAX};
use echovisor_log::{Batch, Decoder, Encoder, Mark, Record, SegmentStart};
use synthetic::{Clients, Value};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count() -> usize {
    COUNT.get()
}

// SAFETY: every call is passed on to the system's allocator as it is; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn filling_a_batch_allocates_nothing() {
    let mut batch = Batch::new();
    let frame = vec![1; FRAME_MAX];
    let before = count();
    for round in 0..10 {
        batch.clear();
        while batch.push(Position(round), Record::Event(Event::Frame(&frame))).is_ok() {}
        batch.clear();
        while batch.push(Position(round), Record::Event(Event::Clock(Nanos(round)))).is_ok() {}
    }
    assert_eq!(count() - before, 0);
}

#[test]
fn encoding_and_decoding_allocate_nothing_in_the_long_run() {
    let start = SegmentStart::first(Term(1));
    let (mut encoder, mut decoder) = (Encoder::new(start), Decoder::new(start));
    let (mut batch, mut decoded) = (Batch::new(), Batch::new());
    let mut clients = Clients::new(20, Value::Digits, true);
    let frames: Vec<Vec<Vec<u8>>> = (0..400).map(|_| (0..16).map(|_| clients.frame()).collect()).collect();
    let mut before = 0;
    for (round, frames) in frames.iter().enumerate() {
        if round == 300 {
            before = count();
        }
        batch.clear();
        let at = Position(round as u64);
        frames.iter().for_each(|frame| batch.push(at, Record::Event(Event::Frame(frame))).unwrap());
        let encoded = encoder.encode(&batch, Mark { watermark: at, ..Mark::default() }).unwrap();
        decoder.decode(encoded.body, &mut decoded).unwrap();
    }
    assert_eq!(count() - before, 0);
}
