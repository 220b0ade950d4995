//! Bringing the network device up (virtio 1.2, 3.1), register by register.

use super::{
    super::Fault,
    guest::{CONFIG, FEATURES, Guest, ISR, NEEDS_RESET, RECEIVE, STATUS, TRANSMIT, available, table, used},
};

#[test]
fn exactly_four_features_are_offered() {
    let mut guest = Guest::new();
    let mut offered = 0;
    for half in 0..4 {
        guest.write(0x00, 4, half);
        assert_eq!(guest.read(0x00, 4), half);
        let bits = guest.read(0x04, 4);
        if half < 2 {
            offered |= bits << (32 * half);
        } else {
            assert_eq!(bits, 0, "there are only 64 feature bits");
        }
    }
    assert_eq!(offered, FEATURES);
}

#[test]
fn the_structures_are_found_by_capabilities() {
    let mut guest = Guest::new();
    let mut found = Vec::new();
    let mut at = guest.config_read(1, 0x34) & 0xff;
    while at != 0 {
        let head = guest.config_read(1, at);
        assert_eq!(head & 0xff, 9, "vendor specific");
        assert_eq!(guest.config_read(1, at + 4), 0, "BAR 0");
        found.push((
            head >> 24,
            head >> 16 & 0xff,
            guest.config_read(1, at + 8),
            guest.config_read(1, at + 12),
        ));
        if head >> 24 == 2 {
            assert_eq!(guest.config_read(1, at + 16), 4, "notify_off_multiplier");
        }
        at = head >> 8 & 0xff;
    }
    assert_eq!(found, [(1, 16, 0, 0x38), (2, 20, 0x3000, 8), (3, 16, 0x1000, 1), (4, 16, 0x2000, 12)]);
}

#[test]
fn the_configuration_tells_mac_link_and_mtu() {
    let mut guest = Guest::new();
    for (index, byte) in CONFIG.mac.unwrap().into_iter().enumerate() {
        assert_eq!(guest.read(0x2000 + index as u64, 1), u64::from(byte));
    }
    assert_eq!(guest.read(0x2006, 2), 1, "link up");
    assert_eq!(guest.read(0x200a, 2), 1500);
    assert_eq!(guest.read(0x2008, 4), 1500 << 16);
    assert_eq!(guest.read(0x200c, 4), 0, "beyond the end");
    guest.write(0x2000, 4, 0);
    assert_eq!(guest.read(0x2000, 1), 0x52, "read-only");
}

#[test]
fn features_are_accepted_only_if_offered_and_modern() {
    let without_version_1 = FEATURES & !(1 << 32);
    let cases = [
        (FEATURES, true),
        (1 << 32, true),
        (without_version_1, false),
        (0, false),
        (FEATURES | 1, false),
        (FEATURES | 1 << 28, false),
        (FEATURES | 1 << 33, false),
    ];
    for (features, accepted) in cases {
        let mut guest = Guest::new();
        guest.negotiate(features);
        assert_eq!(guest.read(STATUS, 1), if accepted { 11 } else { 3 }, "{features:#x}");
        guest.write(STATUS, 1, 15);
        assert_eq!(guest.read(STATUS, 1), if accepted { 15 } else { 3 }, "{features:#x}");
    }
}

#[test]
fn features_stay_once_agreed_on() {
    let mut guest = Guest::new();
    guest.negotiate(1 << 32);
    guest.write(0x08, 4, 0);
    guest.write(0x0c, 4, 0xffff_ffff);
    assert_eq!(guest.read(0x0c, 4), 0);
}

#[test]
fn no_step_of_the_initialisation_can_be_skipped() {
    for status in [2, 4, 8, 12, 14, NEEDS_RESET] {
        let mut guest = Guest::new();
        guest.write(STATUS, 1, status);
        assert_eq!(guest.read(STATUS, 1), 0, "{status}");
    }
    let mut guest = Guest::new();
    guest.write(STATUS, 1, 1);
    guest.write(STATUS, 1, 2);
    assert_eq!(guest.read(STATUS, 1), 3, "bits are only cleared by a reset");
    guest.write(STATUS, 1, 128);
    assert_eq!(guest.read(STATUS, 1), 131, "giving up is always possible");
}

