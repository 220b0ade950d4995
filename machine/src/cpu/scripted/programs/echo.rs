//! A guest with a driver for virtio-net that sends every frame back to where it came from.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
};

use super::{DATA, ZERO};
use crate::{
    boot::layout::{CONTROL, DOORBELL_PORT, IMAGE_BASE, PCI_ADDRESS_PORT, PCI_DATA_PORT, control},
    cpu::scripted::{Assembler, Condition, Label, Operation, Program, Register, Width},
};

/// Where [`echo`] counts the frames, u64.
pub const ECHO_FRAMES: u64 = DATA;
/// Where [`echo`] keeps its checksum, u64 ([`echo_checksum`]).
pub const ECHO_CHECKSUM: u64 = DATA + 8;
/// Largest queue size of [`echo`].
pub const ECHO_QUEUE_MAX: u16 = 64;

/// Addresses of the structures in the device's BAR, u64 each, by the number of their kind.
const STRUCTURES: u64 = DATA + 0x100;
const COMMON: u64 = STRUCTURES + 8;
/// A virtqueue has a page for each of its parts.
const RECEIVE_QUEUE: u64 = 0x31_0000;
const TRANSMIT_QUEUE: u64 = 0x32_0000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const RECEIVE_BUFFERS: u64 = 0x40_0000;
const TRANSMIT_BUFFERS: u64 = 0x50_0000;
const BUFFER_SHIFT: u64 = 11;
const BUFFER_SIZE: u64 = 1 << BUFFER_SHIFT;

/// Configuration address of function 00:01.0.
const FUNCTION: u64 = 0x8000_0800;
/// Memory and bus master.
const COMMAND: u64 = 0x06;
const NET_IDENTITY: u64 = 0x1041_1af4;
const CAPABILITY_VENDOR: u64 = 9;
const HEADER_LENGTH: u64 = 12;
const DESCRIPTOR_WRITE: u64 = 2;

/// By this every step of the checksum is multiplied: odd, so that nothing is lost.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

const SCRATCH: Register = Register::new(1);
const OTHER: Register = Register::new(2);
/// The structure that is being accessed.
const BASE: Register = Register::new(3);
/// The number of entries of each queue, minus one.
const MASK: Register = Register::new(4);
/// Indices of the used ring of the receive queue: where the driver stands, and where the device does.
const SEEN: Register = Register::new(5);
const FILLED: Register = Register::new(6);
/// How many chains were made available in either queue.
const RECEIVE_INDEX: Register = Register::new(7);
const TRANSMIT_INDEX: Register = Register::new(8);
const RECEIVE_BUFFER: Register = Register::new(9);
const TRANSMIT_BUFFER: Register = Register::new(10);
/// Length of header and frame.
const LENGTH: Register = Register::new(11);
const CHECKSUM: Register = Register::new(12);
const FRAMES: Register = Register::new(13);
/// Descriptor of the receive queue, or slot in the transmit queue.
const SLOT: Register = Register::new(14);
const STEP: Register = Register::new(15);

/// Brings up the network device with `queue_size` entries in each queue, as a real driver does. Then, for ever: waits
/// for frames, and sends each one back with its MAC addresses exchanged, ringing the doorbell once per burst. Counts at
/// [`ECHO_FRAMES`] and sums up at [`ECHO_CHECKSUM`]. Frames are at most 2036 bytes long. A device that does not do as
/// it should makes the guest halt.
///
/// # Panics
/// If `queue_size` is no power of two or above [`ECHO_QUEUE_MAX`].
#[must_use]
pub fn echo(queue_size: u16) -> Program {
    answer(queue_size, |_| {})
}

/// Where the answers of [`ledger`] say how many frames there have been up to the one that is answered, u64, and 8 bytes
/// behind it what their checksum is; bytes from the frame's beginning.
pub const LEDGER: usize = 24;

/// As [`echo`], but each answer tells the guest's whole history: at [`LEDGER`] the number of frames and their checksum
/// replace what the frame has there. Frames are at least 40 bytes long.
///
/// # Panics
/// As [`echo`].
#[must_use]
pub fn ledger(queue_size: u16) -> Program {
    answer(queue_size, |asm| {
        let offset = HEADER_LENGTH + LEDGER as u64;
        asm.store(Width::Quad, FRAMES, TRANSMIT_BUFFER, offset);
        asm.store(Width::Quad, CHECKSUM, TRANSMIT_BUFFER, offset + 8);
    })
}

