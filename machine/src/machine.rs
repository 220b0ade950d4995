//! The run loop: one for recording, replay and lockstep.

use echovisor_event::{Effect, Event, Nanos, Position};

use crate::{
    boot::{
        Crash,
        layout::{CONTROL, control},
    },
    cpu::{Cpu, CpuError, CpuState, Exit, Reason},
    devices::{Context, DeliveryError, DeviceStateError, Devices, DevicesConfig, DevicesState, Request},
    dirty::{Consumer, DirtyTracker},
    memory::Memory,
    pages::PageSet,
    state::MachineState,
    trail::Trail,
    world::{Effects, Here, Next, World},
};

/// A guest computer: processor, RAM and devices, at a [`Position`].
///
/// It reads no clock, socket, file or random number; all it learns comes from its [`World`].
pub struct Machine<C> {
    cpu: C,
    memory: Memory,
    config: DevicesConfig,
    devices: Devices,
    clock: Nanos,
    position: Position,
    trail: Trail,
    /// `Some(deadline)` while the guest waits at the doorbell; zero once input has come.
    idle: Option<Nanos>,
    powered_off: Option<u32>,
    stage: Stage,
    dirty: DirtyTracker,
}

/// How far the instruction is that made the last exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The exit is served, but the instruction may have another.
    Served,
    /// The exit is served and was the only one of its instruction, so that nothing but the processor's own state is open.
    Single,
    /// The instruction is complete.
    Complete,
    /// The guest was called out while it ran: between two exits, behind a complete instruction that no position names.
    Inside,
}

/// Why a run ended.
#[derive(Debug)]
pub enum Stop {
    /// The world answered [`Next::Pause`]. The machine stands at a boundary.
    Paused,
    /// The processor was kicked in the middle of the guest's code. To run the machine again goes on there; [`Machine::jump`] makes
    /// a position of it.
    Kicked,
    /// The guest powered itself off with this exit code.
    PoweredOff(u32),
    /// An exception ended the guest.
    Crashed(Box<Crash>),
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The processor.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The world had no answer.
    #[error(transparent)]
    World(E),
    /// The clock went backwards.
    #[error("at position {at}: the virtual clock would go back from {from} to {to}")]
    ClockBackwards {
        /// Where.
        at: Position,
        /// What it shows.
        from: Nanos,
        /// What the event says.
        to: Nanos,
    },
    /// The world gave something that the guest cannot take at this position. In a replay: the log is another guest's, or
    /// the machines have diverged.
    #[error("at position {at}: {source}")]
    Delivery {
        /// Where.
        at: Position,
        /// What.
        source: DeliveryError,
    },
    /// The world gave something at a position that is no boundary. In a replay: as above.
    #[error("at position {at}: a {event} event, but the guest cannot be given events here")]
    NotABoundary {
        /// Where.
        at: Position,
        /// Which kind of event.
        event: &'static str,
    },
}

/// Why a saved state makes no machine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The processor refuses its part.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The devices refuse theirs.
    #[error(transparent)]
    Devices(#[from] DeviceStateError),
}

impl<C: Cpu> Machine<C> {
    /// A machine at boot: the processor stands before its first instruction, with its program in `memory`.
    pub fn new(cpu: C, memory: Memory, config: &DevicesConfig) -> Machine<C> {
        Machine {
            cpu,
            memory,
            config: *config,
            devices: Devices::new(config),
            clock: Nanos::ZERO,
            position: Position::BOOT,
            trail: Trail::default(),
            idle: None,
            powered_off: None,
            stage: Stage::Complete,
            dirty: DirtyTracker::default(),
        }
    }

