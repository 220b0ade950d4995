//! Following a recording, under a watch: a processor that must not run ahead of the log.

use std::{cell::Cell, collections::VecDeque, convert::Infallible, rc::Rc, sync::Arc, time::Instant};

use echovisor_event::{Effect, Position};
use echovisor_log::{Batch, Decoder};
use echovisor_machine::{
    Effects, Memory, PageSet,
    cpu::{Cpu, CpuError, CpuState, Exit, Kick, Reason, scripted::ScriptedCpu},
};
use echovisor_replayer::{Arrived, Follower, History, Progress, Replay, Unconfirmed, Witness};

use echovisor_tests::scripted;

use crate::{
    guests::Said,
    recording::{Piece, Recording},
};

/// A follower of a recording.
pub(crate) type Followed = Follower<Watched, Feed, Witnessed>;

/// Makes a machine that follows the first `batches` batches of `recording`, from its beginning.
pub(crate) fn follower(recording: &Recording, batches: usize) -> (Followed, Arc<Progress>) {
    follow(recording, batches, true, false)
}

/// The same, but digests are not compared.
pub(crate) fn without_digests(recording: &Recording) -> Followed {
    follow(recording, usize::MAX, false, false).0
}

/// Makes a machine that follows `recording` beyond stops behind which it goes on.
pub(crate) fn past_stops(recording: &Recording) -> (Followed, Arc<Progress>) {
    follow(recording, usize::MAX, true, true)
}

fn follow(
    recording: &Recording,
    batches: usize,
    compares: bool,
    passes_stops: bool,
) -> (Followed, Arc<Progress>) {
    let watermark = Rc::new(Cell::new(recording.image.position()));
    let feed = Feed::new(&recording.pieces, batches, watermark.clone());
    let cpu = |memory: &Memory| {
        let cpu = scripted::processor(memory)?;
        Ok(Watched { cpu, position: recording.image.position(), watermark })
    };
    let machine = recording.image.restore(&scripted::config(), cpu).expect("an image of this machine");
    let progress = Arc::new(Progress::default());
    let replay = Replay::new(feed, Witnessed::default(), compares, progress.clone());
    let replay = if passes_stops { replay.past_stops() } else { replay };
    (Follower::new(machine, replay), progress)
}

/// The first `batches` batches of `recording`.
pub(crate) fn history(recording: &Recording, batches: usize) -> Feed {
    Feed::new(&recording.pieces, batches, Rc::default())
}

/// How many batches a recording has.
pub(crate) fn batches(recording: &Recording) -> usize {
    recording.pieces.iter().filter(|piece| matches!(piece, Piece::Batch(..))).count()
}

/// A processor that counts its exits, and panics if it is entered where the log may still have something.
pub(crate) struct Watched {
    cpu: ScriptedCpu,
    position: Position,
    watermark: Rc<Cell<Position>>,
}

impl Watched {
    /// Lets the processor run freely, as a takeover does.
    pub(crate) fn release(&self) {
        self.watermark.set(Position(u64::MAX));
    }
}

impl Cpu for Watched {
    fn enter(&mut self) -> Result<Exit<'_>, CpuError> {
        let (position, watermark) = (self.position, self.watermark.get());
        assert!(position < watermark, "entered at {position}, though the log is known up to {watermark}");
        let exit = self.cpu.enter()?;
        if !matches!(exit.reason, Reason::Kicked) {
            self.position = self.position.next();
        }
        Ok(exit)
    }

    fn complete(&mut self) -> Result<Option<Exit<'_>>, CpuError> {
        let exit = self.cpu.complete()?;
        if exit.is_some() {
            self.position = self.position.next();
        }
        Ok(exit)
    }

    fn kicker(&self) -> Box<dyn Kick> {
        self.cpu.kicker()
    }

    fn save(&self) -> Result<CpuState, CpuError> {
        self.cpu.save()
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.cpu.restore(state)
    }

    fn track_writes(&mut self) -> Result<(), CpuError> {
        self.cpu.track_writes()
    }

    fn take_written(&mut self, pages: &mut PageSet) -> Result<(), CpuError> {
        self.cpu.take_written(pages)
    }
}

/// The log as it comes in, decoded like any that comes from outside.
pub(crate) struct Feed {
    pieces: VecDeque<Piece>,
    decoder: Option<Decoder>,
    left: usize,
    spare: Option<Batch>,
    watermark: Rc<Cell<Position>>,
}

impl Feed {
    fn new(pieces: &[Piece], batches: usize, watermark: Rc<Cell<Position>>) -> Feed {
        Feed { pieces: pieces.to_vec().into(), decoder: None, left: batches, spare: None, watermark }
    }
}

impl History for Feed {
    type Error = Infallible;

    fn next(&mut self) -> Result<Option<Arrived>, Infallible> {
        if self.left == 0 {
            return Ok(None);
        }
        while let Some(piece) = self.pieces.pop_front() {
            match (piece, &mut self.decoder) {
                // Another run's log begins anew.
                (Piece::Start(start), decoder) if start.sequence == 0 => *decoder = Some(Decoder::new(start)),
                (Piece::Start(_), None) => panic!("the log begins with its first segment"),
                (Piece::Start(start), Some(decoder)) => {
                    assert_eq!(decoder.following(start.term), start);
                    decoder.start(start);
                }
                (Piece::Batch(body, mark), decoder) => {
                    let mut batch = self.spare.take().unwrap_or_default();
                    let decoder = decoder.as_mut().expect("a segment begins with its start");
                    let head = decoder.decode(&body, &mut batch).expect("what was encoded decodes");
                    assert_eq!(head.mark, mark);
                    self.left -= 1;
                    self.watermark.set(mark.watermark);
                    return Ok(Some(Arrived { batch, mark, at: Instant::now() }));
                }
            }
        }
        Ok(None)
    }

    fn recycle(&mut self, batch: Batch) {
        self.spare = Some(batch);
    }
}

/// Sees all effects, and keeps those that are not confirmed as a secondary does.
#[derive(Default)]
pub(crate) struct Witnessed {
    pub(crate) effects: Vec<(Position, Said)>,
    pub(crate) unconfirmed: Unconfirmed,
    /// What the primary said last.
    pub(crate) released: Position,
}

impl Effects for Witnessed {
    fn effect(&mut self, at: Position, effect: Effect<'_>) {
        self.effects.push((at, effect.into()));
        self.unconfirmed.effect(at, effect);
    }
}

impl Witness for Witnessed {
    fn released(&mut self, up_to: Position) {
        self.released = up_to;
        self.unconfirmed.released(up_to);
    }
}
