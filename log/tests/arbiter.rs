//! Who may run a virtual machine: the rules, and the file that keeps the answer.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread};

use echovisor_event::{NodeId, Term, VmId};
use echovisor_log::arbiter::{
    self, Arbiter, ArbiterError, CasOutcome, FileArbiter, Mode, Record,
    rules::{self, RuleError},
};
use proptest::prelude::*;
use tempfile::TempDir;

const VM: VmId = VmId([1; 16]);
const A: NodeId = NodeId([0xa; 16]);
const B: NodeId = NodeId([0xb; 16]);

fn record(term: u64, holder: NodeId, mode: Mode) -> Record {
    Record { vm: VM, term: Term(term), holder, mode }
}

fn file(dir: &Path) -> FileArbiter {
    FileArbiter::new(dir.join("vm.json"))
}

#[test]
fn a_life_with_a_takeover() {
    let dir = TempDir::new().unwrap();
    let arbiter = file(dir.path());
    let mut present = None;
    assert_eq!(arbiter.read().unwrap(), None);
    let mut step = |new: Result<Record, RuleError>| {
        let new = new.unwrap();
        assert_eq!(arbiter.compare_and_set(present.as_ref(), &new).unwrap(), CasOutcome::Won);
        assert_eq!(arbiter.read().unwrap(), Some(new));
        // Who expects something else loses, and learns what there is.
        let outcome = arbiter.compare_and_set(present.as_ref(), &record(99, B, Mode::Solo)).unwrap();
        assert_eq!(outcome, CasOutcome::Lost(Some(new)));
        present = Some(new);
        present
    };
    let solo = step(rules::start(None, VM, A));
    assert_eq!(solo, Some(record(1, A, Mode::Solo)));
    let protected = step(rules::protect(solo.as_ref(), A, B));
    assert_eq!(protected, Some(record(1, A, Mode::Protected(B))));
    let taken = step(rules::take_over(protected.as_ref(), B));
    assert_eq!(taken, Some(record(2, B, Mode::Solo)));
    let protected = step(rules::protect(taken.as_ref(), B, A));
    let solo = step(rules::go_solo(protected.as_ref(), B));
    assert_eq!(solo, Some(record(2, B, Mode::Solo)));
    let ended = step(rules::end(solo.as_ref(), B));
    assert_eq!(ended, Some(record(2, B, Mode::Ended)));
    assert_eq!(step(rules::start(ended.as_ref(), VM, A)), Some(record(3, A, Mode::Solo)));
}

#[test]
fn what_is_not_allowed_is_refused_with_a_way_out() {
    let solo = record(4, A, Mode::Solo);
    let protected = record(4, A, Mode::Protected(B));
    let ended = record(4, A, Mode::Ended);
    let refusals = [
        (rules::start(Some(&solo), VM, B), RuleError::Held(solo)),
        (rules::start(Some(&protected), VM, B), RuleError::Held(protected)),
        (rules::start(Some(&protected), VM, A), RuleError::ProtectedByPeer { vm: VM, peer: B }),
        (rules::start(Some(&solo), VmId([2; 16]), A), RuleError::Held(solo)),
        (rules::protect(Some(&solo), B, A), RuleError::Superseded { me: B, record: solo }),
        (rules::protect(Some(&ended), A, B), RuleError::Ended { vm: VM, term: Term(4) }),
        (rules::protect(None, A, B), RuleError::NoRecord),
        (rules::go_solo(Some(&protected), B), RuleError::Superseded { me: B, record: protected }),
        (rules::take_over(Some(&solo), B), RuleError::NotEligible { me: B, record: solo }),
        (rules::take_over(Some(&protected), A), RuleError::NotEligible { me: A, record: protected }),
        (rules::take_over(Some(&ended), B), RuleError::Ended { vm: VM, term: Term(4) }),
        (rules::end(Some(&solo), B), RuleError::Superseded { me: B, record: solo }),
    ];
    for (result, expected) in refusals {
        assert_eq!(result.as_ref(), Err(&expected));
        assert!(expected.hint().is_some(), "{expected}");
    }
    assert_eq!(rules::protect(Some(&solo), A, A), Err(RuleError::Itself(A)));
    // A holder without a peer that comes back goes on, in a new term.
    assert_eq!(rules::start(Some(&solo), VM, A), Ok(record(5, A, Mode::Solo)));
}

#[test]
fn who_comes_back_goes_on_with_what_it_has_kept_unless_somebody_else_has() {
    use rules::Kept::{Partly, RollbackAccepted, Whole};
    let (solo, protected) = (record(4, A, Mode::Solo), record(4, A, Mode::Protected(B)));
    let (ended, elsewhere) = (record(4, A, Mode::Ended), record(5, B, Mode::Ended));
    let restart = |present: Option<&Record>, known, kept| rules::restart(present, VM, A, Term(known), kept);
    let goes_on = |term| Ok(record(term, A, Mode::Solo));
    for present in [solo, protected, ended] {
        assert_eq!(restart(Some(&present), 4, Whole), goes_on(5));
        assert_eq!(restart(Some(&present), 4, RollbackAccepted), goes_on(5));
    }
    assert_eq!(restart(None, 7, Whole), goes_on(8), "the record was removed on purpose");
    assert_eq!(restart(Some(&elsewhere), 4, RollbackAccepted), goes_on(6));
    // It has tried before, and did not come to run it.
    assert_eq!(restart(Some(&solo), 6, Whole), goes_on(7));

    let (taken, later) = (record(5, B, Mode::Protected(A)), record(5, A, Mode::Solo));
    let refusals = [
        (restart(Some(&solo), 4, Partly), RuleError::MayRollBack { vm: VM }),
        (restart(None, 4, Partly), RuleError::MayRollBack { vm: VM }),
        (restart(Some(&protected), 4, Partly), RuleError::ProtectedByPeer { vm: VM, peer: B }),
        (restart(Some(&taken), 4, RollbackAccepted), RuleError::Held(taken)),
        // This node took over from another, and what it did then is not in its store.
        (restart(Some(&later), 4, RollbackAccepted), RuleError::Held(later)),
        (restart(Some(&elsewhere), 4, Whole), RuleError::WentOn(elsewhere)),
    ];
    for (result, expected) in refusals {
        assert_eq!(result.as_ref(), Err(&expected));
        assert!(expected.hint().is_some(), "{expected}");
    }
}