#[test]
fn queues_take_sizes_and_addresses_that_are_possible() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(0x12, 2), 2);
    for queue in [RECEIVE, TRANSMIT] {
        guest.write(0x16, 2, queue.into());
        assert_eq!(guest.read(0x18, 2), 256);
        assert_eq!(guest.read(0x1e, 2), u64::from(queue), "queue_notify_off");
        for impossible in [0, 3, 512, 0xffff] {
            guest.write(0x18, 2, impossible);
            assert_eq!(guest.read(0x18, 2), 256);
        }
        for register in [0x20, 0x28, 0x30] {
            guest.write(register, 8, 0x1_2345_6780);
            guest.write(register, 4, 0x1);
            assert_eq!(guest.read(register, 8), 0x1_2345_6780, "not aligned");
            assert_eq!(guest.read(register + 4, 4), 1);
        }
    }
    guest.write(0x16, 2, 2);
    assert_eq!(guest.read(0x18, 2), 0, "there is no third queue");
    guest.write(0x1c, 2, 1);
    assert_eq!(guest.read(0x1c, 2), 0);
}

#[test]
fn registers_answer_only_in_their_own_width() {
    let mut guest = Guest::new();
    guest.write(STATUS, 1, 1);
    assert_eq!(guest.read(STATUS, 4), 0);
    assert_eq!(guest.read(0x13, 2), 0);
    guest.write(STATUS, 4, 3);
    assert_eq!(guest.read(STATUS, 1), 1);
}

#[test]
fn there_is_no_msix() {
    let mut guest = Guest::new();
    guest.write(0x10, 2, 0);
    guest.write(0x1a, 2, 0);
    assert_eq!((guest.read(0x10, 2), guest.read(0x1a, 2)), (0xffff, 0xffff));
}

#[test]
fn a_queue_in_use_tells_the_driver_not_to_kick() {
    let guest = Guest::ready(16);
    for queue in [RECEIVE, TRANSMIT] {
        assert_eq!(guest.get_u16(used(queue)), 1, "VIRTQ_USED_F_NO_NOTIFY");
    }
}

#[test]
fn a_queue_in_use_cannot_be_changed() {
    let mut guest = Guest::ready(16);
    let before = guest.devices.save();
    guest.write(0x18, 2, 8);
    guest.write(0x20, 8, 0x1000);
    guest.write(0x1c, 2, 0);
    assert_eq!(guest.devices.save(), before);
}

#[test]
fn a_queue_outside_ram_is_a_fault() {
    let end = 8 << 20;
    for (register, address) in
        [(0x20, 0), (0x20, end - 64), (0x28, end), (0x30, end - 16), (0x30, u64::MAX - 15)]
    {
        let mut guest = Guest::new();
        guest.negotiate(FEATURES);
        guest.write(0x16, 2, 1);
        guest.write(0x18, 2, 16);
        guest.write(0x20, 8, table(1));
        guest.write(0x28, 8, available(1));
        guest.write(0x30, 8, used(1));
        guest.write(register, 8, address);
        guest.write(0x1c, 2, 1);
        assert_eq!(guest.devices.fault(), Some(Fault::RingsOutsideMemory { queue: 1 }), "{address:#x}");
        assert_eq!(guest.read(0x1c, 2), 0);
        assert_eq!(guest.read(STATUS, 1) & NEEDS_RESET, NEEDS_RESET);
    }
}

#[test]
fn a_reset_forgets_everything_but_the_pci_function() {
    let mut guest = Guest::new();
    let fresh = guest.devices.save().net.unwrap();
    guest.config_write(1, 0x3c, 5);
    guest.negotiate(FEATURES);
    guest.set_up_queues(16);
    guest.write(STATUS, 1, 15);
    guest.offer_buffer(0, 2048);
    guest.receive(&[0; 60]).unwrap();
    guest.write(STATUS, 1, 0);
    let reset = guest.devices.save().net.unwrap();
    assert_eq!(reset.registers, fresh.registers);
    assert_eq!(reset.queues, fresh.queues);
    assert_ne!(reset.config_space, fresh.config_space);
}

#[test]
fn reading_the_isr_clears_it() {
    let mut guest = Guest::ready(16);
    assert_eq!(guest.read(ISR, 1), 0);
    guest.offer_buffer(0, 2048);
    guest.receive(&[0; 60]).unwrap();
    assert_eq!(guest.read(ISR, 1), 1);
    assert_eq!(guest.read(ISR, 1), 0);
}
