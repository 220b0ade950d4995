//! The primary's protocol, step by step.

use echovisor_event::{Term, VmId};
use echovisor_log::arbiter::Mode;

use super::*;

const ME: NodeId = NodeId([1; 16]);
const PEER: NodeId = NodeId([2; 16]);

fn at(millis: u64) -> Duration {
    Duration::from_millis(1_000_000 + millis)
}

fn solo() -> Protocol {
    let record = Record { vm: VmId([9; 16]), term: Term(1), holder: ME, mode: Mode::Solo };
    Protocol::new(ME, record, Timing::default())
}

fn step(protocol: &mut Protocol, now: u64, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    protocol.step(at(now), input, &mut actions);
    actions
}

fn protected() -> Protocol {
    let mut protocol = solo();
    assert!(step(&mut protocol, 0, Input::Joined(PEER)).contains(&Action::SendImage));
    let asked = step(&mut protocol, 1, Input::Ready);
    assert!(matches!(asked[0], Action::CompareAndSet { to, .. } if to.mode == Mode::Protected(PEER)));
    assert!(step(&mut protocol, 2, Input::Won).iter().any(|action| matches!(action, Action::Protect(_))));
    protocol
}

fn ack(sequence: u64, executed: u64) -> Input {
    Input::Acknowledged(Ack { sequence, executed: Position(executed), echo: 0, durable: false })
}

#[test]
fn nothing_is_required_before_the_arbiter_agreed() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    let actions = step(&mut protocol, 1, Input::Ready);
    assert!(!actions.iter().any(|action| matches!(action, Action::Protect(_))));
    assert_eq!(protocol.state(), State::Granting(PEER));
}

#[test]
fn a_secondary_that_is_far_behind_must_catch_up_before_it_protects() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    step(&mut protocol, 10, Input::Sent(0, Position(5)));
    step(&mut protocol, 9000, ack(0, 0));
    step(&mut protocol, 9001, Input::Ready);
    assert_eq!(protocol.state(), State::Joining(PEER));
    step(&mut protocol, 9002, ack(1, 5));
    assert_eq!(protocol.state(), State::Granting(PEER));
}

#[test]
fn nothing_is_kept_for_who_left_while_joining() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    assert!(step(&mut protocol, 1, Input::LinkLost).contains(&Action::Forget));
    assert_eq!(protocol.state(), State::Solo);
}

#[test]
fn an_acknowledgement_covers_the_batches_before_it() {
    let mut protocol = protected();
    step(&mut protocol, 3, Input::Sent(7, Position(70)));
    step(&mut protocol, 3, Input::Sent(8, Position(80)));
    assert!(step(&mut protocol, 4, ack(8, 0)).contains(&Action::Acknowledge(Position(70))));
    assert!(step(&mut protocol, 5, ack(9, 0)).contains(&Action::Acknowledge(Position(80))));
}

#[test]
fn a_silent_peer_is_required_until_the_arbiter_agreed_to_go_on_without_it() {
    let mut protocol = protected();
    let actions = step(&mut protocol, 600, Input::Tick);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::CompareAndSet { to, .. } if to.mode == Mode::Solo))
    );
    assert!(!actions.contains(&Action::Unprotect));
    assert!(step(&mut protocol, 601, Input::Won).contains(&Action::Unprotect));
    assert_eq!(protocol.state(), State::Solo);
}

#[test]
fn who_lost_the_guest_halts() {
    let mut protocol = protected();
    step(&mut protocol, 600, Input::Tick);
    let winner = Record { term: Term(2), holder: PEER, ..*protocol.record() };
    assert_eq!(step(&mut protocol, 601, Input::Lost(winner)), [Action::Halt(winner)]);
    assert_eq!(protocol.state(), State::Fenced);
}

#[test]
fn a_flap_costs_nothing() {
    let mut protocol = protected();
    assert_eq!(step(&mut protocol, 10, Input::LinkLost), []);
    assert!(protocol.welcomes(PEER, true));
    assert!(!protocol.welcomes(NodeId([3; 16]), false));
    step(&mut protocol, 20, Input::Resumed(PEER));
    assert_eq!(protocol.state(), State::Protected(PEER, true));
}

#[test]
fn the_guest_waits_for_a_slow_secondary_and_gives_up_one_that_stalls() {
    let mut protocol = protected();
    step(&mut protocol, 10, Input::Sent(1, Position(5)));
    assert!(step(&mut protocol, 150, ack(2, 4)).contains(&Action::Throttle(true)));
    assert!(step(&mut protocol, 160, ack(2, 5)).contains(&Action::Throttle(false)));
    step(&mut protocol, 170, Input::Sent(2, Position(9)));
    for now in (200..5300).step_by(100) {
        step(&mut protocol, now, ack(3, 5)); // it is heard, but does not move
    }
    assert_eq!(protocol.state(), State::Leaving(PEER));
}

