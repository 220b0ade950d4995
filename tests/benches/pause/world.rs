//! The least world in which the guest runs.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use echovisor_event::{Effect, Event, Nanos, Position};
use echovisor_machine::{Effects, Here, Machine, Next, Stop, World, cpu::kvm::KvmCpu};

/// A world that has nothing but a clock, until it asks for a pause.
pub(crate) struct Ticking {
    begun: Instant,
    until: Instant,
    told: Option<Position>,
    asked: Option<Instant>,
}

impl Ticking {
    pub(crate) fn new() -> Ticking {
        let now = Instant::now();
        Ticking { begun: now, until: now, told: None, asked: None }
    }

    /// Runs the guest for a while, up to a boundary; when it was asked to stop.
    pub(crate) fn run(&mut self, machine: &mut Machine<KvmCpu>, time: Duration) -> Instant {
        self.until = Instant::now() + time;
        self.asked = None;
        match machine.run(self) {
            Ok(Stop::Paused) => self.asked.expect("the world was asked"),
            other => panic!("a guest that only writes: {other:?}"),
        }
    }
}

impl Effects for Ticking {
    fn effect(&mut self, _: Position, _: Effect<'_>) {}
}

impl World for Ticking {
    type Error = Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Infallible> {
        let now = Instant::now();
        if now >= self.until {
            self.asked.get_or_insert(now);
            return Ok(Next::Pause);
        }
        if here.idle.is_none() || self.told == Some(here.position) {
            return Ok(Next::Enter);
        }
        self.told = Some(here.position);
        let clock = Nanos((now - self.begun).as_nanos() as u64);
        Ok(Next::Event(Event::Clock(clock.max(here.clock))))
    }
}
