//! What goes wrong in a run, and when: all of it drawn from the seed before the run begins.

use std::time::Duration;

use echovisor_recorder::primary;
use echovisor_replayer::secondary;
use fastrand::Rng;

use crate::{
    mutant::Mutant,
    time::{MILLISECOND, SECOND, Time},
};

/// Hosts of a run.
pub(crate) const SLOTS: usize = 3;

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mutant: Mutant,
    pub(crate) faults: Vec<(Time, Fault)>,
    /// When the operator wants the roles to be swapped, and whom it asks.
    pub(crate) switches: Vec<(Time, Whom)>,
    /// When everything is healed and nothing fails any more.
    pub(crate) heal_at: Time,
    /// When the operator stops the guest.
    pub(crate) stop_at: Option<Time>,
    /// Longest ordinary delay of the link.
    pub(crate) delay: Time,
    /// Longest time of a call to the arbiter, in each direction.
    pub(crate) arbiter_delay: Time,
    /// One call to the arbiter, or answer, in so many is lost; 0 for none.
    pub(crate) arbiter_loss: u32,
    /// One frame of a client, or answer to it, in so many is lost; as many come twice. 0 for none.
    pub(crate) frame_loss: u32,
    pub(crate) clients: usize,
    /// Longest time from an answer to a client's next request.
    pub(crate) thought: Time,
    pub(crate) primary: primary::protocol::Timing,
    pub(crate) secondary: secondary::protocol::Timing,
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Who holds the guest, as the arbiter says.
    Primary,
    /// Who protects it.
    Peer,
    /// Who is being given the state, or catches up.
    Joiner,
    /// This host.
    Slot(usize),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes between two hosts for a while, or only in one direction.
    Partition { one: Whom, other: Whom, one_way: bool, lasts: Time },
    /// The connections between two hosts break.
    Cut { one: Whom, other: Whom },
    /// A host's process is stopped for a while; its clock runs on.
    Pause { whom: Whom, lasts: Time },
    /// A process dies, and its kernel closes its connections.
    Crash(Whom),
    /// A host dies; nobody is told. It may stay dead.
    PowerLoss { whom: Whom, lasts: Time },
    /// The arbiter cannot be reached.
    NoArbiter { lasts: Time },
    /// The arbiter's record is put aside.
    NoRecord { lasts: Time },
    /// A replaying thread does nothing.
    StallReplica { whom: Whom, lasts: Time },
    /// The thread that moves messages does nothing, but the guest's runs on.
    StallNode { whom: Whom, lasts: Time },
    /// A byte of a replica's memory changes that its guest does not use.
    Rot(Whom),
}

impl Plan {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let heal_at = rng.u64(4 * SECOND..12 * SECOND);
        let count = rng.usize(3..30);
        // Faults come together: what one leaves half done is met by the next.
        let centres: Vec<_> = (0..rng.usize(1..5)).map(|_| rng.u64(700 * MILLISECOND..heal_at)).collect();
        let mut faults: Vec<_> = (0..count)
            .flat_map(|_| {
                let at = match rng.u8(..3) {
                    0 => rng.u64(700 * MILLISECOND..heal_at),
                    _ => centres[rng.usize(..centres.len())] + rng.u64(..900 * MILLISECOND),
                };
                let fault = Fault::draw(&mut rng);
                let again = matches!(fault, Fault::Cut { .. }) && rng.bool();
                // A link that flaps.
                let times = if again { rng.u64(2..6) } else { 1 };
                let apart = rng.u64(5 * MILLISECOND..300 * MILLISECOND);
                (0..times).map(move |time| (at + time * apart, fault))
            })
            .filter(|(at, _)| *at < heal_at)
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        if rng.u8(..3) == 0
            && let Some((_, Fault::PowerLoss { lasts, .. })) =
                faults.iter_mut().find(|(_, fault)| matches!(fault, Fault::PowerLoss { .. }))
        {
            // With more than one host fewer nobody could protect the guest.
            *lasts = Time::MAX;
        }
        let suspicion = Duration::from_millis(500);
        // Some in peace, some just when something goes wrong.
        let mut planned = Rng::with_seed(seed ^ 0x5317);
        let switches = (0..planned.usize(..6))
            .map(|_| {
                let at = match planned.u8(..3) {
                    0 => planned.u64(700 * MILLISECOND..heal_at),
                    _ => centres[planned.usize(..centres.len())] + planned.u64(..900 * MILLISECOND),
                };
                (at, [Whom::Primary, Whom::Peer][planned.usize(..2)])
            })
            .collect();
        Plan {
            seed,
            mutant,
            faults,
            switches,
            heal_at,
            stop_at: (rng.u8(..6) == 0).then(|| rng.u64(2 * SECOND..heal_at + SECOND)),
            delay: [100_000, MILLISECOND, 5 * MILLISECOND, 40 * MILLISECOND][rng.usize(..4)],
            arbiter_delay: [MILLISECOND, 20 * MILLISECOND, 400 * MILLISECOND][rng.usize(..3)],
            arbiter_loss: [0, 3, 10][rng.usize(..3)],
            frame_loss: [0, 5, 50][rng.usize(..3)],
            clients: rng.usize(1..6),
            thought: [120, 120, 3000][rng.usize(..3)] * MILLISECOND,
            primary: primary::protocol::Timing {
                suspicion,
                lag_max: Duration::from_millis(rng.u64(600..3000)),
                ..Default::default()
            },
            secondary: secondary::protocol::Timing {
                suspicion: suspicion + Duration::from_millis([0, 0, 100, 400][rng.usize(..4)]),
                join: Duration::from_secs(3),
                ..Default::default()
            },
        }
    }
}

impl Fault {
    fn draw(rng: &mut Rng) -> Fault {
        let short = |rng: &mut Rng| {
            let longest = [80, 450, 700, 3000][rng.usize(..4)] * MILLISECOND;
            rng.u64(MILLISECOND..longest)
        };
        match rng.u8(..20) {
            0..=2 => Fault::Partition {
                one: Whom::Primary,
                other: Whom::draw(rng),
                one_way: rng.bool(),
                lasts: short(rng),
            },
            3..=5 => Fault::Cut { one: Whom::Primary, other: Whom::draw(rng) },
            6..=8 => Fault::Pause { whom: Whom::draw(rng), lasts: short(rng) },
            9..=10 => Fault::Crash(Whom::draw(rng)),
            11 => Fault::PowerLoss { whom: Whom::draw(rng), lasts: rng.u64(SECOND..4 * SECOND) },
            12..=13 => Fault::NoArbiter { lasts: short(rng) },
            14..=15 => Fault::StallReplica { whom: Whom::Peer, lasts: short(rng) },
            16..=17 => Fault::StallNode { whom: Whom::draw(rng), lasts: short(rng) },
            18 => Fault::NoRecord { lasts: short(rng) },
            _ => Fault::Rot(Whom::Peer),
        }
    }
}

impl Whom {
    fn draw(rng: &mut Rng) -> Whom {
        match rng.u8(..6) {
            0..=1 => Whom::Primary,
            2..=3 => Whom::Peer,
            4 => Whom::Joiner,
            _ => Whom::Slot(rng.usize(..SLOTS)),
        }
    }
}
