//! The guest and its thread.

use std::{
    fs,
    io::{Read, stdin},
    sync::{Arc, atomic::Ordering},
    thread,
};

use echovisor_event::Digest;
use echovisor_guests::Guest;
use echovisor_machine::{Machine, MachineConfig, boot::Symbols, cpu::Cpu};
use echovisor_recorder::{
    Cadence, HostClock, Journal, JournalReader, Live, Policy, Reader, Recorder, Signals, Ticker, gate::Gate,
    port::Port, primary,
};
use tokio::sync::oneshot;

use crate::{
    cli::{GuestArgs, NetArgs},
    failure::{Exit, Failure},
    sandbox,
    values::Net,
};

/// Requests that may wait for the guest's thread.
const REQUESTS: usize = 16;

/// Pieces of console input that may wait for the guest.
const TYPED: usize = 16;

/// The MTU of the guest's network device.
const MTU: u16 = 1500;

/// The guest's program: a built-in one by name, or a file by a path with a slash.
///
/// # Errors
/// If there is none of that name, or the file cannot be read.
pub fn program(arguments: &GuestArgs) -> Result<Vec<u8>, Failure> {
    let name = &arguments.name;
    if name.contains('/') {
        return fs::read(name).map_err(|error| {
            Failure::new(format!("cannot read the guest {name}"), "see whether the path is right")
                .because(error)
        });
    }
    match echovisor_guests::find(name) {
        Some(guest) => Ok(guest.elf.to_vec()),
        None => {
            let names: Vec<_> = echovisor_guests::ALL.iter().map(|Guest { name, .. }| *name).collect();
            let hint = format!(
                "there are {}; a guest of your own is named by a path with a slash",
                names.join(", ")
            );
            Err(Failure::new(format!("there is no built-in guest `{name}`"), hint).with_exit(Exit::Usage))
        }
    }
}

/// Names for the addresses of the guest of this machine, if it is a built-in one. Any other's program is not here.
#[must_use]
pub fn symbols(config: &MachineConfig) -> Symbols {
    echovisor_guests::find(&config.guest)
        .filter(|guest| blake3::hash(guest.elf).as_bytes() == &config.program.0)
        .and_then(|guest| Symbols::of(guest.elf).ok())
        .unwrap_or_default()
        .renamed(|name| format!("{:#}", rustc_demangle::demangle(name)))
}

/// The configuration of the machine that the arguments describe.
#[must_use]
pub fn config(guest: &GuestArgs, net: &NetArgs, program: &[u8]) -> MachineConfig {
    MachineConfig {
        memory: guest.memory.0,
        mac: (net.net != Net::None).then_some(net.mac.0),
        mtu: MTU,
        guest: guest.name.clone(),
        arguments: guest.arguments.clone(),
        program: Digest(*blake3::hash(program).as_bytes()),
    }
}

/// Opens what the guest's network device is to be connected to.
///
/// # Errors
/// If it is not there or may not be used.
pub fn port(net: &Net) -> Result<Option<Port>, Failure> {
    Ok(match net {
        Net::None => None,
        Net::Tap(name) => Some(Port::tap(name)?),
        Net::Unix(path) => Some(Port::stream(path)?),
    })
}

/// What comes in on stdin.
fn typed(signals: Arc<Signals>) -> flume::Receiver<Vec<u8>> {
    let (sender, bytes) = flume::bounded(TYPED);
    thread::spawn(move || {
        let mut buffer = [0; 256];
        // The end of stdin ends the thread, not the guest.
        while let Ok(length @ 1..) = stdin().lock().read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
            signals.bell.ring();
        }
    });
    bytes
}

/// The frame by which switches learn where the guest's address is now: a reverse ARP request, as QEMU sends it after a
/// migration (RFC 903).
#[must_use]
pub fn announcement(mac: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // EtherType RARP, hardware Ethernet, protocol IPv4, address lengths 6 and 4, operation "request reverse".
    frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

/// What a guest's thread starts with.
pub struct Launch<C> {
    /// The guest.
    pub machine: Machine<C>,
    /// Its network.
    pub port: Option<Port>,
    /// Where its effects pass.
    pub gate: Arc<Gate>,
    /// Where its log goes.
    pub journal: (Journal, JournalReader),
    /// Its time.
    pub clock: HostClock,
    /// Entropy for a guest that boots; `None` for one that goes on.
    pub seed: Option<[u8; 32]>,
    /// Whether nobody ran it for a while, so that it must be told the wall time anew.
    pub slept: bool,
    /// How often there are checkpoints.
    pub cadence: Option<Cadence>,
    /// What the log is made of.
    pub policy: Policy,
    /// Whether the log is kept from the start.
    pub kept: bool,
    /// Whether the guest waits until it is protected.
    pub held: bool,
    /// Whether stdin is the guest's console.
    pub stdin: bool,
}

/// Starts the guest's thread.
///
/// # Errors
/// If the host has no thread or descriptor left.
pub fn launch<C: Cpu + Send + 'static>(launch: Launch<C>) -> Result<primary::Guest, Failure> {
    let exhausted = |error| {
        Failure::new("cannot start the guest's thread", "see whether `ulimit -n` or `ulimit -u` is reached")
            .because(error)
    };
    let signals = Arc::new(Signals::new().map_err(exhausted)?);
    signals.hold.store(launch.held, Ordering::Release);
    signals.unread.store(!launch.kept, Ordering::Release);
    let (journal, log) = launch.journal;
    let (gate, clock) = (launch.gate, launch.clock);
    let ticker = Ticker::start(launch.machine.cpu().kicker()).map_err(exhausted)?;
    let mut live = Live::new(launch.port, gate.clone(), journal, signals.clone(), clock, launch.cadence)
        .under(launch.policy, ticker);
    if let Some(seed) = launch.seed {
        live = live.greet(seed);
    } else if launch.slept {
        live = live.tell_wall();
    }
    if launch.stdin {
        live = live.console(typed(signals.clone()));
    }
    let reader = Reader::start(signals.clone()).map_err(exhausted)?;
    let (requests, asked) = flume::bounded(REQUESTS);
    let (leave, left) = oneshot::channel();
    let machine = launch.machine;
    thread::Builder::new()
        .name("vcpu".into())
        .spawn(move || {
            if let Err(error) = sandbox::confine_guest() {
                // Who waits for the guest's end hears that there is none.
                tracing::error!("the guest does not start: {error}");
                return;
            }
            let mut recorder = Recorder::new(machine, live, asked, reader);
            let how = recorder.run();
            // The log's writing end goes first, so that whoever hears of the end has heard everything.
            let memory = recorder.into_memory();
            let _ = leave.send(primary::Left { how, memory });
        })
        .map_err(exhausted)?;
    Ok(primary::Guest { journal: log, requests, signals, gate, left })
}
