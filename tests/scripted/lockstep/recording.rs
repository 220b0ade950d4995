//! Recording a scripted guest in a world that a seed directs: what happens, when batches are cut, what has been released.

use std::{convert::Infallible, time::Duration};

use echovisor_event::{Digest, Effect, Event, Nanos, Position, Term};
use echovisor_log::{Batch, Encoder, Mark, Record, SegmentStart};
use echovisor_machine::{
    Effects, Here, Machine, Next, Stop, World,
    cpu::scripted::{ScriptedCpu, programs::TICK},
};
use echovisor_snapshot::{Image, state_digest};
use fastrand::Rng;

use crate::guests::{Said, frame};

/// The log, as it would travel.
#[derive(Clone)]
pub(crate) enum Piece {
    Start(SegmentStart),
    Batch(Vec<u8>, Mark),
}

/// What a run left behind, and where it led.
pub(crate) struct Recording {
    /// Where it began.
    pub(crate) image: Image,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) effects: Vec<(Position, Said)>,
    /// Frames that the guest was given, in order.
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) checkpoints: u64,
    pub(crate) position: Position,
    pub(crate) trail: u64,
}

/// How a recording ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// The operator stops the guest at this position.
    Stop(u64),
    /// The log breaks off at this position, as when the primary dies.
    Cut(u64),
    /// The guest ends itself.
    Guest,
}

impl End {
    fn position(self) -> Position {
        match self {
            End::Stop(position) | End::Cut(position) => Position(position),
            End::Guest => Position(u64::MAX),
        }
    }
}

/// Records `machine` from where it stands.
pub(crate) fn record(machine: &mut Machine<ScriptedCpu>, seed: u64, end: End) -> Recording {
    let image = Image::capture(machine.memory(), machine.save().expect("a boundary"));
    let mut director = Director::new(seed, end.position(), machine);
    loop {
        match machine.run(&mut director).expect("a run without errors") {
            Stop::Paused if director.checkpoint_due => director.checkpoint(machine),
            Stop::Paused => break,
            Stop::PoweredOff(_) => {
                machine.settle().expect("the power-off completes");
                director.checkpoint(machine);
                director.tell_digest(machine.position());
                director.log.flush(machine.position());
                break;
            }
            stop => panic!("{stop:?}"),
        }
    }
    if let End::Stop(_) = end {
        director.checkpoint(machine);
        director.tell_digest(machine.position());
        director.log.push(machine.position(), Record::Stop);
        director.log.flush(machine.position());
    }
    let Director { log, inputs: Inputs { frames, .. }, effects, checkpoints, .. } = director;
    let (position, trail) = (machine.position(), machine.trail().0);
    Recording { image, pieces: log.pieces, effects, frames, checkpoints, position, trail }
}