/// A guest that sends every frame back once `change` has made an answer of it.
fn answer(queue_size: u16, change: impl Fn(&mut Assembler)) -> Program {
    assert!(queue_size.is_power_of_two() && queue_size <= ECHO_QUEUE_MAX);
    let mut asm = Assembler::new(IMAGE_BASE);
    let broken = asm.label();
    asm.set(MASK, u64::from(queue_size) - 1);
    find_structures(&mut asm, broken);
    negotiate(&mut asm, broken);
    set_up_queues(&mut asm, queue_size, broken);
    offer_receive_buffers(&mut asm, queue_size);
    write_status(
        &mut asm,
        VIRTIO_CONFIG_S_ACKNOWLEDGE
            | VIRTIO_CONFIG_S_DRIVER
            | VIRTIO_CONFIG_S_FEATURES_OK
            | VIRTIO_CONFIG_S_DRIVER_OK,
    );
    asm.set(SCRATCH, u64::MAX);
    asm.store(Width::Quad, SCRATCH, ZERO, CONTROL + control::DEADLINE);

    let wait = asm.here();
    asm.store(Width::Word, RECEIVE_INDEX, ZERO, RECEIVE_QUEUE + AVAILABLE + 2);
    asm.store(Width::Word, TRANSMIT_INDEX, ZERO, TRANSMIT_QUEUE + AVAILABLE + 2);
    asm.output(Width::Double, ZERO, DOORBELL_PORT);
    asm.load(Width::Word, FILLED, ZERO, RECEIVE_QUEUE + USED + 2);
    let next = asm.here();
    asm.branch(Condition::Equal, SEEN, FILLED, wait);
    take_frame(&mut asm);
    sum_up(&mut asm);
    copy_back(&mut asm);
    change(&mut asm);
    give_back(&mut asm);
    asm.jump(next);

    asm.place(broken);
    asm.halt();
    asm.finish()
}

/// What [`echo`] has at [`ECHO_CHECKSUM`] after one more frame; at the start it is 0.
#[must_use]
pub fn echo_checksum(before: u64, frame: &[u8]) -> u64 {
    // The bytes that fill no word are not summed up, but the length is.
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(FACTOR);
    let words = frame.get(HEADER_LENGTH as usize..).unwrap_or_default().chunks_exact(8);
    let words = words.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    step(words.fold(before, step), frame.len() as u64 + HEADER_LENGTH)
}

/// Finds the device's structures in its BAR by the list of its capabilities.
fn find_structures(asm: &mut Assembler, broken: Label) {
    asm.set(OTHER, 0);
    read_config(asm, SCRATCH, 0);
    asm.set(OTHER, NET_IDENTITY);
    asm.branch(Condition::NotEqual, SCRATCH, OTHER, broken);
    asm.set(OTHER, 0);
    read_config(asm, BASE, 0x10);
    read_config(asm, SCRATCH, 0x04);
    asm.set(SCRATCH, COMMAND);
    asm.output(Width::Word, SCRATCH, PCI_DATA_PORT);
    read_config(asm, OTHER, 0x34);
    asm.compute_immediate(Operation::And, OTHER, 0xff);

    let (next, other_kind, done) = (asm.label(), asm.label(), asm.label());
    asm.place(next);
    asm.branch(Condition::Equal, OTHER, ZERO, done);
    read_config(asm, STEP, 0);
    asm.copy_register(SCRATCH, STEP);
    asm.compute_immediate(Operation::And, SCRATCH, 0xff);
    asm.set(SLOT, CAPABILITY_VENDOR);
    asm.branch(Condition::NotEqual, SCRATCH, SLOT, other_kind);
    read_config(asm, SCRATCH, 8);
    asm.compute(Operation::Add, SCRATCH, BASE);
    asm.copy_register(SLOT, STEP);
    asm.compute_immediate(Operation::ShiftRight, SLOT, 24);
    asm.compute_immediate(Operation::Multiply, SLOT, 8);
    asm.store(Width::Quad, SCRATCH, SLOT, STRUCTURES);
    asm.place(other_kind);
    asm.copy_register(OTHER, STEP);
    asm.compute_immediate(Operation::ShiftRight, OTHER, 8);
    asm.compute_immediate(Operation::And, OTHER, 0xff);
    asm.jump(next);
    asm.place(done);
}

