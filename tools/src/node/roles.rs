//! A node through its roles: it follows a primary, runs the guest when that is gone, and follows again when another node has
//! taken over. Its network, its listening socket and its control socket stay.

use std::{sync::Arc, time::Instant};

use echovisor_event::NodeId;
use echovisor_log::{
    SegmentStart,
    arbiter::Record,
    link::{Address, Fingerprint, Keys, Listener},
};
use echovisor_machine::{
    Memory,
    cpu::{CpuError, kvm::KvmCpu},
};
use echovisor_recorder::{
    HostClock, Journal,
    gate::Gate,
    port::Port,
    primary::{self, Cluster},
};
use echovisor_replayer::secondary::{self, Base, Promotion, Report, Settings, protocol::Timing};
use tokio::sync::oneshot;

use super::{
    Controls, Launch, Reach, Strays, announcement, drain, ended, launch, outlet, primary_commands,
    report::Takeover, secondary_commands, superseded, superseded_by, symbols,
};
use crate::{
    cli::NodeArgs,
    failure::{Exit, Failure},
    output, sandbox,
};

/// What a node keeps, whatever its role.
pub struct Station {
    /// Its identity.
    pub me: NodeId,
    /// Its host.
    pub fingerprint: Fingerprint,
    /// The guest's network, while it is here.
    pub port: Option<Port>,
    /// Where secondaries join.
    pub listener: Option<Arc<Listener>>,
    /// Where to join when another node has taken over and has not said where it listens.
    pub join: Option<Address>,
    /// Its key and its peers'.
    pub keys: Option<Keys>,
    /// What else the command line says.
    pub node: NodeArgs,
    /// How it is asked and stopped.
    pub controls: Controls,
    /// Where reports of divergences are kept.
    pub reports: Option<flume::Sender<Arc<Report>>>,
}

/// A role, ready to be played.
pub enum Role {
    /// It runs the guest.
    Primary(Box<Primary>),
    /// It follows who does.
    Secondary(Secondary),
}

/// A node that runs a guest.
pub struct Primary {
    /// Its loop.
    pub node: primary::Node,
    /// What is asked of it.
    pub commands: flume::Receiver<primary::Command>,
    /// The guest's program, if it is at hand: it names the place of a crash.
    pub program: Vec<u8>,
    /// The address of the guest's network device.
    pub mac: Option<[u8; 6]>,
}

/// A node that follows.
pub struct Secondary {
    /// Where the primary listens.
    pub join: Address,
    /// By which record it runs the guest, if that is known already.
    pub known: Option<Record>,
    /// What is asked of it.
    pub commands: flume::Receiver<secondary::Command>,
    /// What may still come for a guest that was here a moment ago.
    pub strays: Option<Strays>,
    /// The memory of that guest.
    pub memory: Option<Memory>,
}

/// What comes after a role.
enum Next {
    Role(Role),
    End(Exit),
}

impl Station {
    /// Plays `role`, and those that come after it, until the guest has ended or the node was stopped.
    ///
    /// # Errors
    /// If the node cannot go on in any role.
    pub async fn run(self, mut role: Role) -> Result<Exit, Failure> {
        loop {
            let next = match role {
                Role::Primary(primary) => self.lead(*primary).await,
                Role::Secondary(secondary) => self.follow(secondary).await,
            };
            match next {
                Ok(Next::Role(next)) => role = next,
                Ok(Next::End(exit)) => {
                    self.controls.close().await;
                    return Ok(exit);
                }
                Err(failure) => {
                    self.controls.close().await;
                    return Err(failure);
                }
            }
        }
    }

    /// Runs the guest until it ends, or another node has it.
    async fn lead(&self, Primary { node, commands, program, mac }: Primary) -> Result<Next, Failure> {
        let (record, successor, handed_over, memory) = match node.run(commands).await? {
            primary::Outcome::Ended(how) => return ended(how, &program).map(Next::End),
            primary::Outcome::Fenced { record, successor, handed_over, memory } => {
                (record, successor, handed_over, memory)
            }
        };
        let Some(join) = successor.or_else(|| self.join.clone()) else {
            return Err(superseded(&record));
        };
        let strays = mac.filter(|_| handed_over).map(|guest| Strays::new(guest, self.ethernet_address()));
        Ok(Next::Role(self.joining(record, join, strays, memory)))
    }

