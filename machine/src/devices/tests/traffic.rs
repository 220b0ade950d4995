//! Frames that come and go.

use echovisor_event::limits::{BURST_MAX, FRAME_MAX};
use vm_memory::{Bytes as _, GuestAddress};

use super::{
    super::DeliveryError,
    guest::{
        Guest, ISR, NEXT, NOTIFY, RECEIVE, STATUS, Said, TRANSMIT, WRITE, available, buffer, frame, used,
    },
};

/// The header before every received frame: `num_buffers` is 1.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn a_sent_frame_is_an_effect() {
    let mut guest = Guest::ready(16);
    let frames = [frame(14, 1), frame(60, 2), frame(1514, 3), frame(FRAME_MAX, 4)];
    for (index, frame) in frames.iter().enumerate() {
        guest.offer_frame(index as u16, frame);
    }
    assert!(guest.effects.is_empty(), "nothing leaves before the doorbell");
    guest.doorbell();
    assert_eq!(guest.effects, frames.map(Said::Frame));
    assert_eq!(guest.used(TRANSMIT), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    assert_eq!(guest.read(ISR, 1), 1);
    guest.doorbell();
    assert_eq!(guest.effects.len(), 4);
    assert_eq!(guest.read(ISR, 1), 0, "an idle doorbell signals nothing");
    assert_eq!(guest.devices.fault(), None);
}

#[test]
fn a_kick_sends_too() {
    let mut guest = Guest::ready(16);
    guest.offer_frame(3, &frame(60, 1));
    guest.write(NOTIFY, 2, 0);
    assert!(guest.effects.is_empty(), "that was the receive queue");
    guest.write(NOTIFY + 4, 2, 1);
    assert_eq!(guest.effects, [Said::Frame(frame(60, 1))]);
}

#[test]
fn a_frame_may_lie_in_many_buffers() {
    let mut guest = Guest::ready(16);
    let sent = frame(100, 7);
    let mut packet = vec![0; 12];
    packet.extend(&sent);
    // The header and the frame both go across buffers, and the descriptors are in no order.
    let parts = [(5, 7), (2, 9), (11, 1), (0, 95)];
    let mut rest = packet.as_slice();
    for (at, (index, length)) in parts.into_iter().enumerate() {
        let (part, later) = rest.split_at(length);
        rest = later;
        let address = buffer(TRANSMIT, index) + 3;
        guest.memory.mmap().write_slice(part, GuestAddress(address)).unwrap();
        let next = parts.get(at + 1);
        let flags = if next.is_some() { NEXT } else { 0 };
        guest.describe(TRANSMIT, index, address, length as u32, flags, next.map_or(0, |next| next.0));
    }
    guest.offer(TRANSMIT, 5);
    guest.doorbell();
    assert_eq!(guest.effects, [Said::Frame(sent)]);
    assert_eq!(guest.used(TRANSMIT), [(5, 0)]);
}

#[test]
fn a_received_frame_is_in_the_next_buffer() {
    let mut guest = Guest::ready(16);
    guest.offer_buffer(7, 2048);
    guest.offer_buffer(2, 2048);
    assert_eq!(guest.wanted(), 2);
    guest.receive(&frame(60, 1)).unwrap();
    assert_eq!(guest.wanted(), 1);
    guest.receive(&frame(1514, 2)).unwrap();
    assert_eq!(guest.wanted(), 0);
    assert_eq!(guest.used(RECEIVE), [(7, 72), (2, 1526)]);
    assert_eq!(guest.bytes(buffer(RECEIVE, 7), 12), HEADER);
    assert_eq!(guest.bytes(buffer(RECEIVE, 7) + 12, 60), frame(60, 1));
    assert_eq!(guest.bytes(buffer(RECEIVE, 7) + 72, 8), [0; 8], "not a byte too much");
    assert_eq!(guest.bytes(buffer(RECEIVE, 2) + 12, 1514), frame(1514, 2));
    assert_eq!(guest.receive(&frame(60, 3)), Err(DeliveryError::FrameUnwanted));
}

