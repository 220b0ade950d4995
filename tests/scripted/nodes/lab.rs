//! Nodes in one process, each with a runtime of its own, which can die like a process.

use std::{
    future::Future,
    io::Write,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use echovisor_event::{Effect, NodeId, Position, Term, VmId};
use echovisor_log::{
    SegmentStart,
    arbiter::{Arbiter, ArbiterError, CasOutcome, FileArbiter, Record, rules},
    link::{Address, Fingerprint, Hello, Listener},
};
use echovisor_machine::{
    Machine,
    boot::Symbols,
    cpu::{
        Cpu,
        scripted::{Program, ScriptedCpu, programs::echo},
    },
};
use echovisor_recorder::{
    Cadence, HostClock, Journal, Policy,
    gate::{Gate, Outlet},
    port::Port,
    primary::{self, Cluster},
};
use echovisor_replayer::{
    Spoil,
    secondary::{self, MakeCpu, Promotion, Settings},
};
use echovisor_tests::{
    scripted::{self, boot, config},
    wait_for,
};
use echovisor_tools::node::{Launch, launch};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::guests::{Said, echoed, frame};

/// Longer than any test machine is away, so that nobody is suspected who lives.
const SUSPICION: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(50);

/// Positions between checkpoints where nothing else is asked for.
const CADENCE: u64 = 200;

/// A folder for sockets, and the arbiter.
pub(crate) struct Lab {
    folder: TempDir,
    pub(crate) arbiter: Arc<Breakable>,
    /// Positions between checkpoints.
    cadence: u64,
    /// What primaries make their log of.
    policy: Policy,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::with_checkpoints(CADENCE)
    }

    /// With so many positions between checkpoints.
    pub(crate) fn with_checkpoints(cadence: u64) -> Lab {
        let folder = tempfile::tempdir().expect("a folder");
        let arbiter = FileArbiter::new(folder.path().join("arbiter.json"));
        Lab {
            folder,
            arbiter: Arc::new(Breakable { arbiter, broken: AtomicBool::new(false) }),
            cadence,
            policy: Policy::default(),
        }
    }

    /// With this policy on every primary.
    pub(crate) fn under(self, policy: Policy) -> Lab {
        Lab { policy, ..self }
    }

    /// The address of the node or relay with this name.
    pub(crate) fn address(&self, name: &str) -> Address {
        Address::Unix(self.path(name))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arbiter's record.
    pub(crate) fn record(&self) -> Record {
        self.arbiter.arbiter.read().expect("the arbiter's file").expect("a record")
    }

    /// A primary that boots the echo guest, and listens under its name.
    pub(crate) fn primary(&self, name: &str) -> Primary {
        self.primary_of(name, &echo(16))
    }

    /// The same, of another guest.
    pub(crate) fn primary_of(&self, name: &str, guest: &Program) -> Primary {
        let me = node(name);
        let record = rules::start(None, VmId([7; 16]), me).expect("nobody runs it");
        assert_eq!(self.arbiter.compare_and_set(None, &record).expect("an arbiter"), CasOutcome::Won);
        let (gate, wire, port) = self.network(name);
        self.live(name, boot(guest), record, HostClock::starting(), (gate, wire, port))
    }

    /// The primary that a secondary has become.
    pub(crate) fn promote<C: Cpu + Send + 'static>(&self, name: &str, promotion: Promotion<C>) -> Primary {
        let Promotion { machine, record, unconfirmed, clock, .. } = promotion;
        let (gate, wire, port) = self.network(name);
        unconfirmed.resend(|at, effect| gate.pass(at, effect));
        self.live(name, machine, record, HostClock::new(clock.0, clock.1), (gate, wire, port))
    }

    fn live<C: Cpu + Send + 'static>(
        &self,
        name: &str,
        machine: Machine<C>,
        record: Record,
        clock: HostClock,
        (gate, wire, port): (Arc<Gate>, Wire, Port),
    ) -> Primary {
        let seed = (machine.position() == Position::BOOT).then_some([5; 32]);
        let guest = launch(Launch {
            machine,
            port: Some(port),
            gate,
            journal: Journal::new(),
            clock,
            seed,
            slept: false,
            cadence: Some(Cadence::Positions(self.cadence)),
            policy: self.policy,
            kept: false,
            held: false,
            stdin: false,
        });
        let guest = guest.unwrap_or_else(|_| panic!("a thread for the guest"));
        let (commands, orders) = flume::unbounded();
        let (address, arbiter, me) = (self.address(name), self.arbiter.clone(), node(name));
        let running = Running::start(move || async move {
            let listener = Listener::bind(&address, None).await.expect("an address of its own");
            let timing = primary::protocol::Timing {
                suspicion: SUSPICION,
                heartbeat: HEARTBEAT,
                lag: SUSPICION,
                ..Default::default()
            };
            let cluster = Cluster { listener: Some(listener.into()), arbiter, record, timing };
            let start = SegmentStart::first(record.term);
            let cluster = Some((cluster, fingerprint()));
            primary::Node::new(me, guest, config().to_bytes(), start, None, cluster).run(orders).await
        });
        let primary = Primary { running, commands, wire };
        // Who answers listens. One that does not listen yet would seem to be dead.
        let _ = primary.status();
        primary
    }

    /// A primary called one, and its secondary, two, that may take over.
    pub(crate) fn pair(&self) -> (Primary, Secondary<ScriptedCpu>) {
        let primary = self.primary("one");
        let secondary = self.secondary("two", self.address("one"));
        primary.wait_until_protected();
        secondary.wait_until_eligible();
        (primary, secondary)
    }

    /// A secondary that joins at `address`.
    pub(crate) fn secondary(&self, name: &str, address: Address) -> Secondary<ScriptedCpu> {
        self.secondary_with(name, address, scripted::processor)
    }

    /// The same, with a processor of the test's own.
    pub(crate) fn secondary_with<C: Cpu + Send + 'static>(
        &self,
        name: &str,
        join: Address,
        cpu: MakeCpu<C>,
    ) -> Secondary<C> {
        let settings = Settings {
            me: node(name),
            join,
            keys: None,
            listens: None,
            vm: None,
            known: None,
            fingerprint: fingerprint(),
            arbiter: Some(self.arbiter.clone() as Arc<dyn Arbiter>),
            timing: secondary::protocol::Timing { suspicion: SUSPICION, ..Default::default() },
            cpu,
            symbols: |_| Symbols::default(),
            base: None,
            reports: None,
        };
        let (commands, orders) = flume::unbounded();
        let running =
            Running::start(move || async move { secondary::Node::new(settings).run(&orders).await });
        Secondary { running, commands }
    }

    /// A network for one node: frames go in at the wire's socket, effects come out of its channel.
    fn network(&self, name: &str) -> (Arc<Gate>, Wire, Port) {
        let path = self.path(&format!("{name}.net"));
        let listener = UnixListener::bind(&path).expect("a socket of its own");
        let port = Port::stream(&path).expect("somebody listens");
        let (socket, _) = listener.accept().expect("a connection");
        let (sender, said) = flume::unbounded();
        (Arc::new(Gate::new(Box::new(Mouth(sender)))), Wire { socket, said }, port)
    }
}

