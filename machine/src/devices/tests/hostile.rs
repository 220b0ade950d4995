//! Drivers that do what no driver may. The device stops and says why; it neither fails nor hangs, and a reset helps.

use echovisor_event::limits::FRAME_MAX;

use super::{
    super::{DeliveryError, Fault},
    guest::{
        Guest, INDIRECT, ISR, NEEDS_RESET, NEXT, RECEIVE, STATUS, TRANSMIT, WRITE, available, buffer, frame,
        used,
    },
};

const SIZE: u16 = 16;
/// End of RAM.
const END: u64 = 8 << 20;

struct Case {
    name: &'static str,
    /// Index, address, length, flags, next; with the bits for a queue's direction to be added.
    descriptors: &'static [(u16, u64, u32, u16, u16)],
    head: u16,
    fault: Fault,
}

const BUFFER: u64 = 0x60_0000;

const CASES: &[Case] = &[
    Case { name: "wild head", descriptors: &[], head: 16, fault: Fault::DescriptorIndex { index: 16 } },
    Case {
        name: "wildest head",
        descriptors: &[],
        head: 0xffff,
        fault: Fault::DescriptorIndex { index: 0xffff },
    },
    Case {
        name: "wild next",
        descriptors: &[(0, BUFFER, 100, NEXT, 300)],
        head: 0,
        fault: Fault::DescriptorIndex { index: 300 },
    },
    Case {
        name: "a descriptor that follows itself",
        descriptors: &[(2, BUFFER, 100, NEXT, 2)],
        head: 2,
        fault: Fault::EndlessChain { head: 2 },
    },
    Case {
        name: "a circle",
        descriptors: &[(0, BUFFER, 1, NEXT, 1), (1, BUFFER, 1, NEXT, 0)],
        head: 1,
        fault: Fault::EndlessChain { head: 1 },
    },
    Case {
        name: "empty buffer",
        descriptors: &[(0, BUFFER, 0, 0, 0)],
        head: 0,
        fault: Fault::EmptyBuffer { index: 0 },
    },
    Case {
        name: "buffer beyond RAM",
        descriptors: &[(0, END, 100, 0, 0)],
        head: 0,
        fault: Fault::BufferOutsideMemory { index: 0, address: END, length: 100 },
    },
    Case {
        name: "buffer across the end of RAM",
        descriptors: &[(0, BUFFER, 100, NEXT, 1), (1, END - 99, 100, 0, 0)],
        head: 0,
        fault: Fault::BufferOutsideMemory { index: 1, address: END - 99, length: 100 },
    },
    Case {
        name: "buffer across the end of the address space",
        descriptors: &[(0, u64::MAX - 10, 100, 0, 0)],
        head: 0,
        fault: Fault::BufferOutsideMemory { index: 0, address: u64::MAX - 10, length: 100 },
    },
    Case {
        name: "buffer in the PCI window",
        descriptors: &[(0, 0xe000_4000, 100, 0, 0)],
        head: 0,
        fault: Fault::BufferOutsideMemory { index: 0, address: 0xe000_4000, length: 100 },
    },
    Case {
        name: "longest buffer",
        descriptors: &[(0, BUFFER, u32::MAX, 0, 0)],
        head: 0,
        fault: Fault::BufferOutsideMemory { index: 0, address: BUFFER, length: u32::MAX },
    },
    Case {
        name: "indirect table",
        descriptors: &[(0, BUFFER, 32, INDIRECT, 0)],
        head: 0,
        fault: Fault::Indirect { index: 0 },
    },
    Case {
        name: "indirect table in a chain",
        descriptors: &[(0, BUFFER, 32, NEXT, 1), (1, BUFFER, 32, INDIRECT | NEXT, 0)],
        head: 0,
        fault: Fault::Indirect { index: 1 },
    },
    Case {
        name: "too short",
        descriptors: &[(0, BUFFER, 12 + 13, 0, 0)],
        head: 0,
        fault: Fault::FrameLength { length: 25 },
    },
];

fn offer(guest: &mut Guest, queue: u16, case: &Case) {
    let direction = if queue == RECEIVE { WRITE } else { 0 };
    for (index, address, length, flags, next) in case.descriptors {
        guest.describe(queue, *index, *address, *length, flags | direction, *next);
    }
    guest.offer(queue, case.head);
}

/// The device has stopped, tells so, and is as good as new after a reset.
fn assert_stopped(mut guest: Guest, fault: Fault, name: &str) {
    assert_eq!(guest.devices.fault(), Some(fault), "{name}");
    assert_eq!(guest.read(STATUS, 1), 15 | NEEDS_RESET, "{name}");
    assert_eq!(guest.read(ISR, 1) & 2, 2, "{name}");
    let stopped = guest.devices.save();
    let said = guest.effects.len();
    guest.doorbell();
    assert_eq!(guest.wanted(), 0, "{name}");
    assert_eq!(guest.receive(&frame(60, 0)), Err(DeliveryError::FrameUnwanted), "{name}");
    assert_eq!(guest.effects.len(), said, "{name}");
    guest.write(STATUS, 1, 15);
    let mut now = guest.devices.save();
    now.config_address = stopped.config_address;
    assert_eq!(now, stopped, "{name}");

    guest.available = [0; 2];
    for queue in [RECEIVE, TRANSMIT] {
        guest.put_u16(available(queue) + 2, 0);
        guest.put_u16(used(queue) + 2, 0);
    }
    guest.negotiate(super::guest::FEATURES);
    guest.set_up_queues(SIZE);
    guest.write(STATUS, 1, 15);
    guest.offer_buffer(0, 2048);
    guest.offer_frame(0, &frame(60, 1));
    guest.doorbell();
    guest.receive(&frame(60, 2)).unwrap();
    assert_eq!(guest.devices.fault(), None, "{name}");
    assert_eq!(guest.effects.len(), said + 1, "{name}");
    assert_eq!(guest.used(RECEIVE), [(0, 72)], "{name}");
}

