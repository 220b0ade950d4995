//! Captures of a machine that runs on, against its memory as it was.

mod state;
mod writer;

use echovisor_event::limits::PAGE_SIZE;
use echovisor_machine::{Consumer, Machine, Memory};
use echovisor_snapshot::{Capture, Image, PageDigests, Precopy};
use proptest::prelude::*;
use state::{memory, scripted};
use writer::{Change, Writer, Written, change, changes};

/// All of a guest's pages, of which most are zero.
fn pages(read: impl Fn(usize, &mut [u8; PAGE_SIZE]), count: usize) -> Vec<Option<[u8; PAGE_SIZE]>> {
    let mut page = [0; PAGE_SIZE];
    let mut all = Vec::new();
    for index in 0..count {
        read(index, &mut page);
        all.push((page != [0; PAGE_SIZE]).then_some(page));
    }
    all
}

/// As the recorder does it: rounds while the guest writes, the rest while it stands.
fn capture(
    machine: &mut Machine<Writer>,
    written: &Written,
    (consumer, complete): (&Consumer, bool),
    rounds: Vec<Vec<Change>>,
) -> Capture {
    let mut precopy = Precopy::new(machine.memory(), complete);
    for changes in rounds {
        let changed = machine.changed_pages(consumer).unwrap();
        // Half of what the guest writes meanwhile comes before the copy is made, and half behind it.
        let (before, behind) = changes.split_at(changes.len() / 2);
        before.iter().for_each(|at| change(machine, written, *at));
        precopy.copy(&changed);
        precopy.reserve(3);
        behind.iter().for_each(|at| change(machine, written, *at));
    }
    let changed = machine.changed_pages(consumer).unwrap();
    precopy.copy(&changed);
    precopy.finish(machine.save().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The first capture is the memory as it was, and each further one makes the one before into the memory as it was then.
    #[test]
    fn a_capture_is_the_memory_as_it_was(
        before in changes(),
        captures in prop::collection::vec((prop::collection::vec(changes(), 0..4), changes()), 1..5),
    ) {
        let (mut machine, written) = Writer::machine();
        before.into_iter().for_each(|at| change(&machine, &written, at));
        let consumer = machine.track_pages().unwrap();
        let mut known = vec![None; machine.memory().pages()];
        let mut digests = PageDigests::of_zeros(known.len());
        for (number, (rounds, behind)) in captures.into_iter().enumerate() {
            let capture = capture(&mut machine, &written, (&consumer, number == 0), rounds);
            let was = pages(|index, page| machine.memory().read_page(index, page), known.len());
            let root = PageDigests::of(machine.memory()).root();
            // The machine runs on.
            behind.into_iter().for_each(|at| change(&machine, &written, at));

            let contents = pages(|index, page| capture.read_page(index, page), known.len());
            for index in capture.pages().iter() {
                known[index] = contents[index];
            }
            prop_assert!(known == was, "capture {}", number);
            if capture.is_complete() {
                prop_assert!(contents == was);
                prop_assert_eq!(capture.page_digests().root(), root);
                prop_assert_eq!(capture.pages().len(), was.iter().flatten().count(), "no page of zeros");
            }
            capture.update(&mut digests);
            prop_assert_eq!(digests.root(), root);
        }
    }
}

#[test]
fn an_image_of_a_capture_is_the_image_of_the_state() {
    let memory: Memory = memory();
    for page in [0, 3, 700] {
        memory.write_page(page, &[page as u8 + 1; PAGE_SIZE]);
    }
    let capture = Capture::whole(&memory, scripted());
    assert_eq!(Image::of(&capture), Image::capture(&memory, scripted()));
    assert_eq!((capture.position(), capture.memory_size()), (scripted().position, memory.size()));
}
