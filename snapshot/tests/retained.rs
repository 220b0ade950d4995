//! A state that is kept is the one that was confirmed, whatever became of the machine.

mod state;
mod writer;

use echovisor_machine::Memory;
use echovisor_snapshot::{Retained, state_digest};
use proptest::prelude::*;
use writer::{Writer, change, changes};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whether confirmed at once, later, or never.
    #[test]
    fn what_was_confirmed_last_comes_back(
        before in changes(),
        steps in prop::collection::vec((0_u8..3, changes(), changes()), 1..8),
        after in changes(),
        bad in 0..echovisor_event::limits::MEMORY_MIN,
    ) {
        let (mut machine, written) = Writer::machine();
        before.into_iter().for_each(|at| change(&machine, &written, at));
        let digest_of = |machine: &echovisor_machine::Machine<Writer>| {
            state_digest(machine.memory(), &machine.save().unwrap())
        };
        let mut confirmed = digest_of(&machine);
        let consumer = machine.track_pages().unwrap();
        machine.changed_pages(&consumer).unwrap();
        let mut retained = Retained::new(machine.memory(), machine.save().unwrap(), confirmed);
        for (step, first, second) in steps {
            first.into_iter().for_each(|at| change(&machine, &written, at));
            let staged = digest_of(&machine);
            let changed = machine.changed_pages(&consumer).unwrap();
            retained.stage(machine.memory(), &changed, machine.save().unwrap());
            if step == 1 {
                second.into_iter().for_each(|at| change(&machine, &written, at));
            }
            if step > 0 {
                retained.confirm(staged);
                confirmed = staged;
            }
        }
        after.into_iter().for_each(|at| change(&machine, &written, at));
        // On nobody's account, as memory goes bad.
        machine.memory().flip(bad, 3);
        retained.put_back(machine.memory()).unwrap();
        prop_assert_eq!(state_digest(machine.memory(), retained.state()), confirmed);
    }
}

#[test]
fn a_state_that_went_bad_is_told() {
    let (machine, _) = Writer::machine();
    let memory = machine.memory();
    let expected = state_digest(memory, &machine.save().unwrap());
    // What is copied is bad already.
    memory.flip(4096, 0);
    let mut retained = Retained::new(memory, machine.save().unwrap(), expected);
    let spoilt = retained.put_back(&Memory::new(memory.size()).unwrap()).unwrap_err();
    assert_eq!((spoilt.expected, spoilt.at), (expected, machine.position()));
}