/// Reads the configuration register at [`OTHER`] plus `offset`. Overwrites `to` only.
fn read_config(asm: &mut Assembler, to: Register, offset: u64) {
    asm.copy_register(to, OTHER);
    asm.add(to, FUNCTION + offset);
    asm.output(Width::Double, to, PCI_ADDRESS_PORT);
    asm.input(Width::Double, to, PCI_DATA_PORT);
}

/// Accepts every feature that is offered (virtio 1.2, 3.1.1).
fn negotiate(asm: &mut Assembler, broken: Label) {
    asm.load(Width::Quad, BASE, ZERO, COMMON);
    let mut status = 0;
    for step in [0, VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER] {
        status |= step;
        write_status(asm, status);
    }
    for half in 0..2 {
        asm.set(SCRATCH, half);
        asm.store(Width::Double, SCRATCH, BASE, 0x00);
        asm.store(Width::Double, SCRATCH, BASE, 0x08);
        asm.load(Width::Double, SCRATCH, BASE, 0x04);
        asm.store(Width::Double, SCRATCH, BASE, 0x0c);
    }
    write_status(asm, status | VIRTIO_CONFIG_S_FEATURES_OK);
    asm.load(Width::Byte, SCRATCH, BASE, 0x14);
    asm.compute_immediate(Operation::And, SCRATCH, VIRTIO_CONFIG_S_FEATURES_OK.into());
    asm.branch(Condition::Equal, SCRATCH, ZERO, broken);
}

fn write_status(asm: &mut Assembler, status: u32) {
    asm.set(SCRATCH, status.into());
    asm.store(Width::Byte, SCRATCH, BASE, 0x14);
}

/// Tells the device where the queues are (4.1.5.1.3).
fn set_up_queues(asm: &mut Assembler, queue_size: u16, broken: Label) {
    for (number, queue) in [(0, RECEIVE_QUEUE), (1, TRANSMIT_QUEUE)] {
        asm.set(SCRATCH, number);
        asm.store(Width::Word, SCRATCH, BASE, 0x16);
        asm.load(Width::Word, SCRATCH, BASE, 0x18);
        asm.set(OTHER, queue_size.into());
        asm.branch(Condition::Below, SCRATCH, OTHER, broken);
        asm.store(Width::Word, OTHER, BASE, 0x18);
        for (register, part) in [(0x20, 0), (0x28, AVAILABLE), (0x30, USED)] {
            asm.set(SCRATCH, queue + part);
            asm.store(Width::Quad, SCRATCH, BASE, register);
        }
        asm.set(SCRATCH, 1);
        asm.store(Width::Word, SCRATCH, BASE, 0x1c);
    }
}

/// Fills the receive queue: descriptor n is buffer n.
fn offer_receive_buffers(asm: &mut Assembler, queue_size: u16) {
    asm.set(SLOT, 0);
    asm.set(OTHER, queue_size.into());
    let next = asm.here();
    address(asm, SCRATCH, RECEIVE_BUFFERS, BUFFER_SHIFT);
    address(asm, STEP, RECEIVE_QUEUE, 4);
    asm.store(Width::Quad, SCRATCH, STEP, 0);
    asm.set(SCRATCH, BUFFER_SIZE);
    asm.store(Width::Double, SCRATCH, STEP, 8);
    asm.set(SCRATCH, DESCRIPTOR_WRITE);
    asm.store(Width::Double, SCRATCH, STEP, 12);
    address(asm, STEP, RECEIVE_QUEUE + AVAILABLE + 4, 1);
    asm.store(Width::Word, SLOT, STEP, 0);
    asm.add(SLOT, 1);
    asm.branch(Condition::Below, SLOT, OTHER, next);
    asm.copy_register(RECEIVE_INDEX, SLOT);
}

/// `to` = the address of entry [`SLOT`] in a table of entries of `1 << shift` bytes.
fn address(asm: &mut Assembler, to: Register, table: u64, shift: u64) {
    asm.copy_register(to, SLOT);
    asm.compute_immediate(Operation::ShiftLeft, to, shift);
    asm.add(to, table);
}

