//! The two doors of the machine: what comes in, and what goes out.

use echovisor_event::{Effect, Event, Nanos, Position};

/// Everything that the machine cannot compute for itself comes in through [`World::next`], and everything that it says
/// goes out through [`Effects::effect`].
///
/// The recorder's world asks the host, stamps, logs and answers; the replayer's world answers from the log. The run loop
/// is the same for both.
pub trait World: Effects {
    /// Why a world may be unable to answer: a log that is damaged, a peer that is gone.
    type Error: std::error::Error;

    /// Says what happens next at the position where the machine stands. The machine asks again until the answer is
    /// [`Next::Enter`] or [`Next::Pause`]; a world may block here, above all where the guest idles.
    ///
    /// # Errors
    /// Ends the run; the machine stays at its position and can be run again.
    fn next(&mut self, here: &Here) -> Result<Next<'_>, Self::Error>;
}

/// Takes what the guest does to the outside.
pub trait Effects {
    /// Takes an effect made by the step that led to position `at`. It depends on events before `at`, and on none at `at` or
    /// later.
    fn effect(&mut self, at: Position, effect: Effect<'_>);
}

/// Where the machine stands when it asks what is next.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// The steps that are done.
    pub position: Position,
    /// Hash of everything the guest did so far ([`crate::Trail`]).
    pub trail: u64,
    /// The virtual clock.
    pub clock: Nanos,
    /// `Some(deadline)` if the guest idles: it waits for input, or for the virtual clock to reach `deadline`. Once input has
    /// been delivered here, the deadline is zero.
    pub idle: Option<Nanos>,
    /// Whether events may be delivered here. Where they may not, because the exit's instruction may not be complete, a
    /// world that has something to deliver answers [`Next::Complete`] and is asked again.
    pub boundary: bool,
    /// How many frames the guest can take now. To deliver more is an error.
    pub frames_wanted: usize,
    /// How many console bytes the guest can take now. To deliver more is an error.
    pub console_wanted: usize,
}

/// A world's answer.
#[derive(Debug)]
pub enum Next<'a> {
    /// This happens here; then ask again.
    Event(Event<'a>),
    /// Nothing more happens here: run the guest to its next exit.
    Enter,
    /// Complete the instruction whose exit was served, then ask again: here if that made a boundary, or one position
    /// later if the instruction had another exit.
    Complete,
    /// Complete the instruction, and leave the run loop if that made a boundary; otherwise ask again one position later.
    /// What is next at the boundary will be asked again when the machine is run again.
    Pause,
}