#[test]
fn a_lease_never_outlives_what_the_peer_has_seen() {
    let mut protocol = protected();
    let stamp = at(100).as_nanos() as u64;
    let input = Input::Acknowledged(Ack { sequence: 0, executed: Position(0), echo: stamp, durable: false });
    let lease = Timing::default().lease();
    assert!(step(&mut protocol, 150, input).contains(&Action::Renew(at(100) + lease)));
    assert!(lease < Timing::default().suspicion);
}

#[test]
fn the_echo_of_another_clock_renews_nothing() {
    let mut protocol = protected();
    let stamp = at(1_000_000).as_nanos() as u64;
    let input = Input::Acknowledged(Ack { sequence: 0, executed: Position(0), echo: stamp, durable: false });
    assert!(!step(&mut protocol, 150, input).iter().any(|action| matches!(action, Action::Renew(_))));
}

#[test]
fn who_is_gone_before_it_was_granted_anything_is_not_waited_for() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    step(&mut protocol, 1, Input::Ready);
    step(&mut protocol, 2, Input::LinkLost);
    let actions = step(&mut protocol, 3, Input::Won);
    assert!(!actions.iter().any(|action| matches!(action, Action::Protect(_))));
    assert_eq!(protocol.state(), State::Leaving(PEER));
}

#[test]
fn a_joiner_whose_host_dies_makes_room_soon() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    step(&mut protocol, 100, ack(0, 0));
    assert_eq!(protocol.state(), State::Joining(PEER));
    let actions = step(&mut protocol, 5100, Input::Tick);
    assert!(matches!(actions[..], [.., Action::CloseLink(_), Action::Forget]), "{actions:?}");
    assert_eq!(protocol.state(), State::Solo);
}

#[test]
fn who_does_not_finish_joining_makes_room() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    for now in (100..120_000).step_by(100) {
        step(&mut protocol, now, ack(0, 0));
    }
    let actions = step(&mut protocol, 120_000, ack(0, 0));
    assert!(matches!(actions[..], [.., Action::CloseLink(_), Action::Forget]), "{actions:?}");
    assert_eq!(protocol.state(), State::Solo);
}

#[test]
fn a_shutdown_is_no_death() {
    let mut protocol = protected();
    let actions = step(&mut protocol, 10, Input::End);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::CompareAndSet { to, .. } if to.mode == Mode::Ended))
    );
    let waiting = step(&mut protocol, 400, Input::Tick);
    assert!(
        matches!(waiting[..], [Action::Heartbeat(_)]),
        "the secondary hears that somebody lives: {waiting:?}"
    );
    assert!(step(&mut protocol, 401, Input::Won).contains(&Action::Finish));
}

/// A primary whose secondary has been told that the guest is its.
fn told() -> Protocol {
    let mut protocol = protected();
    let asked = step(&mut protocol, 10, Input::HandOver);
    let Action::CompareAndSet { from, to } = asked[0] else { panic!("{asked:?}") };
    assert_eq!(from, to, "nothing but whether the arbiter answers");
    assert!(step(&mut protocol, 11, Input::Won).contains(&Action::Pause));
    assert!(step(&mut protocol, 12, Input::Quiet).contains(&Action::HandOver));
    assert_eq!(protocol.state(), State::Handing(PEER, Step::Told));
    protocol
}

#[test]
fn a_guest_is_handed_over_when_the_secondary_holds_all_of_its_log() {
    let mut protocol = protected();
    step(&mut protocol, 10, Input::HandOver);
    step(&mut protocol, 11, Input::Won);
    step(&mut protocol, 12, Input::Sent(7, Position(70)));
    assert_eq!(step(&mut protocol, 13, Input::Quiet), []);
    assert!(step(&mut protocol, 14, ack(8, 70)).contains(&Action::Acknowledge(Position(70))));
    assert_eq!(step(&mut protocol, 14, Input::Quiet), [Action::HandOver]);
}

#[test]
fn who_has_handed_the_guest_over_halts_when_the_arbiter_says_so() {
    let mut protocol = told();
    let asked = step(&mut protocol, 20, Input::LinkLost);
    assert!(matches!(asked[..], [Action::CompareAndSet { to, .. }] if to.mode == Mode::Solo), "{asked:?}");
    let winner = Record { term: Term(2), holder: PEER, mode: Mode::Solo, ..*protocol.record() };
    assert_eq!(step(&mut protocol, 21, Input::Lost(winner)), [Action::Halt(winner)]);
}