#[test]
fn a_received_frame_may_fill_many_buffers() {
    let mut guest = Guest::ready(16);
    for (index, length, next) in [(3, 5, Some(9)), (9, 20, Some(1)), (1, 1000, None)] {
        let flags = WRITE | if next.is_some() { NEXT } else { 0 };
        guest.describe(RECEIVE, index, buffer(RECEIVE, index) + 1, length, flags, next.unwrap_or(0));
    }
    guest.offer(RECEIVE, 3);
    guest.receive(&frame(50, 9)).unwrap();
    let mut packet = guest.bytes(buffer(RECEIVE, 3) + 1, 5);
    packet.extend(guest.bytes(buffer(RECEIVE, 9) + 1, 20));
    packet.extend(guest.bytes(buffer(RECEIVE, 1) + 1, 37));
    assert_eq!(packet[..12], HEADER);
    assert_eq!(packet[12..], frame(50, 9));
    assert_eq!(guest.bytes(buffer(RECEIVE, 1) + 38, 4), [0; 4]);
    assert_eq!(guest.used(RECEIVE), [(3, 62)]);
}

#[test]
fn the_longest_frame_can_be_received() {
    let mut guest = Guest::ready(16);
    let longest = frame(FRAME_MAX, 5);
    guest.offer_buffer(0, 12 + FRAME_MAX as u32);
    let too_long = DeliveryError::FrameTooLong { length: FRAME_MAX + 1 };
    assert_eq!(guest.receive(&frame(FRAME_MAX + 1, 5)), Err(too_long));
    assert_eq!(guest.wanted(), 1);
    guest.receive(&longest).unwrap();
    assert_eq!(guest.bytes(buffer(RECEIVE, 0) + 12, FRAME_MAX), longest);
}

#[test]
fn a_frame_that_does_not_fit_is_lost_and_the_buffer_stays() {
    let mut guest = Guest::ready(16);
    guest.offer_buffer(0, 100);
    guest.receive(&frame(89, 1)).unwrap();
    assert_eq!(guest.wanted(), 1);
    assert!(guest.used(RECEIVE).is_empty());
    assert_eq!(guest.bytes(buffer(RECEIVE, 0), 100), [0; 100]);
    guest.receive(&frame(88, 2)).unwrap();
    assert_eq!(guest.used(RECEIVE), [(0, 100)]);
    assert_eq!(guest.devices.fault(), None);
}

#[test]
fn no_more_than_a_burst_is_wanted_at_once() {
    let mut guest = Guest::ready(256);
    for index in 0..=BURST_MAX as u16 {
        guest.offer_buffer(index, 64);
    }
    assert_eq!(guest.wanted(), BURST_MAX);
}

#[test]
fn nothing_moves_before_the_driver_is_ok() {
    let mut guest = Guest::new();
    guest.negotiate(super::guest::FEATURES);
    guest.set_up_queues(16);
    guest.offer_buffer(0, 2048);
    guest.offer_frame(0, &frame(60, 1));
    guest.doorbell();
    assert!(guest.effects.is_empty());
    assert_eq!(guest.wanted(), 0);
    assert_eq!(guest.receive(&frame(60, 1)), Err(DeliveryError::FrameUnwanted));
    guest.write(STATUS, 1, 15);
    assert_eq!(guest.wanted(), 1);
    guest.doorbell();
    assert_eq!(guest.effects.len(), 1);
}

#[test]
fn indices_wrap_around() {
    let mut guest = Guest::ready(4);
    for round in 0..70_000u32 {
        let index = (round % 4) as u16;
        guest.describe(TRANSMIT, index, buffer(TRANSMIT, index), 26, 0, 0);
        guest.offer(TRANSMIT, index);
        guest.describe(RECEIVE, index, buffer(RECEIVE, index), 64, WRITE, 0);
        guest.offer(RECEIVE, index);
        guest.doorbell();
        guest.receive(&[round as u8; 20]).unwrap();
    }
    assert_eq!(guest.effects.len(), 70_000);
    for queue in [RECEIVE, TRANSMIT] {
        assert_eq!(guest.get_u16(used(queue) + 2), guest.get_u16(available(queue) + 2));
        assert_eq!(guest.get_u16(used(queue) + 2), (70_000u32 % 65_536) as u16);
    }
    assert_eq!(guest.bytes(buffer(RECEIVE, 3) + 12, 20), [(69_999u32) as u8; 20]);
}