    /// A machine in a saved state; `memory` must hold what RAM held then.
    ///
    /// # Errors
    /// If the state is invalid or belongs to another kind of machine.
    pub fn restore(
        mut cpu: C,
        memory: Memory,
        config: &DevicesConfig,
        state: &MachineState,
    ) -> Result<Machine<C>, RestoreError> {
        cpu.restore(&state.cpu)?;
        Ok(Machine {
            cpu,
            config: *config,
            devices: Devices::restore(config, &state.devices, &memory)?,
            memory,
            clock: state.clock,
            position: state.position,
            trail: state.trail,
            idle: state.idle,
            powered_off: state.powered_off,
            stage: Stage::Complete,
            dirty: DirtyTracker::default(),
        })
    }

    /// The state besides RAM. Call it after a run that ended with [`Stop::Paused`], or before the first.
    ///
    /// # Errors
    /// If the processor does not tell, or if the machine does not stand at a boundary.
    pub fn save(&self) -> Result<MachineState, CpuError> {
        if self.stage != Stage::Complete {
            return Err(CpuError::State(format!(
                "position {} is not complete: pause the machine first",
                self.position
            )));
        }
        Ok(MachineState {
            position: self.position,
            trail: self.trail,
            clock: self.clock,
            idle: self.idle,
            powered_off: self.powered_off,
            cpu: self.cpu.save()?,
            devices: self.devices.save(),
        })
    }

    /// Replaces the state besides RAM. The machine must stand at a boundary, and RAM must hold already what belongs to the state.
    ///
    /// # Errors
    /// If the state is invalid or belongs to another kind of machine; this one is of no use then.
    pub fn overwrite(&mut self, state: &MachineState) -> Result<(), RestoreError> {
        self.cpu.restore(&state.cpu)?;
        self.devices = Devices::restore(&self.config, &state.devices, &self.memory)?;
        self.clock = state.clock;
        self.position = state.position;
        self.trail = state.trail;
        self.idle = state.idle;
        self.powered_off = state.powered_off;
        Ok(())
    }

    /// Makes a position of where the guest is, after [`Stop::Kicked`] or [`Stop::Paused`]: one that no execution leads to, so that
    /// a replay must be given the state here.
    ///
    /// # Panics
    /// If an instruction is not complete here.
    pub fn jump(&mut self) {
        assert!(matches!(self.stage, Stage::Inside | Stage::Complete), "in the middle of an instruction");
        self.position = self.position.next();
        self.stage = Stage::Complete;
    }

