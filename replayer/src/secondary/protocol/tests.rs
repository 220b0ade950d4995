//! The secondary's decisions, one by one.

use echovisor_event::{NodeId, Term, VmId};
use echovisor_log::arbiter::Mode;

use super::*;

fn at(millis: u64) -> Duration {
    Duration::from_millis(1_000_000 + millis)
}

fn step(protocol: &mut Protocol, now: u64, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    protocol.step(at(now), input, &mut actions);
    actions
}

fn following() -> Protocol {
    let mut protocol = Protocol::new(Timing::default());
    step(&mut protocol, 0, Input::Connected(false));
    assert_eq!(step(&mut protocol, 1, Input::Loaded), [Action::SayReady]);
    protocol
}

fn eligible() -> Protocol {
    let mut protocol = following();
    step(&mut protocol, 2, Input::Granted(Position(10)));
    step(&mut protocol, 3, Input::Held(Position(10)));
    assert!(protocol.is_eligible());
    protocol
}

fn record() -> Record {
    Record { vm: VmId([0; 16]), term: Term(2), holder: NodeId([2; 16]), mode: Mode::Solo }
}

#[test]
fn a_grant_counts_from_what_has_left_the_primary() {
    let mut protocol = following();
    step(&mut protocol, 2, Input::Granted(Position(10)));
    step(&mut protocol, 3, Input::Held(Position(9)));
    assert!(!protocol.is_eligible());
}

#[test]
fn who_is_not_eligible_never_asks_for_the_guest() {
    let mut protocol = following();
    let actions = step(&mut protocol, 900, Input::Tick);
    assert!(!actions.contains(&Action::AskArbiter));
    assert!(actions.contains(&Action::Forget));
}

#[test]
fn a_closed_link_is_no_death() {
    let mut protocol = eligible();
    assert_eq!(step(&mut protocol, 5, Input::LinkLost), [Action::Dial(at(5))]);
    assert_eq!(step(&mut protocol, 6, Input::Connected(true)), []);
    assert!(protocol.is_eligible());
    assert_eq!(protocol.state(), State::Following);
}

#[test]
fn a_primary_that_does_not_answer_is_replaced_only_by_the_arbiter() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::LinkLost);
    assert_eq!(step(&mut protocol, 6, Input::Unreachable), [Action::AskArbiter]);
    assert_eq!(step(&mut protocol, 9, Input::Won(record())), [Action::Promote(record())]);
}

#[test]
fn a_primary_that_gives_no_answer_is_suspected_after_its_time() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::LinkLost);
    assert_eq!(step(&mut protocol, 100, Input::NoAnswer), [Action::Dial(at(110))]);
    assert_eq!(step(&mut protocol, 503, Input::NoAnswer), [Action::AskArbiter]);
}

#[test]
fn who_is_refused_while_the_arbiter_has_not_spoken_keeps_what_it_holds() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::LinkLost);
    assert_eq!(step(&mut protocol, 6, Input::Refused), [Action::Dial(at(206))]);
    assert!(protocol.is_eligible());
    assert_eq!(step(&mut protocol, 206, Input::Unreachable), [Action::AskArbiter]);
}

#[test]
fn a_silent_primary_is_suspected_after_its_time() {
    let mut protocol = eligible();
    assert_eq!(step(&mut protocol, 502, Input::Tick), []);
    assert_eq!(step(&mut protocol, 503, Input::Tick), [Action::CloseLink, Action::AskArbiter]);
}

#[test]
fn who_loses_at_the_arbiter_forgets_and_joins_anew() {
    let mut protocol = eligible();
    step(&mut protocol, 600, Input::Tick);
    let actions = step(&mut protocol, 601, Input::Lost);
    assert!(actions.contains(&Action::Forget));
    assert!(!protocol.is_eligible());
    assert_eq!(protocol.state(), State::Dialling);
}

#[test]
fn a_divergence_ends_eligibility_at_once() {
    let mut protocol = eligible();
    assert_eq!(step(&mut protocol, 5, Input::Diverged), [], "the primary gives it another state");
    assert!(!protocol.is_eligible());
    step(&mut protocol, 6, Input::Announced);
    step(&mut protocol, 7, Input::Granted(Position(10)));
    assert_eq!(step(&mut protocol, 8, Input::Loaded), [Action::SayReady]);
    assert!(!protocol.is_eligible(), "what was granted before counts no more");
}