/// The identity of the node with this name.
pub(crate) fn node(name: &str) -> NodeId {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    NodeId(id)
}

/// What a secondary of this name says first, when it holds nothing.
pub(crate) fn hello(name: &str) -> Hello {
    Hello { suspicion_ms: SUSPICION.as_millis() as u64, ..Hello::new(node(name), fingerprint()) }
}

fn fingerprint() -> Fingerprint {
    Fingerprint { text: "scripted".into(), ..Fingerprint::default() }
}

/// Where effects leave.
struct Mouth(flume::Sender<Said>);

impl Outlet for Mouth {
    fn release(&mut self, effect: Effect<'_>) {
        // A test that has ended does not listen any more.
        let _ = self.0.send(effect.into());
    }
}

/// The outside of a node's network.
pub(crate) struct Wire {
    socket: UnixStream,
    pub(crate) said: flume::Receiver<Said>,
}

impl Wire {
    /// Sends the guest this frame.
    pub(crate) fn send(&mut self, number: u64) {
        let frame = frame(number);
        let length = (frame.len() as u32).to_be_bytes();
        self.socket.write_all(&[&length[..], &frame].concat()).expect("a guest that listens");
    }

    /// Waits for the echo of this frame, past others.
    pub(crate) fn hear(&self, number: u64) {
        let echo = Said::Frame(echoed(&frame(number)));
        wait_for(&format!("the echo of frame {number}"), || match self.said.try_recv() {
            Ok(said) if said == echo => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Sends frames and waits for the echo of each.
    pub(crate) fn talk(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.send(number);
            self.hear(number);
        }
    }
}

/// A primary, its network and its guest.
pub(crate) struct Primary {
    pub(crate) running: Running<Result<primary::Outcome, primary::NodeError>>,
    commands: flume::Sender<primary::Command>,
    pub(crate) wire: Wire,
}

impl Primary {
    pub(crate) fn status(&self) -> primary::Status {
        let (reply, status) = oneshot::channel();
        self.commands.send(primary::Command::Status(reply)).expect("a living node");
        status.blocking_recv().expect("a living node")
    }

    pub(crate) fn wait_until(&self, what: &str, is: impl Fn(&primary::Status) -> bool) -> primary::Status {
        wait_for(&format!("the primary to be {what}"), || {
            let status = self.status();
            if is(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
    }

    pub(crate) fn wait_until_protected(&self) {
        self.wait_until("protected", |status| status.mode == "protected");
    }

    /// Asks for a switchover, and waits for the answer.
    pub(crate) fn hand_over(&self) -> Result<(), &'static str> {
        let (reply, kept) = oneshot::channel();
        self.commands.send(primary::Command::HandOver(reply)).expect("a living node");
        kept.blocking_recv().expect("an answer")
    }

    pub(crate) fn stop(&self) {
        let (reply, _) = oneshot::channel();
        self.commands.send(primary::Command::Stop(reply)).expect("a living node");
    }
}

/// A secondary.
pub(crate) struct Secondary<C> {
    pub(crate) running: Running<Result<secondary::Outcome<C>, secondary::NodeError>>,
    commands: flume::Sender<secondary::Command>,
}

impl<C: Send + 'static> Secondary<C> {
    pub(crate) fn status(&self) -> secondary::Status {
        let (reply, status) = oneshot::channel();
        self.commands.send(secondary::Command::Status(reply)).expect("a living node");
        status.blocking_recv().expect("a living node")
    }

    /// Makes a bit of its machine go bad.
    pub(crate) fn spoil(&self, spoil: Spoil, reply: oneshot::Sender<bool>) {
        self.commands.send(secondary::Command::Spoil(spoil, reply)).expect("a living node");
    }

    pub(crate) fn wait_until(
        &self,
        what: &str,
        is: impl Fn(&secondary::Status) -> bool,
    ) -> secondary::Status {
        wait_for(&format!("the secondary to be {what}"), || {
            let status = self.status();
            if is(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
    }

    pub(crate) fn wait_until_eligible(&self) {
        self.wait_until("eligible", |status| status.eligible);
    }

    /// Waits until it has taken over.
    pub(crate) fn promoted(self) -> Promotion<C> {
        match self.running.finish() {
            Ok(secondary::Outcome::Promoted(promotion)) => *promotion,
            Ok(secondary::Outcome::Ended(why)) => panic!("it ended: {why}"),
            Ok(secondary::Outcome::Stopped) => panic!("it was stopped"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A node on a thread of its own.
pub(crate) struct Running<T> {
    kill: oneshot::Sender<()>,
    end: flume::Receiver<T>,
}

impl<T: Send + 'static> Running<T> {
    fn start<F: Future<Output = T>>(node: impl FnOnce() -> F + Send + 'static) -> Running<T> {
        let (kill, killed) = oneshot::channel();
        let (tell, end) = flume::bounded(1);
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    end = node() => drop(tell.send(end)),
                    _ = killed => {}
                }
            });
            // Like the death of a process: nothing is waited for, every socket is closed.
            runtime.shutdown_background();
        });
        Running { kill, end }
    }

    /// Ends the node at once, with all that belongs to it but the guest's thread.
    pub(crate) fn kill(self) {
        // It may have ended by itself.
        let _ = self.kill.send(());
        // Its end of the channel goes with it.
        let _ = self.end.recv();
    }

    /// Waits for its own end.
    pub(crate) fn finish(self) -> T {
        wait_for("a node to end", || self.end.try_recv().map_err(|error| error.to_string()))
    }
}

/// An arbiter that can be out of reach.
pub(crate) struct Breakable {
    arbiter: FileArbiter,
    broken: AtomicBool,
}

impl Breakable {
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<&FileArbiter, ArbiterError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(ArbiterError::Address { address: "out of reach".into() });
        }
        Ok(&self.arbiter)
    }
}

impl Arbiter for Breakable {
    fn read(&self) -> Result<Option<Record>, ArbiterError> {
        self.reach()?.read()
    }

    fn compare_and_set(&self, expected: Option<&Record>, new: &Record) -> Result<CasOutcome, ArbiterError> {
        self.reach()?.compare_and_set(expected, new)
    }
}

/// The term of the first primary.
pub(crate) const FIRST: Term = Term(1);