/// Takes the next entry of the used ring: which buffer, and how long.
fn take_frame(asm: &mut Assembler) {
    asm.copy_register(SLOT, SEEN);
    asm.compute(Operation::And, SLOT, MASK);
    address(asm, STEP, RECEIVE_QUEUE + USED + 4, 3);
    asm.load(Width::Double, SLOT, STEP, 0);
    asm.load(Width::Double, LENGTH, STEP, 4);
    address(asm, RECEIVE_BUFFER, RECEIVE_BUFFERS, BUFFER_SHIFT);
    // The buffer goes back into the ring at once; the device does not run before the next doorbell.
    asm.copy_register(STEP, RECEIVE_INDEX);
    asm.compute(Operation::And, STEP, MASK);
    asm.compute_immediate(Operation::Multiply, STEP, 2);
    asm.store(Width::Word, SLOT, STEP, RECEIVE_QUEUE + AVAILABLE + 4);
    asm.add(RECEIVE_INDEX, 1);
    asm.add(SEEN, 1);
    asm.compute_immediate(Operation::And, SEEN, 0xffff);
}

/// Counts the frame, and adds what follows its MAC addresses to the checksum ([`echo_checksum`]).
fn sum_up(asm: &mut Assembler) {
    asm.add(FRAMES, 1);
    asm.store(Width::Quad, FRAMES, ZERO, ECHO_FRAMES);
    let (next, done) = (asm.label(), asm.label());
    asm.set(STEP, 2 * HEADER_LENGTH + 8);
    asm.place(next);
    asm.branch(Condition::Below, LENGTH, STEP, done);
    asm.copy_register(OTHER, RECEIVE_BUFFER);
    asm.compute(Operation::Add, OTHER, STEP);
    asm.load(Width::Quad, SCRATCH, OTHER, 0u64.wrapping_sub(8));
    asm.compute(Operation::Xor, CHECKSUM, SCRATCH);
    asm.compute_immediate(Operation::Multiply, CHECKSUM, FACTOR);
    asm.add(STEP, 8);
    asm.jump(next);
    asm.place(done);
    asm.compute(Operation::Xor, CHECKSUM, LENGTH);
    asm.compute_immediate(Operation::Multiply, CHECKSUM, FACTOR);
    asm.store(Width::Quad, CHECKSUM, ZERO, ECHO_CHECKSUM);
}

/// Copies the frame into the next transmit buffer, with its MAC addresses exchanged.
fn copy_back(asm: &mut Assembler) {
    asm.copy_register(SLOT, TRANSMIT_INDEX);
    asm.compute(Operation::And, SLOT, MASK);
    address(asm, TRANSMIT_BUFFER, TRANSMIT_BUFFERS, BUFFER_SHIFT);
    // The header stays zero: no offloads. Then source and destination, 6 bytes each.
    for (width, from, to) in [
        (Width::Double, HEADER_LENGTH, HEADER_LENGTH + 6),
        (Width::Word, HEADER_LENGTH + 4, HEADER_LENGTH + 10),
        (Width::Double, HEADER_LENGTH + 6, HEADER_LENGTH),
        (Width::Word, HEADER_LENGTH + 10, HEADER_LENGTH + 4),
    ] {
        asm.load(width, SCRATCH, RECEIVE_BUFFER, from);
        asm.store(width, SCRATCH, TRANSMIT_BUFFER, to);
    }
    let (next, done) = (asm.label(), asm.label());
    asm.set(STEP, 2 * HEADER_LENGTH);
    asm.place(next);
    asm.branch(Condition::Below, LENGTH, STEP, done);
    asm.branch(Condition::Equal, LENGTH, STEP, done);
    asm.copy_register(OTHER, RECEIVE_BUFFER);
    asm.compute(Operation::Add, OTHER, STEP);
    asm.copy_register(SCRATCH, TRANSMIT_BUFFER);
    asm.compute(Operation::Add, SCRATCH, STEP);
    asm.copy(Width::Quad, SCRATCH, OTHER);
    asm.add(STEP, 8);
    asm.jump(next);
    asm.place(done);
}

/// Makes the transmit buffer available: slot n is descriptor n is buffer n. The doorbell has emptied all slots before.
fn give_back(asm: &mut Assembler) {
    address(asm, STEP, TRANSMIT_QUEUE, 4);
    asm.store(Width::Quad, TRANSMIT_BUFFER, STEP, 0);
    asm.store(Width::Double, LENGTH, STEP, 8);
    asm.store(Width::Double, ZERO, STEP, 12);
    address(asm, STEP, TRANSMIT_QUEUE + AVAILABLE + 4, 1);
    asm.store(Width::Word, SLOT, STEP, 0);
    asm.add(TRANSMIT_INDEX, 1);
}
