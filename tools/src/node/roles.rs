//! A node through its roles: it follows a primary, runs the guest when that is gone, and follows again when another node has
//! taken over. Its network, its listening socket and its control socket stay.

use std::{sync::Arc, time::Instant};

use echovisor_event::NodeId;
use echovisor_log::{
    SegmentStart,
    arbiter::Record,
    link::{Address, Fingerprint, Keys, LinkError, Listener, RefuseCode},
    store::Header,
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
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Controls, Launch, Reach, Shelf, Strays, announcement, drain, ended, launch, outlet, primary_commands,
    report::Takeover,
    secondary_commands,
    shelf::{Begin, History},
    superseded, superseded_by, symbols,
};
use crate::{
    cli::{Ack, NodeArgs, StoreArgs},
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
    /// Where the guest's history is kept while it is here.
    pub store: StoreArgs,
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
    Secondary(Box<Secondary>),
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
    /// What it has of the guest already.
    pub former: Former,
}

/// What a node has of a guest that was here before.
#[derive(Default)]
pub struct Former {
    /// What may still come for it, if that was a moment ago.
    pub strays: Option<Strays>,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Its history, or an empty place for that.
    pub shelf: Option<Shelf>,
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
                Role::Secondary(secondary) => self.follow(*secondary).await,
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
        match node.run(commands).await? {
            primary::Outcome::Ended(how) => ended(how, &program).map(Next::End),
            primary::Outcome::Fenced { record, successor, handed_over, memory, history } => {
                let Some(join) = successor.or_else(|| self.join.clone()) else {
                    return Err(superseded(&record));
                };
                let guest = mac.filter(|_| handed_over);
                let strays = guest.map(|guest| Strays::new(guest, self.ethernet_address()));
                let former = Former { strays, memory, shelf: history.map(|history| Shelf::from(*history)) };
                Ok(Next::Role(self.joining(record, join, former)))
            }
        }
    }

    /// The role of a node that was primary, now that another one is, as `record` says, and can be joined at `join`.
    #[must_use]
    pub fn joining(&self, record: Record, join: Address, former: Former) -> Role {
        tracing::warn!("{}: it joins that at {join}", superseded_by(&record));
        let (sender, commands) = secondary_commands();
        self.controls.switch(Reach::Secondary(sender));
        Role::Secondary(Box::new(Secondary { join, known: Some(record), commands, former }))
    }

    /// Follows the primary until it is gone, or the guest has ended.
    async fn follow(&self, secondary: Secondary) -> Result<Next, Failure> {
        let Secondary { join, known, commands, former: Former { strays, memory, shelf } } = secondary;
        if shelf.is_none() && self.store.ack == Ack::Disk {
            let hint = "see what was said of the disk; a node that follows without --ack disk needs none";
            return Err(Failure::new("there is no store for the log by which effects would wait", hint));
        }
        let vm = shelf.as_ref().and_then(Shelf::vm);
        let (base, shelf) = base_of(memory, shelf);
        let idle = self.port.as_ref().map(|port| drain(port.clone(), strays)).transpose()?;
        let settings = Settings {
            me: self.me,
            join,
            keys: self.keys.clone(),
            listens: self.listener.as_ref().map(|listener| listener.address()).transpose()?,
            vm,
            known,
            fingerprint: self.fingerprint.clone(),
            arbiter: Some(self.node.arbiter("a secondary")?),
            timing: Timing { suspicion: *self.node.suspicion, ..Timing::default() },
            cpu: confined_cpu,
            symbols,
            base: Some(base),
            reports: self.reports.clone(),
        };
        let followed = secondary::Node::new(settings).run(&commands).await;
        match followed.map_err(|error| self.refusal(error))? {
            secondary::Outcome::Promoted(promotion) => {
                drop(idle);
                // What was read from it is in the guest's memory since long, so this waits for nothing.
                let primary = self.go_live(*promotion, shelf.await.ok().flatten())?;
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
    fn go_live(&self, promotion: Promotion<KvmCpu>, shelf: Option<Shelf>) -> Result<Primary, Failure> {
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
        let history = shelf.map(|shelf| {
            let header = Header {
                vm: record.vm,
                fingerprint: self.fingerprint.clone(),
                guest: config.program,
                machine: config.to_bytes(),
            };
            let begin = Begin { header, node: self.me, term: record.term, at: machine.position() };
            shelf.begin(begin, &self.store, gate.clone())
        });
        let logged = self.listener.is_some() || history.is_some();
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
            policy: self.node.policy.policy(),
            kept: history.is_some(),
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
        let cluster = Some((cluster, self.fingerprint.clone()));
        let config_bytes = config.to_bytes();
        let compression = self.node.policy.compression();
        let node = match history {
            None => {
                let start = SegmentStart::first(record.term);
                primary::Node::new(self.me, guest, config_bytes, start, None, cluster)
                    .compressing(start, compression)
            }
            Some(History { start, archive, keeper }) => {
                primary::Node::new(self.me, guest, config_bytes, start, Some(archive), cluster)
                    .compressing(start, compression)
                    .keeping(keeper)
            }
        };
        Ok(Primary { node, commands, program: Vec::new(), mac: config.mac })
    }

    /// What to do about it if the primary does not want this node because of its store.
    fn refusal(&self, error: secondary::NodeError) -> Failure {
        use secondary::NodeError::Link;
        let foreign = matches!(
            error,
            Link(LinkError::WrongVm { .. } | LinkError::Refused { code: RefuseCode::WrongVm, .. })
        );
        match &self.store.folder {
            Some(folder) if foreign => {
                let what =
                    format!("the store in {} is of another guest than the primary's", folder.display());
                Failure::new(what, "give --store an empty folder, or the one of this guest").because(error)
            }
            _ => error.into(),
        }
    }

    /// An Ethernet address of this node's own: a locally administered one, of one node.
    fn ethernet_address(&self) -> [u8; 6] {
        let [_, _, a, b, c, d, ..] = self.me.0;
        [0x06, 0, a, b, c, d]
    }
}

/// What is here of the guest: the memory that it has left, or else its last snapshot. It is read while the node dials; then the shelf is
/// there for a takeover.
fn base_of(
    memory: Option<Memory>,
    mut shelf: Option<Shelf>,
) -> (oneshot::Receiver<Base>, JoinHandle<Option<Shelf>>) {
    let (tell, base) = oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || {
        let base = memory.map(Base::left).or_else(|| shelf.as_mut().and_then(Shelf::newest));
        if let Some(base) = base {
            // A node that has ended does not want it any more.
            let _ = tell.send(base);
        }
        shelf
    });
    (base, reading)
}

/// A processor for the guest that comes, made by the guest's thread: the last for which it needs more than a guest does.
fn confined_cpu(memory: &Memory) -> Result<KvmCpu, CpuError> {
    let cpu = KvmCpu::new(memory)?;
    sandbox::confine_guest().map_err(|error| CpuError::Unfit(error.to_string()))?;
    Ok(cpu)
}