    /// Runs the guest in `world` until something stops it.
    ///
    /// At each position the order is: exit, device work, effects, (complete,) events, enter.
    ///
    /// # Errors
    /// See [`RunError`]. The machine can be run again unless the error is the processor's.
    pub fn run<W: World>(&mut self, world: &mut W) -> Result<Stop, RunError<W::Error>> {
        loop {
            if let Some(code) = self.powered_off {
                return Ok(Stop::PoweredOff(code));
            }
            let stop = match self.stage {
                Stage::Inside => self.step(world)?,
                _ => match self.deliver(world)? {
                    Ahead::Enter => self.step(world)?,
                    Ahead::Complete => self.complete(world)?,
                    Ahead::Pause => match self.complete(world)? {
                        None if self.stage == Stage::Complete => Some(Stop::Paused),
                        stop => stop,
                    },
                },
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
    }

    /// Completes the instruction that ended the guest, after [`Stop::PoweredOff`] or [`Stop::Crashed`], so that the state can
    /// be [saved](Machine::save).
    ///
    /// # Errors
    /// If the processor fails, or goes on instead.
    pub fn settle(&mut self) -> Result<(), CpuError> {
        if self.stage != Stage::Complete && self.cpu.complete()?.is_some() {
            return Err(CpuError::State(format!(
                "the guest went on behind its end at position {}",
                self.position
            )));
        }
        self.stage = Stage::Complete;
        Ok(())
    }

    /// Gives the guest what happens at this position, until the world wants something else.
    fn deliver<W: World>(&mut self, world: &mut W) -> Result<Ahead, RunError<W::Error>> {
        loop {
            let here = self.here();
            let event = match world.next(&here).map_err(RunError::World)? {
                Next::Enter => return Ok(Ahead::Enter),
                Next::Complete => return Ok(Ahead::Complete),
                Next::Pause => return Ok(Ahead::Pause),
                Next::Event(event) => event,
            };
            let at = here.position;
            if !here.boundary {
                return Err(RunError::NotABoundary { at, event: event.kind().name() });
            }
            self.happen(event)?;
        }
    }

    fn here(&self) -> Here {
        Here {
            position: self.position,
            trail: self.trail.0,
            clock: self.clock,
            idle: self.idle,
            boundary: matches!(self.stage, Stage::Single | Stage::Complete),
            frames_wanted: self.devices.frames_wanted(&self.memory),
            console_wanted: self.devices.console_wanted(),
        }
    }

    fn happen<E>(&mut self, event: Event<'_>) -> Result<(), RunError<E>> {
        let at = self.position;
        let refused = |source| RunError::Delivery { at, source };
        match event {
            Event::Clock(to) if to < self.clock => {
                return Err(RunError::ClockBackwards { at, from: self.clock, to });
            }
            Event::Clock(now) => {
                self.clock = now;
                self.memory.put(CONTROL + control::CLOCK, &now.0.to_le_bytes());
            }
            Event::Wall(wall) => self.memory.put(CONTROL + control::WALL, &wall.to_le_bytes()),
            Event::Entropy(bytes) => {
                self.memory.put(CONTROL + control::SEED, &bytes[..bytes.len().min(control::SEED_LENGTH)]);
            }
            Event::Frame(frame) => {
                self.devices.receive_frame(frame, &self.memory).map_err(refused)?;
                self.wake();
            }
            Event::Console(bytes) => {
                self.devices.receive_console(bytes).map_err(refused)?;
                self.wake();
            }
        }
        Ok(())
    }

    /// Input ends the guest's sleep. That is state: a machine that is taken over between the input and the entry must not
    /// sleep on.
    fn wake(&mut self) {
        self.idle = self.idle.map(|_| Nanos::ZERO);
    }

    /// Enters the guest and serves its next exit.
    fn step<W: World>(&mut self, world: &mut W) -> Result<Option<Stop>, RunError<W::Error>> {
        self.idle = None;
        let exit = self.cpu.enter()?;
        if matches!(exit.reason, Reason::Kicked) {
            self.stage = Stage::Inside;
            return Ok(Some(Stop::Kicked));
        }
        let served =
            serve(exit, &mut self.devices, &self.memory, &mut self.trail, self.position.next(), world);
        self.finish(served)
    }

    /// Completes the last exit's instruction; if it has another exit, serves that.
    fn complete<W: World>(&mut self, world: &mut W) -> Result<Option<Stop>, RunError<W::Error>> {
        if self.stage == Stage::Complete {
            return Ok(None);
        }
        let Some(exit) = self.cpu.complete()? else {
            self.stage = Stage::Complete;
            return Ok(None);
        };
        self.idle = None;
        let served =
            serve(exit, &mut self.devices, &self.memory, &mut self.trail, self.position.next(), world);
        self.finish(served)
    }

    /// Counts the step and does what the device work asked for.
    fn finish<E>(&mut self, served: Served) -> Result<Option<Stop>, RunError<E>> {
        self.position = self.position.next();
        self.stage = if served.single { Stage::Single } else { Stage::Served };
        match served.request {
            Request::None => {}
            Request::Wait => {
                let mut deadline = [0; 8];
                self.memory.get(CONTROL + control::DEADLINE, &mut deadline);
                self.idle = Some(Nanos(u64::from_le_bytes(deadline)));
            }
            Request::PowerOff(code) => self.powered_off = Some(code),
            Request::Crash => return self.crash().map(Some),
        }
        Ok(None)
    }

    fn crash<E>(&self) -> Result<Stop, RunError<E>> {
        let crash = match self.cpu.save()? {
            CpuState::Kvm(state) => Crash::read(&state, &self.memory),
            CpuState::Scripted(_) => None,
        };
        let crash = crash
            .ok_or_else(|| CpuError::State("the guest wrote to the port of the exception stubs".into()))?;
        Ok(Stop::Crashed(Box::new(crash)))
    }

    /// The processor.
    pub fn cpu(&self) -> &C {
        &self.cpu
    }

    /// The steps that are done.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The virtual clock.
    pub fn clock(&self) -> Nanos {
        self.clock
    }

    /// Hash of everything the guest did so far.
    pub fn trail(&self) -> Trail {
        self.trail
    }

    /// The guest's RAM.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Keeps account of the pages that change, for someone who will ask [`Machine::changed_pages`]. Their first answer is
    /// all pages.
    ///
    /// # Errors
    /// If the processor does not keep account of the guest's writes.
    pub fn track_pages(&mut self) -> Result<Consumer, CpuError> {
        self.dirty.add(&mut self.cpu, &self.memory)
    }

    /// Someone will not ask any more.
    pub fn untrack_pages(&mut self, consumer: Consumer) {
        self.dirty.remove(consumer);
    }

    /// The pages that have changed since this consumer asked last; there may be some in it that have not.
    ///
    /// # Errors
    /// If the processor does not tell what the guest has written.
    pub fn changed_pages(&mut self, consumer: &Consumer) -> Result<PageSet, CpuError> {
        self.harvest()?;
        Ok(self.harvested(consumer))
    }

    /// Reads the accounts of what has changed, for all who will ask [`Machine::harvested`]: where several ask at the same
    /// boundary, once is enough.
    ///
    /// # Errors
    /// If the processor does not tell what the guest has written.
    pub fn harvest(&mut self) -> Result<(), CpuError> {
        self.dirty.harvest(&mut self.cpu, &self.memory)
    }

    /// The pages that have changed from when this consumer asked last to the last [`Machine::harvest`].
    pub fn harvested(&mut self, consumer: &Consumer) -> PageSet {
        self.dirty.take(consumer, &self.memory)
    }

    /// The devices' state.
    pub fn devices(&self) -> DevicesState {
        self.devices.save()
    }
}

/// What [`Machine::deliver`] leads to.
enum Ahead {
    Enter,
    Complete,
    Pause,
}

/// What came of an exit.
struct Served {
    request: Request,
    single: bool,
}

/// Does the device work of an exit; the step leads to position `at`.
fn serve(
    exit: Exit<'_>,
    devices: &mut Devices,
    memory: &Memory,
    trail: &mut Trail,
    at: Position,
    world: &mut impl Effects,
) -> Served {
    let rip = exit.rip;
    let (mut request, mut single) = (Request::None, false);
    match exit.reason {
        Reason::PortWrite { port, width, data } => {
            trail.exit(1, u64::from(port), data, rip);
            let mut effects = |effect: Effect<'_>| {
                trail.effect(&effect);
                world.effect(at, effect);
            };
            let mut context = Context { memory, effects: &mut effects };
            for item in data.chunks(usize::from(width)) {
                match devices.port_write(port, item, &mut context) {
                    Request::None => {}
                    asked => request = asked,
                }
            }
            single = data.len() == usize::from(width);
        }
        Reason::PortRead { port, width, data } => {
            for item in data.chunks_mut(usize::from(width)) {
                devices.port_read(port, item);
            }
            trail.exit(2, u64::from(port), data, rip);
        }
        Reason::MmioWrite { address, data } => {
            trail.exit(3, address, data, rip);
            let mut effects = |effect: Effect<'_>| {
                trail.effect(&effect);
                world.effect(at, effect);
            };
            devices.mmio_write(address, data, &mut Context { memory, effects: &mut effects });
        }
        Reason::MmioRead { address, data } => {
            devices.mmio_read(address, data);
            trail.exit(4, address, data, rip);
        }
        Reason::Kicked => {}
    }
    if let Request::PowerOff(code) = request {
        let effect = Effect::PowerOff(code);
        trail.effect(&effect);
        world.effect(at, effect);
    }
    Served { request, single }
}
