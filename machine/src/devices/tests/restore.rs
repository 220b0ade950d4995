//! Saved and restored devices.

use super::{
    super::{
        DeviceStateError, Devices, DevicesConfig, DevicesState, Fault, QueueState, Registers, TransportState,
    },
    guest::{CONFIG, FEATURES, Guest, NEXT, STATUS, TRANSMIT, frame},
};
use crate::boot::layout::CONSOLE_PORT;

/// Some traffic, with everything that a state can hold in it.
fn busy() -> Guest {
    let mut guest = Guest::ready(8);
    guest.devices.receive_console(b"typed").unwrap();
    for index in 0..6 {
        guest.offer_buffer(index, 1600);
    }
    guest.offer_frame(0, &frame(60, 0));
    guest.offer_frame(1, &frame(61, 1));
    guest.doorbell();
    guest.receive(&frame(100, 2)).unwrap();
    guest.offer_frame(2, &frame(62, 3));
    guest
}

fn go_on(guest: &mut Guest) {
    guest.doorbell();
    guest.receive(&frame(1500, 4)).unwrap();
    guest.receive(&frame(64, 5)).unwrap();
    let typed = guest.input(CONSOLE_PORT, 1);
    guest.set_port(CONSOLE_PORT, 1, typed);
    guest.offer_buffer(0, 1600);
    guest.offer_frame(3, &frame(63, 6));
    guest.doorbell();
    guest.write(0x16, 2, 1);
}

#[test]
fn restored_devices_go_on_like_the_saved_ones() {
    let mut original = busy();
    let mut restored = original.restored();
    restored.assert_same(&original);
    go_on(&mut original);
    go_on(&mut restored);
    restored.assert_same(&original);
    assert_eq!(original.effects.len(), 5);
}

#[test]
fn a_fault_is_part_of_the_state() {
    let mut guest = Guest::ready(8);
    guest.describe(TRANSMIT, 0, 0x1000, 60, NEXT, 0);
    guest.offer(TRANSMIT, 0);
    guest.doorbell();
    let restored = guest.restored();
    assert_eq!(restored.devices.fault(), Some(Fault::EndlessChain { head: 0 }));
    restored.assert_same(&guest);
}

#[test]
fn a_state_survives_its_encoding() {
    let state = busy().devices.save();
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&state).unwrap();
    let decoded: DevicesState = rkyv::from_bytes::<_, rkyv::rancor::Error>(&bytes).unwrap();
    assert_eq!(decoded, state);
}

/// What a hostile peer does to a state.
type Change<T> = fn(&mut T);

fn refused(change: impl FnOnce(&mut TransportState)) -> DeviceStateError {
    let guest = busy();
    let mut state = guest.devices.save();
    change(state.net.as_mut().unwrap());
    match Devices::restore(&CONFIG, &state, &guest.memory) {
        Ok(_) => panic!("restored {state:?}"),
        Err(error) => error,
    }
}

#[test]
fn impossible_registers_are_refused() {
    let cases: &[(&str, Change<Registers>)] = &[
        ("status", |registers| registers.status = 0x1f),
        ("status", |registers| registers.status = 7),
        ("status", |registers| registers.status = 15 | 64),
        ("status", |registers| registers.fault = Some(Fault::AvailableIndex)),
        ("driver_features", |registers| registers.driver_features = FEATURES | 1),
        ("driver_features", |registers| registers.driver_features = 0),
        ("isr", |registers| registers.isr = 4),
    ];
    for (register, change) in cases {
        let error = refused(|state| change(&mut state.registers)).to_string();
        assert!(error.contains(&format!("net.{register} ")), "{error}");
    }
}

#[test]
fn impossible_queues_are_refused() {
    let cases: &[(&str, Change<QueueState>)] = &[
        ("size", |queue| queue.size = 0),
        ("size", |queue| queue.size = 7),
        ("size", |queue| queue.size = 512),
        ("alignment", |queue| queue.desc_table += 8),
        ("alignment", |queue| queue.avail_ring += 1),
        ("alignment", |queue| queue.used_ring += 2),
        ("outside RAM", |queue| queue.desc_table = 8 << 20),
        ("outside RAM", |queue| queue.avail_ring = !1),
        ("outside RAM", |queue| queue.used_ring = 0),
        ("not given back", |queue| queue.next_used = queue.next_used.wrapping_add(1)),
        ("not ready", |queue| queue.ready = false),
    ];
    for (what, change) in cases {
        let error = refused(|state| change(&mut state.queues[1])).to_string();
        assert!(
            error.contains("net.queues[1]") && error.to_lowercase().contains(&what.to_lowercase()),
            "{error}"
        );
    }
    assert!(matches!(refused(|state| state.queues.truncate(1)), DeviceStateError::QueueCount { count: 1 }));
}

#[test]
fn a_state_of_another_machine_is_refused() {
    let guest = busy();
    let state = guest.devices.save();
    let without = DevicesConfig { mac: None, ..CONFIG };
    let restored = Devices::restore(&without, &state, &guest.memory);
    assert!(matches!(restored, Err(DeviceStateError::NetPresence { saved: true })));
    let error = refused(|state| state.config_space.bytes[0] ^= 1);
    assert!(matches!(error, DeviceStateError::ConfigSpace { function: "net", offset: 0 }));
    let restored = Devices::restore(&CONFIG, &DevicesState { config_address: 1, ..state }, &guest.memory);
    assert!(matches!(restored, Err(DeviceStateError::ConfigAddress { value: 1 })));
}

#[test]
fn a_device_that_was_never_started_is_restored() {
    let mut guest = Guest::new();
    guest.write(STATUS, 1, 1);
    guest.restored().assert_same(&guest);
}
