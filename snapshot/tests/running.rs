//! The digest that is kept up to date is the digest of the whole state.

mod state;
mod writer;

use echovisor_event::limits::{MEMORY_MIN, PAGE_SIZE};
use echovisor_machine::{Machine, Memory, PageSet, cpu::scripted::ScriptedCpu};
use echovisor_snapshot::{RunningDigest, state_digest};
use proptest::prelude::*;
use state::{DEVICES, memory};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use writer::{Writer, change, changes};

/// Digests in which the scrub reads every page.
const ROUND: usize = 64;

fn machine(memory: Memory) -> Machine<ScriptedCpu> {
    Machine::new(ScriptedCpu::new(memory.clone(), 0), memory, &DEVICES)
}

fn write(machine: &Machine<ScriptedCpu>, (address, byte): (u64, u8)) {
    machine.memory().mmap().write_obj(byte, GuestAddress(address)).unwrap();
}

/// Changes a byte behind the back of all who keep account of that.
fn flip(machine: &Machine<ScriptedCpu>, address: u64) {
    let byte = machine.memory().mmap().get_host_address(GuestAddress(address)).unwrap();
    // SAFETY: the address lies in RAM, which is mapped as long as the machine, and nothing else runs.
    unsafe { byte.write(byte.read() ^ 0x10) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_kept_up_to_date_is_what_all_of_ram_gives(
        before in prop::collection::vec((0..MEMORY_MIN, any::<u8>()), 0..20),
        rounds in prop::collection::vec(prop::collection::vec((0..MEMORY_MIN, 0_u8..3), 0..20), 1..8),
    ) {
        let mut machine = machine(memory());
        before.into_iter().for_each(|at| write(&machine, at));
        let mut running = RunningDigest::new(&mut machine).unwrap();
        for writes in rounds {
            writes.into_iter().for_each(|at| write(&machine, at));
            let whole = state_digest(machine.memory(), &machine.save().unwrap());
            prop_assert_eq!(running.take(&mut machine).unwrap(), whole);
        }
    }

    /// Whether all at once or in rounds while the guest writes, and whoever else asks in between.
    #[test]
    fn rounds_and_other_consumers_change_nothing(
        steps in prop::collection::vec((0_u8..4, changes(), changes()), 1..12),
    ) {
        let (mut machine, written) = Writer::machine();
        let mut running = RunningDigest::new(&mut machine).unwrap();
        let mut others = Vec::new();
        for (step, first, second) in steps {
            let digest = match step {
                0 => {
                    first.iter().chain(&second).for_each(|at| change(&machine, &written, *at));
                    running.take(&mut machine).unwrap()
                }
                1 => {
                    first.iter().for_each(|at| change(&machine, &written, *at));
                    machine.harvest().unwrap();
                    let stale = running.begin(&mut machine);
                    second.iter().for_each(|at| change(&machine, &written, *at));
                    running.rehash(machine.memory(), &stale);
                    first.iter().rev().for_each(|at| change(&machine, &written, *at));
                    machine.harvest().unwrap();
                    let stale = running.changed(&mut machine);
                    running.rehash(machine.memory(), &stale);
                    running.finish(&machine.save().unwrap())
                }
                2 => {
                    others.push((machine.track_pages().unwrap(), PageSet::all(machine.memory().pages())));
                    continue;
                }
                _ => {
                    for (consumer, expected) in &mut others {
                        let told = machine.changed_pages(consumer).unwrap();
                        prop_assert!(expected.iter().all(|page| told.contains(page)));
                        *expected = PageSet::none(machine.memory().pages());
                    }
                    if !others.is_empty() {
                        machine.untrack_pages(others.swap_remove(0).0);
                    }
                    continue;
                }
            };
            for (_, expected) in &mut others {
                first.iter().chain(&second).for_each(|(_, address, _)| expected.insert(*address as usize / PAGE_SIZE));
            }
            prop_assert_eq!(digest, state_digest(machine.memory(), &machine.save().unwrap()));
        }
    }

    #[test]
    fn what_changed_on_nobodys_account_is_found_within_a_round(address in 0..MEMORY_MIN, before in 0..ROUND) {
        let mut machine = machine(memory());
        let mut running = RunningDigest::new(&mut machine).unwrap();
        for _ in 0..before {
            running.take(&mut machine).unwrap();
        }
        flip(&machine, address);
        let whole = state_digest(machine.memory(), &machine.save().unwrap());
        prop_assert!((0..ROUND).any(|_| running.take(&mut machine).unwrap() == whole));
    }
}

#[test]
fn everyone_who_asks_is_told_of_every_change() {
    let mut machine = machine(memory());
    let (one, other) = (machine.track_pages().unwrap(), machine.track_pages().unwrap());
    let changed =
        |machine: &mut Machine<_>, who: &_| machine.changed_pages(who).unwrap().iter().collect::<Vec<_>>();
    assert_eq!(changed(&mut machine, &one).len(), MEMORY_MIN as usize / PAGE_SIZE, "all are new");
    write(&machine, (PAGE_SIZE as u64 * 7, 1));
    assert_eq!(changed(&mut machine, &one), [7]);
    write(&machine, (PAGE_SIZE as u64 * 9 - 1, 1));
    assert_eq!(changed(&mut machine, &one), [8]);
    assert_eq!(changed(&mut machine, &one), [0; 0]);
    assert_eq!(changed(&mut machine, &other).len(), MEMORY_MIN as usize / PAGE_SIZE);
    assert_eq!(changed(&mut machine, &other), [0; 0]);
}
