//! The power of a primary with a store fails, and what it has told its clients by then is there when it comes back.
//!
//! The primary runs in an emulated machine ([the bed](../bed/README.md)), its store lies on a disk whose cache is lost with the
//! power, and its clients are outside: whatever they were told is known here. Then the emulator is killed, or the disk stops
//! in the middle of what it is told, and a new machine goes on with what is left on the disk.
//!
//! `tests/bed/power-loss 100` runs these tests. They are told how often the power fails by `ECHOVISOR_POWER_LOSSES`.

mod account;
mod clients;
mod disk;
mod history;
mod machine;

use std::time::Instant;

use echovisor_tests::{Namespace, Scene, scenario, size};
use fastrand::Rng;

use crate::{
    account::Account,
    clients::Clients,
    disk::Disk,
    history::History,
    machine::{Machine, PORT},
};

/// Bytes of a disk.
const DISK: usize = 512 << 20;

/// Connections of a load.
const CONNECTIONS: usize = 6;

/// The longest that a disk, and the guest on it, lives on, in losses of power.
const LIVES: u64 = 8;

/// How much of what was not flushed is on the disk nevertheless: nothing, as much as chance will have, or all of it.
const SURVIVAL: [f64; 4] = [0.0, 0.5, 0.9, 1.0];

/// What a primary is told that promises that nothing is lost. There are snapshots all the time.
const DURABLE: &str = "--ack disk --snapshot-every 300";

/// What a primary is told that promises no such thing.
const IN_MEMORY: &str = "--ack memory --accept-rollback --snapshot-every 300";

#[test]
#[ignore = "runs in the bed: tests/bed/power-loss"]
fn what_is_not_flushed_is_lost_with_the_power() {
    scenario(|scene| {
        let (network, disk) = (Namespace::new(), Disk::new(scene.path("disk"), DISK));
        // Each is a file of its own, so that none is flushed for another's sake. The last one overwrites what is durable: it
        // goes to the disk at once, but nobody asks the disk to keep it.
        let script = "cd /run/disk
            echo kept >kept && sync
            echo lost >lost
            yes lost | dd of=kept-too bs=4k count=1 iflag=fullblock conv=fsync
            yes kept | dd of=kept-too bs=4k count=1 iflag=fullblock conv=fsync
            yes lost | dd of=kept-too bs=4k count=1 iflag=fullblock conv=notrunc oflag=direct
            echo written; sleep infinity";
        let mut machine = Machine::start(scene, &network, &disk, script);
        machine.wait_for("its files", |said| said.contains("written").then_some(()));
        assert!(disk.holds_unflushed(b"lost\nlost\n"), "it was written past the disk's cache");
        let cut = machine.cut(0.0, &mut scene.random());
        assert!(cut.unflushed > 0 && cut.survived == 0, "{cut:?}");

        let script =
            "cd /run/disk; cat kept; test -s lost || echo gone; head -n 1 kept-too; echo all; sleep infinity";
        let mut machine = Machine::start(scene, &network, &disk, script);
        let said = machine.wait_for("its files", |said| said.contains("all").then(|| said.to_owned()));
        machine.off();
        assert_eq!(said.as_deref(), Some("kept\ngone\nkept\nall\n"));
    });
}

#[test]
#[ignore = "runs in the bed: tests/bed/power-loss"]
fn what_was_acknowledged_from_the_disk_is_there_after_a_loss_of_power() {
    scenario(|scene| {
        let account = rounds(scene, DURABLE);
        account.print("`--ack disk`");
        assert_eq!(account.acknowledged_lost(), 0);
    });
}

#[test]
#[ignore = "runs in the bed: tests/bed/power-loss"]
fn what_was_acknowledged_from_memory_may_be_lost_but_only_at_the_end() {
    scenario(|scene| rounds(scene, IN_MEMORY).print("`--ack memory`"));
}

/// The power fails again and again, each time at another moment.
fn rounds(scene: &Scene, options: &str) -> Account {
    let losses = size("ECHOVISOR_POWER_LOSSES", 2);
    let mut random = scene.random();
    let network = Namespace::new();
    let clients = Clients { network: &network, server: ([127, 0, 0, 1], PORT).into() };
    let mut account = Account::default();
    while account.losses < losses {
        let disk = Disk::new(scene.path(&scene.unique("disk")), DISK);
        let mut history = History::new(CONNECTIONS);
        let mut end = Instant::now();
        let lives = random.u64(1..=LIVES).min(losses - account.losses);
        for _ in 0..lives {
            let moment = Moment::any(&mut random);
            let mut machine = Machine::primary(scene, &network, &disk, options);
            machine.wait_for("a disk", |said| said.contains("mounted").then_some(()));
            if let Moment::Writes(writes) = moment {
                disk.fail_after(writes);
            }
            let found = machine.wait_for("a guest", |_| clients.read(CONNECTIONS).ok());
            let was_up = found.is_some();
            if let Some(found) = found {
                account.found(&history.settle(&found, end));
                let is_over =
                    |replies| disk.is_dead() || matches!(moment, Moment::Replies(most) if replies >= most);
                clients.write(&mut history, &mut random, is_over, || {
                    machine.off();
                    end = Instant::now();
                });
            }
            let survival = SURVIVAL[random.usize(..SURVIVAL.len())];
            account.lost(&machine.cut(survival, &mut random), was_up, &history);
        }
        // After its last loss a guest is only looked at.
        let mut machine = Machine::primary(scene, &network, &disk, options);
        let found = machine.wait_for("a guest", |_| clients.read(CONNECTIONS).ok());
        account.found(&history.settle(&found.expect("the power stays"), end));
        machine.off();
        account.ended(&history);
    }
    account
}

/// When the power fails.
enum Moment {
    /// In the middle of what the disk is told: after so many writes to it since it was mounted.
    Writes(u64),
    /// While the clients write, after so many replies.
    Replies(u64),
}

impl Moment {
    fn any(random: &mut Rng) -> Moment {
        // From the first writes of a start to what a load has long written.
        let scale = 1 << random.u32(1..12);
        if random.bool() {
            Moment::Writes(random.u64(1..=scale))
        } else {
            Moment::Replies(random.u64(..2000))
        }
    }
}