/// A recording that only says what stands here: `records`, complete up to `watermark`.
pub(crate) fn written(
    machine: &Machine<ScriptedCpu>,
    records: &[(u64, Event<'_>)],
    watermark: u64,
) -> Recording {
    let mut log = Log::new(machine.position());
    log.mark.trail_at = machine.position();
    log.mark.trail = machine.trail().0 as u32;
    for (at, event) in records {
        log.push(Position(*at), Record::Event(*event));
    }
    log.mark.watermark = Position(watermark);
    log.flush(Position::BOOT);
    Recording {
        image: Image::capture(machine.memory(), machine.save().expect("a boundary")),
        pieces: log.pieces,
        effects: Vec::new(),
        frames: Vec::new(),
        checkpoints: 0,
        position: machine.position(),
        trail: machine.trail().0,
    }
}

/// The digest of a machine at a boundary.
fn digest(machine: &Machine<ScriptedCpu>) -> Digest {
    state_digest(machine.memory(), &machine.save().expect("a boundary"))
}

/// The world of the recording.
struct Director {
    rng: Rng,
    log: Log,
    inputs: Inputs,
    until: Position,
    /// Where the machine stands, and how many events are still to happen there.
    here: Option<Position>,
    left: usize,
    checkpoint_due: bool,
    /// The last checkpoint, whose digest is not in the log yet.
    untold: Option<(Position, Digest)>,
    effects: Vec<(Position, Said)>,
    checkpoints: u64,
}

impl Director {
    fn new(seed: u64, until: Position, machine: &Machine<ScriptedCpu>) -> Director {
        let mut rng = Rng::with_seed(seed);
        let (frames, buffer) = (Vec::new(), Vec::new());
        let inputs = Inputs { rng: rng.fork(), clock: machine.clock(), frames, buffer };
        Director {
            rng,
            log: Log::new(machine.position()),
            inputs,
            until,
            here: None,
            left: 0,
            checkpoint_due: false,
            untold: None,
            effects: Vec::new(),
            checkpoints: 0,
        }
    }

    fn arrive(&mut self, here: &Here) {
        self.here = Some(here.position);
        self.log.mark.watermark = here.position;
        self.log.mark.trail_at = here.position;
        self.log.mark.trail = here.trail as u32;
        self.left = match here.idle {
            Some(_) => self.rng.usize(1..6),
            None => usize::from(self.rng.u8(..8) == 0),
        };
        self.checkpoint_due = self.rng.u8(..60) == 0;
        self.cut(4);
    }

    /// Ends the batch with a chance of one in `chance`.
    fn cut(&mut self, chance: u8) {
        if self.rng.u8(..chance) == 0 {
            let released = self.rng.u64(self.log.mark.released.0..=self.log.mark.watermark.0);
            self.log.flush(Position(released));
        }
    }

    fn checkpoint(&mut self, machine: &Machine<ScriptedCpu>) {
        self.checkpoint_due = false;
        self.checkpoints += 1;
        let at = machine.position();
        self.log.mark.watermark = at;
        self.log.mark.trail_at = at;
        self.log.mark.trail = machine.trail().0 as u32;
        self.tell_digest(at);
        self.log.push(at, Record::Checkpoint);
        self.log.flush(self.log.mark.released);
        self.log.next_segment();
        self.untold = Some((at, digest(machine)));
    }

    /// Writes down the digest of the last checkpoint, if that was not done yet.
    fn tell_digest(&mut self, at: Position) {
        if let Some((of, digest)) = self.untold.take() {
            self.log.push(at, Record::Digest { of, digest });
        }
    }
}

/// What may happen to the guest.
struct Inputs {
    rng: Rng,
    clock: Nanos,
    frames: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Inputs {
    fn pick(&mut self, here: &Here) -> Event<'_> {
        let kind = if here.idle.is_some() { self.rng.u8(..8) } else { 0 };
        match kind {
            1..=4 if here.frames_wanted > 0 => {
                self.buffer = frame(self.frames.len() as u64);
                self.frames.push(self.buffer.clone());
                Event::Frame(&self.buffer)
            }
            5 if here.console_wanted > 0 => {
                self.buffer = b"typed"[..here.console_wanted.min(5)].to_vec();
                Event::Console(&self.buffer)
            }
            6 => Event::Wall(self.rng.u64(..)),
            7 => {
                self.buffer = self.rng.u64(..).to_le_bytes().to_vec();
                Event::Entropy(&self.buffer)
            }
            _ => {
                self.clock = self.clock + Duration::from_nanos(self.rng.u64(..2 * TICK));
                Event::Clock(self.clock)
            }
        }
    }
}

impl Effects for Director {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        self.effects.push((at, effect.into()));
    }
}

impl World for Director {
    type Error = Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Infallible> {
        if self.here != Some(here.position) {
            self.arrive(here);
        }
        if self.checkpoint_due || here.position >= self.until {
            return Ok(Next::Pause);
        }
        // A batch may end between any two events.
        self.cut(16);
        if here.boundary && self.rng.u8(..8) == 0 {
            self.tell_digest(here.position);
        }
        if self.left == 0 {
            return Ok(Next::Enter);
        }
        if !here.boundary {
            return Ok(Next::Complete);
        }
        self.left -= 1;
        let event = self.inputs.pick(here);
        self.log.push(here.position, Record::Event(event));
        Ok(Next::Event(event))
    }
}

/// The log's writing end.
struct Log {
    encoder: Encoder,
    batch: Batch,
    mark: Mark,
    pieces: Vec<Piece>,
}

impl Log {
    fn new(position: Position) -> Log {
        let start = SegmentStart { position, ..SegmentStart::first(Term(1)) };
        Log {
            encoder: Encoder::new(start),
            batch: Batch::new(),
            mark: Mark { watermark: position, ..Mark::default() },
            pieces: vec![Piece::Start(start)],
        }
    }

    fn push(&mut self, at: Position, record: Record<'_>) {
        self.batch.push(at, record).expect("room in the batch");
    }

    fn flush(&mut self, released: Position) {
        self.mark.released = released;
        let encoded = self.encoder.encode(&self.batch, self.mark).expect("a batch in order");
        self.pieces.push(Piece::Batch(encoded.body.to_vec(), self.mark));
        self.batch.clear();
    }

    fn next_segment(&mut self) {
        self.pieces.push(Piece::Start(self.encoder.next_segment(Term(1))));
    }
}