#[test]
fn malformed_chains_to_send_stop_the_device() {
    for case in CASES {
        let mut guest = Guest::ready(SIZE);
        guest.offer_frame(8, &frame(60, 0));
        offer(&mut guest, TRANSMIT, case);
        guest.offer_frame(9, &frame(60, 1));
        guest.doorbell();
        assert_eq!(guest.effects.len(), 1, "{}: only what was before it is sent", case.name);
        assert_eq!(guest.used(TRANSMIT), [(8, 0)], "{}", case.name);
        assert_stopped(guest, case.fault, case.name);
    }
}

#[test]
fn malformed_chains_for_reception_stop_the_device() {
    for case in CASES {
        let mut guest = Guest::ready(SIZE);
        offer(&mut guest, RECEIVE, case);
        guest.offer_buffer(9, 2048);
        assert_eq!(guest.receive(&frame(60, 0)), Ok(()), "{}: the frame is lost", case.name);
        assert!(guest.used(RECEIVE).is_empty(), "{}", case.name);
        assert_eq!(guest.bytes(BUFFER, 100), [0; 100], "{}: nothing is written", case.name);
        assert_stopped(guest, case.fault, case.name);
    }
}

#[test]
fn buffers_for_the_other_direction_stop_the_device() {
    let mut guest = Guest::ready(SIZE);
    guest.describe(TRANSMIT, 0, BUFFER, 100, NEXT, 1);
    guest.describe(TRANSMIT, 1, BUFFER, 100, WRITE, 0);
    guest.offer(TRANSMIT, 0);
    guest.doorbell();
    assert!(guest.effects.is_empty());
    assert_stopped(guest, Fault::Direction { index: 1 }, "to be sent");

    let mut guest = Guest::ready(SIZE);
    guest.describe(RECEIVE, 3, BUFFER, 100, 0, 0);
    guest.offer(RECEIVE, 3);
    guest.receive(&frame(60, 0)).unwrap();
    assert_stopped(guest, Fault::Direction { index: 3 }, "for reception");
}

#[test]
fn frames_that_are_too_long_stop_the_device() {
    let mut guest = Guest::ready(SIZE);
    let length = 12 + FRAME_MAX as u32 + 1;
    guest.describe(TRANSMIT, 0, BUFFER, length, 0, 0);
    guest.offer(TRANSMIT, 0);
    guest.doorbell();
    assert!(guest.effects.is_empty());
    assert_stopped(guest, Fault::FrameLength { length: length.into() }, "one buffer");

    let mut guest = Guest::ready(SIZE);
    for index in 0..SIZE {
        let flags = if index + 1 < SIZE { NEXT } else { 0 };
        guest.describe(TRANSMIT, index, 0, END as u32, flags, index + 1);
    }
    guest.offer(TRANSMIT, 0);
    guest.doorbell();
    assert_stopped(guest, Fault::FrameLength { length: u64::from(SIZE) * END }, "all of RAM many times");
}

#[test]
fn an_available_index_that_runs_ahead_stops_the_device() {
    for index in [17, 0x8000, 0xffff] {
        let mut guest = Guest::ready(SIZE);
        guest.put_u16(available(TRANSMIT) + 2, index);
        guest.doorbell();
        assert_stopped(guest, Fault::AvailableIndex, "transmit");

        let mut guest = Guest::ready(SIZE);
        guest.put_u16(available(RECEIVE) + 2, index);
        assert_eq!(guest.wanted(), 0);
        guest.doorbell();
        assert_stopped(guest, Fault::AvailableIndex, "receive");
    }
}

#[test]
fn the_same_chain_over_and_over_is_no_endless_work() {
    let mut guest = Guest::new();
    guest.negotiate(super::guest::FEATURES);
    guest.size = 256;
    // The used ring lies over the available ring, so that each used buffer looks like a new available one.
    guest.write(0x16, 2, TRANSMIT.into());
    guest.write(0x20, 8, super::guest::table(TRANSMIT));
    guest.write(0x28, 8, available(TRANSMIT));
    guest.write(0x30, 8, available(TRANSMIT));
    guest.write(0x1c, 2, 1);
    guest.write(STATUS, 1, 15);
    guest.describe(TRANSMIT, 0, buffer(TRANSMIT, 0), 100, 0, 0);
    guest.put_u16(available(TRANSMIT) + 2, 200);
    guest.doorbell();
    assert!(guest.effects.len() <= 256);
}