#[test]
fn who_has_diverged_when_the_primary_dies_goes_back_first() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::Diverged);
    step(&mut protocol, 6, Input::Held(Position(20)));
    assert_eq!(step(&mut protocol, 7, Input::LinkLost), [Action::GoBack, Action::Dial(at(7))]);
    assert_eq!(step(&mut protocol, 8, Input::Unreachable), [Action::Dial(at(18))], "not before it is back");
    assert!(!protocol.is_eligible());
    assert_eq!(step(&mut protocol, 15, Input::WentBack), []);
    assert_eq!(step(&mut protocol, 18, Input::Unreachable), [Action::AskArbiter]);
}

#[test]
fn who_has_diverged_and_hears_no_more_of_the_primary_goes_back() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::Diverged);
    assert_eq!(protocol.wake_at(), Some(at(505)));
    let actions = step(&mut protocol, 505, Input::Tick);
    assert_eq!(actions, [Action::CloseLink, Action::GoBack, Action::Dial(at(505))]);
}

#[test]
fn who_is_given_another_state_does_not_go_back() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::Diverged);
    step(&mut protocol, 6, Input::Announced);
    let actions = step(&mut protocol, 7, Input::LinkLost);
    assert!(actions.contains(&Action::Forget) && !actions.contains(&Action::GoBack), "{actions:?}");
}

#[test]
fn who_diverges_without_a_link_goes_back_a_few_times() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::LinkLost);
    for _ in 0..ATTEMPTS {
        assert_eq!(step(&mut protocol, 6, Input::Diverged), [Action::GoBack, Action::Dial(at(6))]);
    }
    step(&mut protocol, 7, Input::WentBack);
    assert!(protocol.is_eligible());
    assert!(step(&mut protocol, 8, Input::Diverged).contains(&Action::Forget));
    assert!(!protocol.is_eligible());
}

#[test]
fn who_went_back_and_finds_the_primary_goes_on() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::LinkLost);
    step(&mut protocol, 6, Input::Diverged);
    step(&mut protocol, 7, Input::WentBack);
    assert_eq!(step(&mut protocol, 8, Input::Connected(true)), []);
    assert!(protocol.is_eligible());
    assert_eq!(protocol.state(), State::Following);
}

#[test]
fn who_cannot_go_back_joins_anew() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::Diverged);
    step(&mut protocol, 6, Input::LinkLost);
    assert!(step(&mut protocol, 7, Input::Unfit).contains(&Action::Forget));
}

#[test]
fn what_is_of_no_use_ends_the_link() {
    let mut protocol = eligible();
    let actions = step(&mut protocol, 5, Input::Unfit);
    assert!(actions.starts_with(&[Action::CloseLink]));
    assert!(!protocol.is_eligible());
}

#[test]
fn a_primary_that_went_on_alone_is_joined_anew() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::LinkLost);
    assert_eq!(step(&mut protocol, 6, Input::Connected(false)), [Action::Forget]);
    assert!(!protocol.is_eligible());
    assert_eq!(protocol.state(), State::Loading);
}

#[test]
fn who_is_handed_the_guest_asks_for_it_when_all_of_the_log_is_executed() {
    let mut protocol = eligible();
    assert_eq!(step(&mut protocol, 5, Input::HandedOver), []);
    assert_eq!(protocol.state(), State::Receiving);
    assert_eq!(step(&mut protocol, 100, Input::Executed), [Action::AskArbiter]);
    assert_eq!(step(&mut protocol, 110, Input::Won(record())), [Action::Promote(record())]);
}

#[test]
fn who_is_handed_a_guest_and_loses_the_link_holds_it_all_the_same() {
    let mut protocol = eligible();
    step(&mut protocol, 5, Input::HandedOver);
    assert_eq!(step(&mut protocol, 6, Input::LinkLost), [Action::Dial(at(6))]);
    assert_eq!(step(&mut protocol, 7, Input::Unreachable), [Action::AskArbiter]);
}

#[test]
fn who_is_not_eligible_is_handed_nothing() {
    let mut protocol = following();
    assert!(step(&mut protocol, 5, Input::HandedOver).contains(&Action::Forget));
    assert_eq!(protocol.state(), State::Dialling);
}

#[test]
fn a_shutdown_is_no_death() {
    let mut protocol = eligible();
    assert_eq!(step(&mut protocol, 5, Input::Goodbye), []);
    assert_eq!(protocol.state(), State::Ended);
    assert_eq!(step(&mut protocol, 6, Input::LinkLost), []);
}
