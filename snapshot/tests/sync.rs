//! A walk gives a memory the content of another, and is sent nothing that it has.

mod state;

use std::{collections::HashSet, sync::Arc};

use echovisor_event::limits::{ASK_MAX, MEMORY_MIN, PAGE_SIZE};
use echovisor_machine::{
    MachineState, Memory,
    cpu::{CpuState, kvm::KvmState},
};
use echovisor_snapshot::{
    Capture, PageDigests,
    sync::{Answer, Ask, AskError, Source, Walk, WalkError, field_differences},
};
use proptest::prelude::*;
use state::{kvm, memory, scripted};
use vm_memory::{Bytes, GuestAddress};

fn write(memory: &Memory, writes: &[(u64, u8)]) {
    for (address, byte) in writes {
        memory.mmap().write_obj(*byte, GuestAddress(*address)).unwrap();
    }
}

fn writes() -> impl Strategy<Value = Vec<(u64, u8)>> {
    prop::collection::vec((0..MEMORY_MIN, 0_u8..3), 0..30)
}

fn source(memory: &Memory) -> Source {
    Source::new(Arc::new(Capture::whole(memory, scripted())))
}

fn walk(memory: &Memory, source: &Source) -> Walk {
    Walk::new(memory.clone(), PageDigests::of(memory), source.root())
}

/// Answers at most so many questions; how many pages these were.
fn answer(walk: &mut Walk, source: &mut Source, mut most: usize) -> Result<u64, WalkError> {
    let mut pages = 0;
    while !walk.is_complete() && most > 0 {
        let mut asked = Vec::new();
        while let Some(ask) = walk.ask() {
            asked.push(ask);
        }
        assert!(!asked.is_empty(), "it waits for nothing");
        for ask in asked.into_iter().take(most) {
            most -= 1;
            let bytes = source.answer(&ask).unwrap();
            if ask.level == 0 {
                pages += ask.numbers.len() as u64;
                walk.take(Answer::Pages(&bytes))?;
            } else {
                walk.take(Answer::Nodes(&bytes))?;
            }
        }
    }
    Ok(pages)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn only_what_differs_travels(ours in writes(), theirs in writes(), shared in writes(), broken_off in 0_usize..6) {
        let (here, there) = (memory(), memory());
        for memory in [&here, &there] {
            write(memory, &shared);
        }
        write(&here, &ours);
        write(&there, &theirs);
        let (before, wanted) = (PageDigests::of(&here), PageDigests::of(&there));
        let zero = PageDigests::of_zeros(1).root();
        let contents: HashSet<_> =
            before.differences(&wanted).into_iter().map(|page| wanted.pages()[page]).collect();
        let lacking = contents.iter().filter(|digest| **digest != zero).count() as u64;
        let new = contents.iter().filter(|digest| !before.pages().contains(digest)).count() as u64;

        let mut source = self::source(&there);
        let mut first = walk(&here, &source);
        let mut sent = answer(&mut first, &mut source, broken_off).unwrap();
        let (memory, digests, _) = first.end();
        prop_assert_eq!(&digests, &PageDigests::of(&memory), "of what is there");
        let mut second = Walk::new(memory, digests, source.root());
        sent += answer(&mut second, &mut source, usize::MAX).unwrap();
        let (memory, digests, _) = second.end();
        prop_assert_eq!(digests.root(), source.root());
        prop_assert_eq!(PageDigests::of(&memory), wanted);
        prop_assert!(sent <= lacking, "no content is sent twice, though the walk was broken off");
        prop_assert!(sent >= new);
    }

    #[test]
    fn differences_are_told_by_page(ours in writes(), theirs in writes()) {
        let (here, there) = (memory(), memory());
        write(&here, &ours);
        write(&there, &theirs);
        let expected = PageDigests::of(&here).differences(&PageDigests::of(&there));
        let mut source = self::source(&there);
        let mut walk = walk(&here, &source).noting();
        answer(&mut walk, &mut source, usize::MAX).unwrap();
        let (_, _, differences) = walk.end();
        prop_assert_eq!(differences.pages, expected.len() as u64);
        let listed: Vec<_> = differences.listed.iter().map(|difference| difference.page).collect();
        prop_assert_eq!(listed, expected);
    }

    /// No answer but the right one changes the memory or brings the walk down.
    #[test]
    fn a_wrong_answer_is_refused(
        theirs in writes(), wrong in 0_usize..4, at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let (here, there) = (memory(), memory());
        write(&there, &theirs);
        let mut source = self::source(&there);
        let mut walk = walk(&here, &source);
        answer(&mut walk, &mut source, wrong).unwrap();
        let Some(ask) = walk.ask() else { return Ok(()) };
        let mut bytes = source.answer(&ask).unwrap();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        let refused = walk.take(if ask.level == 0 { Answer::Pages(&bytes) } else { Answer::Nodes(&bytes) });
        if let Err(error) = &refused {
            prop_assert!(matches!(error, WalkError::Damaged { .. } | WalkError::Digest { .. }), "{error}");
        } else {
            // Not every bit of a compressed frame changes what comes out.
            prop_assert_eq!(ask.level, 0);
        }
    }
}