/// Holder and peer both act at once, again and again: each time exactly one of them wins.
#[test]
fn of_two_that_race_exactly_one_wins() {
    let dir = TempDir::new().unwrap();
    let mut present = record(1, A, Mode::Protected(B));
    assert_eq!(file(dir.path()).compare_and_set(None, &present).unwrap(), CasOutcome::Won);
    for _ in 0..100 {
        let moves =
            [rules::go_solo(Some(&present), A).unwrap(), rules::take_over(Some(&present), B).unwrap()];
        let outcomes = thread::scope(|scope| {
            let attempts = moves.map(|new| {
                let arbiter = file(dir.path());
                scope.spawn(move || arbiter.compare_and_set(Some(&present), &new).unwrap())
            });
            attempts.map(|attempt| attempt.join().unwrap())
        });
        let winner = match outcomes {
            [CasOutcome::Won, CasOutcome::Lost(Some(seen))] if seen == moves[0] => moves[0],
            [CasOutcome::Lost(Some(seen)), CasOutcome::Won] if seen == moves[1] => moves[1],
            other => panic!("{other:?}"),
        };
        assert_eq!(file(dir.path()).read().unwrap(), Some(winner));
        let again = record(winner.term.0 + 1, A, Mode::Protected(B));
        assert_eq!(file(dir.path()).compare_and_set(Some(&winner), &again).unwrap(), CasOutcome::Won);
        present = again;
    }
}

#[test]
fn addresses_are_parsed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x");
    let arbiter = arbiter::open(&format!("file:{}", path.display())).unwrap();
    assert_eq!(arbiter.compare_and_set(None, &record(1, A, Mode::Solo)).unwrap(), CasOutcome::Won);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(arbiter::open("etcd:http://localhost:2379"), Err(ArbiterError::Unsupported { .. })));
    for address in ["", "file", "file:", "consul:x"] {
        let error = arbiter::open(address).err().unwrap();
        assert!(matches!(error, ArbiterError::Address { .. }) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn a_file_that_holds_no_record_is_said_to_be_none_and_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vm.json");
    let good = record(7, A, Mode::Protected(B)).to_json();
    let bad = [
        String::new(),
        "{}".to_owned(),
        good.replace("\"peer\"", "\"pier\""),
        good.replace("protected", "solo"),
        good.replace("protected", "free"),
        good.replace(&B.to_string(), &A.to_string()),
        good.replace(&A.to_string(), "a"),
        good.replace('7', "-7"),
        good.replace('7', &u64::MAX.to_string()),
        good[..good.len() / 2].to_owned(),
        good.clone() + &good,
        " ".repeat(5000) + &good,
    ];
    for text in bad {
        fs::write(&path, &text).unwrap();
        for error in [
            file(dir.path()).read().unwrap_err(),
            file(dir.path()).compare_and_set(None, &record(1, A, Mode::Solo)).unwrap_err(),
        ] {
            assert!(matches!(error, ArbiterError::Invalid { .. }) && error.hint().is_some(), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // What a person may well write by hand.
    fs::write(&path, good.replace([' ', '\n'], "")).unwrap();
    assert_eq!(file(dir.path()).read().unwrap(), Some(record(7, A, Mode::Protected(B))));

    let nowhere = FileArbiter::new(dir.path().join("no/vm.json"));
    assert_eq!(nowhere.read().unwrap(), None);
    let error = nowhere.compare_and_set(None, &record(1, A, Mode::Solo)).unwrap_err();
    assert!(matches!(error, ArbiterError::Io { .. }) && error.hint().is_some(), "{error}");
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert!(matches!(FileArbiter::new(dir.path().join("dir")).read(), Err(ArbiterError::Io { .. })));
}

proptest! {
    #[test]
    fn records_survive_their_text(vm: [u8; 16], term: u64, holder: [u8; 16], peer: [u8; 16], mode in 0..3) {
        prop_assume!(holder != peer && term != u64::MAX);
        let mode = [Mode::Solo, Mode::Protected(NodeId(peer)), Mode::Ended][mode as usize];
        let record = Record { vm: VmId(vm), term: Term(term), holder: NodeId(holder), mode };
        prop_assert_eq!(Record::from_json(record.to_json().as_bytes()), Ok(record));
    }

    #[test]
    fn random_and_changed_texts_are_refused_or_valid(bytes: Vec<u8>, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        prop_assert!(Record::from_json(&bytes).is_err());
        let mut text = record(7, A, Mode::Protected(B)).to_json().into_bytes();
        for (index, byte) in changes {
            let index = index.index(text.len());
            text[index] = byte;
        }
        if let Ok(record) = Record::from_json(&text) {
            prop_assert_eq!(Record::from_json(record.to_json().as_bytes()), Ok(record));
        }
    }
}
