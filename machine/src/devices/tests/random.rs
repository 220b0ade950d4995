//! Random accesses by a random driver over random rings: no panic, bounded work, and the same outcome in every run,
//! also if the devices are saved and restored after each step.

use proptest::{collection::vec, prelude::*};
use vm_memory::{Bytes as _, GuestAddress};

use super::{
    super::Devices,
    guest::{CONFIG, FEATURES, Guest, ISR, NOTIFY, RECEIVE, STATUS, TRANSMIT, buffer, frame, table},
};

#[derive(Clone, Debug)]
enum Step {
    /// Makes a frame available: descriptor, length.
    Send(u16, usize),
    /// Makes a buffer available: descriptor, length.
    Buffer(u16, u32),
    Doorbell,
    /// A frame of this length comes.
    Frame(usize),
    /// Brings the device up anew.
    Restart,
    /// Scribbles over the rings: queue, offset from the descriptor table, bytes.
    Scribble(u16, u64, Vec<u8>),
    /// Writes a descriptor: queue, index, length, flags, next.
    Describe(u16, u16, u32, u16, u16),
    /// Makes a chain available: queue, head.
    Offer(u16, u16),
    /// Reads from the BAR: offset, width.
    Read(u64, usize),
    /// Writes to the BAR: offset, width, value.
    Write(u64, usize, u64),
    /// Writes to a configuration space: slot, register, value.
    Config(u32, u32, u32),
    /// Writes to and reads from a port: number, width, value.
    Port(u16, usize, u32),
    /// Bytes are typed: how many.
    Console(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 0..2u16;
    let index = 0..8u16;
    let ring = prop_oneof![0..0x80u64, 0x1000..0x1030u64, 0x2000..0x2050u64];
    let width = prop_oneof![Just(1usize), Just(2), Just(4), Just(8)];
    let register = prop_oneof![4 => 0..0x38u64, 1 => 0..0x4000u64, 1 => Just(NOTIFY + 4), 1 => Just(ISR)];
    let value = prop_oneof![0..16u64, Just(table(0)), Just(table(1)), any::<u64>()];
    let config = (0..64u32).prop_map(|index| index * 4);
    let port = prop_oneof![0x3f8..0x400u16, 0x5f8..0x610u16, 0xcf8..0xd00u16, any::<u16>()];
    // Steps that a good driver takes come often enough that there is traffic.
    prop_oneof![
        6 => (index.clone(), 0..2000usize).prop_map(|(index, length)| Step::Send(index, length)),
        6 => (index.clone(), 100..2100u32).prop_map(|(index, length)| Step::Buffer(index, length)),
        6 => Just(Step::Doorbell),
        6 => (0..2000usize).prop_map(Step::Frame),
        2 => Just(Step::Restart),
        1 => (queue.clone(), ring, vec(any::<u8>(), 1..8))
            .prop_map(|(queue, offset, bytes)| Step::Scribble(queue, offset, bytes)),
        1 => (queue.clone(), index, 0..2000u32, 0..4u16, 0..9u16)
            .prop_map(|(queue, index, length, flags, next)| Step::Describe(queue, index, length, flags, next)),
        1 => (queue, 0..9u16).prop_map(|(queue, head)| Step::Offer(queue, head)),
        1 => (register.clone(), width.clone()).prop_map(|(offset, width)| Step::Read(offset, width)),
        1 => (register, width, value).prop_map(|(offset, width, value)| Step::Write(offset, width, value)),
        1 => (0..3u32, config, any::<u32>()).prop_map(|(slot, at, value)| Step::Config(slot, at, value)),
        1 => (port, prop_oneof![Just(1usize), Just(2), Just(4)], any::<u32>())
            .prop_map(|(port, width, value)| Step::Port(port, width, value)),
        1 => (0..100usize).prop_map(Step::Console),
    ]
}

/// Takes a step, and returns everything that it let the guest or the world see.
fn take(guest: &mut Guest, step: &Step) -> String {
    match step {
        Step::Send(index, length) => {
            guest.offer_frame(*index, &frame(*length, *index as u8));
            String::new()
        }
        Step::Buffer(index, length) => {
            guest.offer_buffer(*index, *length);
            String::new()
        }
        Step::Scribble(queue, offset, bytes) => {
            guest.memory.mmap().write_slice(bytes, GuestAddress(table(*queue) + offset)).unwrap();
            String::new()
        }
        Step::Describe(queue, index, length, flags, next) => {
            guest.describe(*queue, *index, buffer(*queue, *index), *length, *flags, *next);
            String::new()
        }
        Step::Offer(queue, head) => {
            guest.offer(*queue, *head);
            String::new()
        }
        Step::Read(offset, width) => guest.read(*offset, *width).to_string(),
        Step::Write(offset, width, value) => {
            guest.write(*offset, *width, *value);
            String::new()
        }
        Step::Config(slot, register, value) => {
            let before = guest.config_read(*slot, *register);
            guest.config_write(*slot, *register, *value);
            // The network device stays where the other steps look for it.
            guest.config_write(1, 0x10, 0xe000_4000);
            format!("{before} {}", guest.config_read(*slot, *register))
        }
        Step::Port(port, width, value) => {
            let request = guest.output(*port, *width, *value);
            format!("{request:?} {}", guest.input(*port, *width))
        }
        Step::Restart => {
            guest.available = [0; 2];
            for queue in [RECEIVE, TRANSMIT] {
                guest.memory.mmap().write_slice(&[0; 0x3000], GuestAddress(table(queue))).unwrap();
            }
            guest.negotiate(FEATURES);
            guest.set_up_queues(8);
            guest.write(STATUS, 1, 15);
            String::new()
        }
        Step::Doorbell => {
            guest.doorbell();
            format!("{:?}", guest.devices.fault())
        }
        Step::Frame(length) => {
            let wanted = guest.wanted();
            let received = guest.receive(&frame(*length, 1));
            assert_eq!(received.is_ok(), wanted > 0, "what is wanted can be delivered");
            format!("{received:?} {:?}", guest.devices.fault())
        }
        Step::Console(length) => {
            let wanted = guest.devices.console_wanted();
            let received = guest.devices.receive_console(&vec![b'x'; *length]);
            assert_eq!(received.is_ok(), *length <= wanted, "what is wanted can be delivered");
            format!("{received:?}")
        }
    }
}

proptest! {
    #[test]
    fn every_run_is_the_same(steps in vec(step(), 1..60)) {
        let mut straight = Guest::ready(8);
        let mut restored = Guest::ready(8);
        for step in &steps {
            let before = straight.effects.len();
            let seen = take(&mut straight, step);
            prop_assert!(straight.effects.len() - before <= 256);
            prop_assert_eq!(take(&mut restored, step), seen, "{:?}", step);
            restored.devices = Devices::restore(&CONFIG, &restored.devices.save(), &restored.memory).unwrap();
        }
        restored.assert_same(&straight);
    }
}