#[test]
fn a_walk_takes_only_what_it_asked_for() {
    let (here, there) = (memory(), memory());
    write(&there, &[(5 * PAGE_SIZE as u64, 1)]);
    let mut source = self::source(&there);
    assert_eq!(walk(&here, &source).take(Answer::Nodes(&[])), Err(WalkError::Unasked("nodes")));
    let mut walk = walk(&here, &source);
    let ask = walk.ask().unwrap();
    assert!(ask.level > 0);
    let nodes = source.answer(&ask).unwrap();
    assert_eq!(walk.take(Answer::Pages(&nodes)), Err(WalkError::Unasked("pages")));
    assert!(matches!(walk.take(Answer::Nodes(&nodes[1..])), Err(WalkError::Damaged { .. })));
}

#[test]
fn equal_memories_ask_for_nothing() {
    let source = self::source(&memory());
    let mut walk = walk(&memory(), &source);
    assert!(walk.is_complete());
    assert_eq!(walk.ask(), None);
}

/// The `n`th byte of the page with this number.
fn at(page: u64, n: u64) -> u64 {
    page * PAGE_SIZE as u64 + n
}

#[test]
fn what_several_pages_hold_is_sent_once() {
    let (here, there) = (memory(), memory());
    let equal: Vec<_> = (3..103).map(|page| (at(page, 7), 1)).collect();
    write(&there, &equal);
    write(&there, &[(at(200, 7), 2)]);
    let mut source = self::source(&there);
    let mut walk = walk(&here, &source);
    assert_eq!(answer(&mut walk, &mut source, usize::MAX), Ok(2));
    assert_eq!(walk.fetched(), 2);
    assert_eq!(PageDigests::of(&here).root(), source.root());
}

#[test]
fn what_is_here_under_another_number_is_not_sent() {
    let (here, there) = (memory(), memory());
    // Moved, doubled and exchanged; and one that is only where another content belongs by now.
    write(&here, &[(at(1, 0), 1), (at(2, 0), 2), (at(3, 0), 3), (at(4, 0), 4)]);
    write(&there, &[(at(9, 0), 1), (at(8, 0), 1), (at(3, 0), 4), (at(4, 0), 3)]);
    let mut source = self::source(&there);
    let mut walk = walk(&here, &source);
    assert_eq!(answer(&mut walk, &mut source, usize::MAX), Ok(1), "one of those that are exchanged");
    assert_eq!(PageDigests::of(&here).root(), source.root());
}

#[test]
fn a_source_answers_no_more_than_there_is() {
    let mut source = self::source(&memory());
    let pages = (MEMORY_MIN / PAGE_SIZE as u64) as u32;
    let ask = |level, numbers: &[u32]| Ask { level, numbers: numbers.to_vec(), left: 0 };
    for (level, number) in [(0, pages), (1, pages / 64), (2, 1), (3, 0), (9, 0), (255, u32::MAX)] {
        let error = source.answer(&ask(level, &[0, number])).unwrap_err();
        assert!(matches!(error, AskError::Unknown { level: found, .. } if found == level), "{error}");
    }
    let many = vec![0; ASK_MAX + 1];
    assert!(matches!(source.answer(&ask(0, &many)), Err(AskError::TooMany { .. })));
    assert!(source.answer(&ask(0, &[pages - 1])).is_ok());
}

#[test]
fn registers_and_devices_that_differ_are_named() {
    let expected = kvm();
    assert_eq!(field_differences(&expected, &expected), []);
    let CpuState::Kvm(cpu) = &expected.cpu else { panic!("a KVM state") };
    let mut changed = KvmState::clone(cpu);
    changed.regs.rax ^= 0x10;
    changed.fpu.xmm[3][5] ^= 1;
    changed.sregs.cs.base = 7;
    let found = MachineState { idle: None, cpu: CpuState::Kvm(Box::new(changed)), ..expected.clone() };
    let found = MachineState { powered_off: Some(3), ..found };
    let differences = field_differences(&expected, &found);
    let names: Vec<_> = differences.iter().map(|difference| difference.name.as_str()).collect();
    for name in ["cpu.fpu.xmm.3.5", "cpu.regs.rax", "cpu.sregs.cs.base"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("powered_off")), "{names:?}");
    let rax = differences.iter().find(|difference| difference.name == "cpu.regs.rax").unwrap();
    assert_ne!(rax.expected, rax.found);
    assert!(rax.found.starts_with("0x"), "{rax:?}");
}