#[test]
fn a_guest_that_the_secondary_did_not_take_goes_on_when_the_arbiter_agreed() {
    let mut protocol = told();
    assert!(!step(&mut protocol, 20, Input::LinkLost).contains(&Action::Resume));
    let actions = step(&mut protocol, 21, Input::Won);
    assert!(actions.contains(&Action::Unprotect) && actions.contains(&Action::Resume), "{actions:?}");
    assert_eq!(protocol.state(), State::Solo);
}

#[test]
fn a_secondary_that_does_not_take_the_guest_is_given_up() {
    let mut protocol = told();
    for now in (100..2012).step_by(100) {
        assert!(
            !step(&mut protocol, now, ack(0, 0)).iter().any(|a| matches!(a, Action::CompareAndSet { .. }))
        );
    }
    let actions = step(&mut protocol, 2012, ack(0, 0));
    assert!(actions.iter().any(|action| matches!(action, Action::CompareAndSet { .. })), "{actions:?}");
    assert_eq!(protocol.state(), State::Leaving(PEER));
}

#[test]
fn before_the_secondary_is_told_a_switchover_can_be_taken_back() {
    let mut protocol = protected();
    step(&mut protocol, 10, Input::HandOver);
    step(&mut protocol, 11, Input::Won);
    let actions = step(&mut protocol, 12, Input::LinkLost);
    assert!(matches!(actions[..], [Action::Resume, Action::Keep(_)]), "{actions:?}");
    assert_eq!(protocol.state(), State::Protected(PEER, false));
    assert_eq!(step(&mut protocol, 13, Input::Quiet), [], "a guest that went on meanwhile");
}

#[test]
fn no_guest_stands_still_for_an_arbiter_that_is_silent() {
    let mut protocol = protected();
    step(&mut protocol, 10, Input::HandOver);
    for now in (100..2010).step_by(100) {
        step(&mut protocol, now, ack(0, 0));
    }
    let actions = step(&mut protocol, 2010, ack(0, 0));
    assert!(matches!(actions[..], [.., Action::Keep(_)]), "{actions:?}");
    assert!(!step(&mut protocol, 2500, Input::Won).contains(&Action::Pause));
    assert_eq!(protocol.state(), State::Protected(PEER, true));
}

#[test]
fn who_cannot_hand_its_guest_over_says_why() {
    let mut protocol = solo();
    assert!(matches!(step(&mut protocol, 0, Input::HandOver)[..], [Action::Keep(_)]));
    assert_eq!(protocol.state(), State::Solo);
    let mut protocol = protected();
    step(&mut protocol, 10, Input::LinkLost);
    assert!(matches!(step(&mut protocol, 11, Input::HandOver)[..], [Action::Keep(_)]));
}

#[test]
fn a_peer_that_diverged_protects_nobody_and_is_given_another_state() {
    let mut protocol = protected();
    let actions = step(&mut protocol, 10, Input::Diverged);
    assert!(
        matches!(actions[..], [Action::CompareAndSet { to, .. }] if to.mode == Mode::Solo),
        "{actions:?}"
    );
    let actions = step(&mut protocol, 11, Input::Won);
    assert!(actions.starts_with(&[Action::Unprotect, Action::SendImage]), "{actions:?}");
    assert_eq!(protocol.state(), State::Joining(PEER));
    step(&mut protocol, 12, Input::Ready);
    assert_eq!(protocol.state(), State::Granting(PEER), "and then protects the guest as before");
}

#[test]
fn a_peer_that_diverged_and_left_is_forgotten() {
    let mut protocol = protected();
    step(&mut protocol, 10, Input::Diverged);
    step(&mut protocol, 11, Input::LinkLost);
    assert!(step(&mut protocol, 12, Input::Won).contains(&Action::Forget));
    assert_eq!(protocol.state(), State::Solo);
}

#[test]
fn a_joiner_that_diverges_is_given_another_state() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    assert!(step(&mut protocol, 1, Input::Diverged).contains(&Action::SendImage));
    assert_eq!(protocol.state(), State::Joining(PEER));
}

#[test]
fn who_asks_for_more_of_its_state_takes_the_time_that_the_link_needs() {
    let mut protocol = solo();
    step(&mut protocol, 0, Input::Joined(PEER));
    for now in (100..300_000).step_by(1000) {
        step(&mut protocol, now, Input::Asked);
    }
    assert_eq!(protocol.state(), State::Joining(PEER));
}