    /// The role of a node that was primary, now that another one is, as `record` says, and can be joined at `join`. `strays`:
    /// what to do with what still comes for the guest. `memory`: what it has left.
    #[must_use]
    pub fn joining(
        &self,
        record: Record,
        join: Address,
        strays: Option<Strays>,
        memory: Option<Memory>,
    ) -> Role {
        tracing::warn!("{}: it joins that at {join}", superseded_by(&record));
        let (sender, commands) = secondary_commands();
        self.controls.switch(Reach::Secondary(sender));
        Role::Secondary(Secondary { join, known: Some(record), commands, strays, memory })
    }

    /// Follows the primary until it is gone, or the guest has ended.
    async fn follow(&self, secondary: Secondary) -> Result<Next, Failure> {
        let Secondary { join, known, commands, strays, memory } = secondary;
        let idle = self.port.as_ref().map(|port| drain(port.clone(), strays)).transpose()?;
        let settings = Settings {
            me: self.me,
            join,
            keys: self.keys.clone(),
            listens: self.listener.as_ref().map(|listener| listener.address()).transpose()?,
            known,
            fingerprint: self.fingerprint.clone(),
            arbiter: Some(self.node.arbiter("a secondary")?),
            timing: Timing { suspicion: *self.node.suspicion, ..Timing::default() },
            cpu: confined_cpu,
            symbols,
            base: memory.map(base_of),
            reports: self.reports.clone(),
        };
        match secondary::Node::new(settings).run(&commands).await? {
            secondary::Outcome::Promoted(promotion) => {
                drop(idle);
                let primary = self.go_live(*promotion)?;
                Ok(Next::Role(Role::Primary(Box::new(primary))))
            }
            secondary::Outcome::Ended(text) => {
                output::say(format_args!("the primary says goodbye: {text}"));
                Ok(Next::End(Exit::Done))
            }
            secondary::Outcome::Stopped => Ok(Next::End(Exit::Done)),
        }
    }

    /// Goes on with the guest as its new primary.
    fn go_live(&self, promotion: Promotion<KvmCpu>) -> Result<Primary, Failure> {
        let replayed = Instant::now();
        let Promotion { machine, config, record, unconfirmed, clock, times, askers } = promotion;
        let port = self.port.clone();
        let gate = Arc::new(Gate::new(outlet(port.clone())));
        if let (Some(port), Some(mac)) = (&port, config.mac) {
            // Switches learn where the guest is now before its frames come. A frame that is lost now is no reason to stop.
            let _ = port.send(&announcement(mac));
        }
        // At least once: what the old primary may not have sent comes first.
        unconfirmed.resend(|at, effect| gate.pass(at, effect));
        let logged = self.listener.is_some();
        let arbiter = self.node.arbiter("a primary")?;
        let timing = self.node.timing();
        let cluster = Cluster { listener: self.listener.clone(), arbiter, record, timing };
        let guest = launch(Launch {
            machine,
            port,
            gate,
            journal: if logged { Journal::new() } else { Journal::unwritten() },
            clock: HostClock::new(clock.0, clock.1),
            seed: None,
            slept: false,
            cadence: Some(self.node.checkpoints.cadence()),
            held: false,
            stdin: false,
        })?;
        let takeover = Takeover::new(&times, replayed.elapsed());
        tracing::warn!(
            "took over in {:.1} ms, {} effects sent again",
            takeover.total_ms(),
            unconfirmed.len()
        );
        let (sender, commands) = primary_commands();
        self.controls.switch(Reach::Primary(sender, Some(takeover)));
        for asker in askers {
            // Who asked may be gone.
            let _ = asker.send(Ok(()));
        }
        let start = SegmentStart::first(record.term);
        let cluster = Some((cluster, self.fingerprint.clone()));
        let node = primary::Node::new(self.me, guest, config.to_bytes(), start, None, cluster);
        Ok(Primary { node, commands, program: Vec::new(), mac: config.mac })
    }

    /// An Ethernet address of this node's own: a locally administered one, of one node.
    fn ethernet_address(&self) -> [u8; 6] {
        let [_, _, a, b, c, d, ..] = self.me.0;
        [0x06, 0, a, b, c, d]
    }
}

/// What a memory holds that a guest has left. It is read while the node dials.
fn base_of(memory: Memory) -> oneshot::Receiver<Base> {
    let (tell, base) = oneshot::channel();
    // A node that has ended does not want it any more.
    tokio::task::spawn_blocking(move || drop(tell.send(Base::left(memory))));
    base
}

/// A processor for the guest that comes, made by the guest's thread: the last for which it needs more than a guest does.
fn confined_cpu(memory: &Memory) -> Result<KvmCpu, CpuError> {
    let cpu = KvmCpu::new(memory)?;
    sandbox::confine_guest().map_err(|error| CpuError::Unfit(error.to_string()))?;
    Ok(cpu)
}
