//! One guest and its clients outlive any number of hosts: whenever a primary dies, a new secondary joins the survivor, which
//! is the next to die.

use echovisor_tests::{Account, KV, Lab, Load, scenario, size};

#[test]
fn kills_of_both_in_turn_lose_nothing() {
    scenario(|scene| {
        let mut random = scene.random();
        let lab = Lab::new(scene);
        let (mut primary, mut secondary) = lab.pair(KV);
        let mut term = primary.status().expect("a status").term;
        let load = Load::start(&lab, random.u64(..));
        let mut account = Account::of("kill of both in turn");
        let mut sites = lab.sites();
        // What has been said for the guest where the secondary lives.
        let mut silent = 0;
        for _ in 0..size("ECHOVISOR_KILLS", 3) {
            load.wait_for_replies(random.u64(100..2000));
            let _ = load.longest_silence();
            assert_eq!(sites[1].guest_frames(), silent, "two nodes speak for the guest");
            primary.process.kill();
            term += 1;
            let status = lab.must_be_alone(&secondary, term);
            load.wait_for_replies(500);
            account.round(load.longest_silence(), &status);
            // The site of the dead is where the next secondary lives.
            sites.swap(0, 1);
            silent = sites[1].guest_frames();
            primary = secondary;
            secondary = lab.secondary(sites[1], sites[0]);
            primary.wait_until("protected", |status| status.protected);
        }
        account.clients(&load.finish());
        account.print();
        primary.stop();
        assert_eq!(
            secondary.process.finish().code(),
            Some(0),
            "the last secondary did not take it for an end"
        );
    });
}
