//! A guest that computes for long without an exit is protected, and what it computes is exact, whoever runs it.

extern crate alloc;

#[expect(unreachable_pub, reason = "it is the source of the guest")]
#[path = "../../guests/bare/spin/src/mixer.rs"]
mod mixer;

use std::{
    io::{BufRead, BufReader, Lines, Write},
    net::TcpStream,
};

use echovisor_tests::{Guest, Lab, Scene, scenario, size};
use mixer::Mixer;

/// Questions before and behind a takeover.
const QUESTIONS: usize = 3;

/// A connection to the guest.
struct Asker {
    stream: TcpStream,
    answers: Lines<BufReader<TcpStream>>,
    /// The last answer: iterations.
    last: u64,
    mixer: Mixer,
}

impl Asker {
    fn new(lab: &Lab) -> Asker {
        let stream = lab.connect(7);
        let answers = BufReader::new(stream.try_clone().expect("a connection")).lines();
        Asker { stream, answers, last: 0, mixer: Mixer::new() }
    }

    /// Asks what was computed; computes the same here, where nothing interrupts it.
    fn ask(&mut self) {
        writeln!(self.stream, "how far?").expect("the guest reads");
        let answer = self.answers.next().expect("an answer").expect("an answer");
        let iterations = answer.rsplit(' ').next().expect("a number").parse().expect("a number");
        assert!(iterations > self.last, "it goes on behind {}: {answer}", self.last);
        self.mixer.run(iterations - self.last);
        assert_eq!(answer, self.mixer.to_string());
        self.last = iterations;
    }
}

/// Kills the primary of a guest that computes, under this policy, while it does.
fn kill_while_it_computes(scene: &Scene, policy: &str) {
    let arguments = format!("ip=10.0.0.2/24 spin={}", size("ECHOVISOR_SPIN", 20_000_000));
    let guest = Guest { name: "spin", arguments: arguments.leak() };
    let lab = Lab::new(scene);
    let (mut primary, secondary) = lab.pair_with(guest, &["--policy", policy]);
    let mut asker = Asker::new(&lab);
    (0..QUESTIONS).for_each(|_| asker.ask());
    let status = primary
        .wait_until("protected by deltas", |status| status.protected && status.more.contains_key("deltas"));
    primary.process.kill();
    lab.must_be_alone(&secondary, status.term + 1);
    (0..QUESTIONS).for_each(|_| asker.ask());
    secondary.stop();
}

#[test]
fn under_replay_a_takeover_is_exact() {
    scenario(|scene| kill_while_it_computes(scene, "replay"));
}

#[test]
fn under_checkpoint_a_takeover_is_exact() {
    scenario(|scene| kill_while_it_computes(scene, "checkpoint"));
}

#[test]
fn under_kemari_a_takeover_is_exact() {
    scenario(|scene| kill_while_it_computes(scene, "kemari"));
}
