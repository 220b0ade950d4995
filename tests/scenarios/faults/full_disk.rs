//! The disk of a primary that keeps its log is full. It ends with an error that says so, and the secondary goes on with the
//! guest. (A recording without a peer ends where the disk did; that is in `bad_input.rs`.)

use echovisor_tests::{Account, KV, Lab, Load, Scene, scenario};

use crate::times;

#[test]
fn a_full_disk_costs_a_takeover() {
    scenario(|scene| {
        let mut account = Account::of("disk of the primary full");
        for _ in 0..times() {
            fill(scene, &mut account);
        }
        account.print();
    });
}

fn fill(scene: &Scene, account: &mut Account) {
    let lab = Lab::new(scene);
    let disk = scene.small_disk(2 << 20);
    let folder = disk.path.join("log");
    let mut primary = lab.primary_with(&lab.primary, KV, &["--store", &folder.to_string_lossy()]);
    let secondary = lab.secondary(&lab.secondary, &lab.primary);
    let term = primary.wait_until("protected", |status| status.protected).term;
    let load = Load::start(&lab, fastrand::u64(..));

    // It takes as long as it takes to fill the disk.
    while primary.process.ended().is_none() {
        load.wait_for_replies(500);
    }
    let ended = primary.process.finish();
    assert_eq!(ended.code(), Some(1), "{ended}");
    for part in ["no space is left", "hint: "] {
        assert!(ended.stdout.contains(part), "`{part}` is not what it says: {ended}");
    }
    let status = lab.must_be_alone(&secondary, term + 1);
    load.wait_for_replies(500);
    account.round(load.longest_silence(), &status);
    account.clients(&load.finish());
    secondary.stop();
}
