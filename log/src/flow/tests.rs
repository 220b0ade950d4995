//! Every frame comes out as it went in, and those of a connection cost little.

use echovisor_event::{Event, Position, Term};
use proptest::{collection::vec, prelude::*};

use super::{
    FLOWS_MAX,
    tcp::{Segment, tcp_frame},
};
use crate::{Batch, Decoder, Encoder, Mark, Record, SegmentStart};

/// Encodes frames as batches of one, decodes and compares; returns how many bytes each took in the columns.
fn round_trip(frames: &[Vec<u8>]) -> Vec<usize> {
    let start = SegmentStart::first(Term(1));
    let (mut encoder, mut decoder) = (Encoder::new(start), Decoder::new(start));
    let (mut batch, mut decoded) = (Batch::new(), Batch::new());
    let mut empty = 0;
    let mut sizes = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        batch.clear();
        if index == 0 {
            encode(&mut encoder, &mut decoder, &batch, &mut decoded);
            empty = encoder.raw_len();
        }
        batch.push(Position::BOOT, Record::Event(Event::Frame(frame))).unwrap();
        encode(&mut encoder, &mut decoder, &batch, &mut decoded);
        sizes.push(encoder.raw_len() - empty);
    }
    sizes
}

fn encode(encoder: &mut Encoder, decoder: &mut Decoder, batch: &Batch, decoded: &mut Batch) {
    let encoded = encoder.encode(batch, Mark::default()).unwrap();
    decoder.decode(encoded.body, decoded).unwrap();
    assert!(batch.records().eq(decoded.records()));
}

/// A frame from this port, whose other fields follow from `number` as in a connection that sends 10 bytes each time.
fn frame(port: u16, number: u32) -> Vec<u8> {
    frame_with(port, number, b"0123456789")
}

fn frame_with(port: u16, number: u32, data: &[u8]) -> Vec<u8> {
    tcp_frame(port, 100 + 10 * number, 7 + 5 * number, number as u16, data)
}

#[test]
fn frames_of_a_connection_cost_what_is_new_in_their_data() {
    let different = [b"abcdefghij", b"klmnopqrst", b"uvwxyzabcd", b"efghijklmn", b"opqrstuvwx"];
    let alike = [b"key:000001", b"key:000012", b"key:000023", b"key:000034", b"key:000045"];
    for (data, new) in [(different, 10), (alike, 2)] {
        let frames: Vec<_> = (0..).zip(data).map(|(number, data)| frame_with(1, number, data)).collect();
        let sizes = round_trip(&frames);
        assert!(sizes[0] > 64 && sizes[1] < 24, "{sizes:?}");
        // Beside what is new: mask, flow, length, what is repeated at both ends, code and steps. Alignment blurs it by three bytes.
        assert!(sizes[2..].iter().all(|size| (new + 6..new + 11).contains(size)), "{sizes:?}");
    }
}

#[test]
fn a_request_is_remembered_across_what_is_not() {
    // What is longer than 512 bytes is not remembered, nor is a bare acknowledgement; nor do they make the last request forgotten.
    let sizes = [1000, 1000, 300, 300, 0, 300, 1000, 300, 512, 512, 513, 513, 512];
    let frames: Vec<_> =
        (0..).zip(sizes).map(|(number, size)| frame_with(1, number, &vec![7; size])).collect();
    let costs = round_trip(&frames);
    let whole: Vec<_> = (0..sizes.len()).filter(|index| costs[*index] > 40).collect();
    // Of 1000 bytes and of 512, 300 are known; of 513, 512.
    assert_eq!(whole, [0, 1, 2, 6, 8], "{costs:?}");
}

#[test]
fn wrong_checksums_survive() {
    let mut frames: Vec<_> = (0..6).map(|number| frame(1, number)).collect();
    frames[2][51] ^= 1;
    frames[3][25] ^= 1;
    frames[4][51] = 0;
    frames[4][50] = 0;
    round_trip(&frames);
}

#[test]
fn checksums_of_all_ones_survive() {
    // A receiver takes all ones for all zeros, so both are right where the rest sums up to all ones.
    for (field, checksum) in [(18..20, 24..26), (40..42, 50..52)] {
        let mut frames: Vec<_> = (0..4).map(|number| frame(1, number)).collect();
        for ones in [0, 0xff] {
            let frame = &mut frames[if ones == 0 { 1 } else { 2 }];
            frame[field.clone()].fill(0);
            super::tcp::mend(frame);
            frame.copy_within(checksum.clone(), field.start);
            super::tcp::mend(frame);
            assert_eq!(frame[checksum.clone()], [0, 0]);
            frame[checksum.clone()].fill(ones);
        }
        round_trip(&frames);
    }
}

#[test]
fn more_connections_than_there_is_room_for() {
    let ports = FLOWS_MAX as u16 + 10;
    let frames: Vec<_> = (0..3).flat_map(|number| (1..ports).map(move |port| frame(port, number))).collect();
    let sizes = round_trip(&frames);
    // Each one was forgotten before it came again.
    assert!(sizes.iter().all(|size| *size > 60));
    let ports = FLOWS_MAX as u16;
    let frames: Vec<_> = (0..3).flat_map(|number| (0..ports).map(move |port| frame(port, number))).collect();
    let sizes = round_trip(&frames);
    assert!(sizes[2 * usize::from(ports)..].iter().all(|size| *size < 24));
}

proptest! {
    #[test]
    fn every_frame_survives(
        changes in vec(
            (0u16..3, 0u32..4, prop_oneof![0usize..40, 500usize..520], vec((0usize..80, any::<u8>()), 0..3), any::<bool>(), 0usize..70),
            1..40,
        ),
    ) {
        let frames: Vec<_> = changes
            .into_iter()
            .map(|(port, number, data, changes, mend, cut)| {
                let mut frame = frame_with(port, number, &vec![number as u8; data]);
                for (at, byte) in changes {
                    if let Some(changed) = frame.get_mut(at) {
                        *changed = byte;
                    }
                }
                if mend {
                    super::tcp::mend(&mut frame);
                }
                let len = frame.len();
                frame.truncate(len - cut.saturating_sub(60).min(len));
                frame
            })
            .collect();
        round_trip(&frames);
    }

    #[test]
    fn every_byte_sequence_can_be_parsed(bytes in vec(any::<u8>(), 0..100)) {
        let _ = Segment::parse(&bytes);
    }
}
