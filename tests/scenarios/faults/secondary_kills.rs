//! The secondary dies. The guest goes on alone as soon as the arbiter has that on record, and a new secondary can join.

use echovisor_tests::{Account, KV, Lab, Load, scenario, size};

#[test]
fn kills_of_the_secondary_cost_a_pause() {
    scenario(|scene| {
        let mut random = scene.random();
        let lab = Lab::new(scene);
        let (primary, mut secondary) = lab.pair(KV);
        let term = primary.status().expect("a status").term;
        let load = Load::start(&lab, random.u64(..));
        let mut account = Account::of("kill of the secondary");
        for _ in 0..size("ECHOVISOR_KILLS", 3) {
            load.wait_for_replies(random.u64(100..2000));
            let _ = load.longest_silence();
            secondary.process.kill();
            let status = lab.must_be_alone(&primary, term);
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            secondary = lab.secondary(&lab.secondary, &lab.primary);
            primary.wait_until("protected", |status| status.protected);
        }
        assert!(primary.process.said().contains("unprotected"), "it did not say so");
        assert_eq!(lab.secondary.guest_frames(), 0, "two nodes speak for the guest");
        account.clients(&load.finish());
        account.print();
        primary.stop();
    });
}
