//! What happens in the demo, in order.

use std::{
    io,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use fastrand::Rng;
use indicatif::HumanCount;
use smoltcp::wire::{IpAddress, IpCidr};
use tempfile::TempDir;

use super::{
    DemoArgs,
    client::{Addresses, Client},
    course::Course,
    teller::Teller,
    verdict::Verdict,
};
use crate::{
    child::{Node, SAID_ABOVE},
    control::{Role, Status},
    failure::Failure,
    model::{Load, Model},
    switch::Switch,
};

/// The network of the demo: the client is the guest's gateway, so that nobody else needs to be there.
const CLIENT: Addresses = Addresses {
    mac: [2, 0, 0, 0, 0, 1],
    own: IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24),
    server: smoltcp::wire::IpEndpoint::new(IpAddress::v4(10, 0, 0, 2), 6379),
};
const GUEST_ARGUMENTS: &str = "ip=10.0.0.2/24 gw=10.0.0.1";

/// Keys of each connection, and requests under way on those that do not wait for each reply.
const KEYS: usize = 64;
const DEPTH: usize = 8;

/// The primary is killed somewhere in this part of the load: it must be in full swing before, and go on after.
const KILL_BETWEEN: (f64, f64) = (0.3, 0.6);

/// How long the guest may say nothing. A takeover takes half a second where the primary is silent instead of gone, and
/// retransmissions back off to a few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// From the last look at the primary to its death, at most, microseconds. The look holds the client up for a moment, and
/// the load must be in full swing again.
const LINGER_MAX: u64 = 20_000;

/// How long the client waits at most before it looks around.
const TURN: Duration = Duration::from_millis(5);

/// How often it is looked whether the nodes still run.
const WATCH: Duration = Duration::from_millis(100);

/// Plays everything, and judges.
pub(super) async fn perform(args: &DemoArgs, program: &Path, temporary: &Path) -> Result<Verdict, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u32(..));
    let mut teller = Teller::new();
    teller.tell(format_args!("seed {seed}: --seed {seed} repeats the requests, and the moment of the kill"));
    let mut stage = Stage::set(args, program, temporary, seed, &teller).await?;
    let played = stage.play(&mut teller).await;
    if played.is_err() {
        drop(teller);
        stage.primary.tell_last_words();
        stage.secondary.tell_last_words();
    }
    played
}

/// Everything that takes part.
struct Stage {
    // Fields are dropped in order: first the nodes end, then the network and the files go.
    primary: Node,
    secondary: Node,
    client: Client,
    model: Model,
    switch: Switch,
    _folder: TempDir,
    args: DemoArgs,
    seed: u32,
    /// When the nodes were last looked at.
    watched: Instant,
    /// How many replies there were when the last one came, and when that was.
    heard: (u64, Instant),
}

/// What was there when the primary was killed.
struct Kill {
    at: Instant,
    status: Status,
    under_way: u64,
    premature_frames: u64,
}

/// What came after.
struct Takeover {
    first_frame: Duration,
    first_reply: Duration,
    all_replied: Duration,
}

impl Stage {
    /// Starts the network and the nodes.
    async fn set(
        args: &DemoArgs,
        program: &Path,
        temporary: &Path,
        seed: u32,
        teller: &Teller,
    ) -> Result<Stage, Failure> {
        let unusable = |error: io::Error| {
            let hint = "let TMPDIR name a folder that can be written to and has a short path";
            Failure::new("cannot set up the demo's network in a temporary folder", hint).because(error)
        };
        let folder =
            tempfile::Builder::new().prefix("echovisor-demo-").tempdir_in(temporary).map_err(unusable)?;
        let command = || Command::new(program);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let switch = Switch::bind(&folder.path().join("net")).map_err(unusable)?;
        let client =
            Client::plug(&folder.path().join("net"), CLIENT, u64::from(seed)).await.map_err(unusable)?;

        let net = format!("unix:{}", path("net"));
        let arbiter = format!("file:{}", path("arbiter"));
        let link = format!("unix:{}", path("link"));
        let common = ["--net", &net, "--arbiter", &arbiter];
        let guest =
            ["--guest", "kv", "--guest-args", GUEST_ARGUMENTS, "--wait-for-secondary", "--listen", &link];
        let mut primary = Node::start(command(), "primary", common.into_iter().chain(guest), folder.path())?;
        teller.tell(format_args!(
            "primary (process {}) is started, with the built-in guest `kv`",
            primary.pid()
        ));
        if let Err(failure) = primary.until("up", None, |status| status.role == Role::Primary).await {
            primary.tell_last_words();
            return Err(failure);
        }
        let join = ["--join", &link];
        let secondary = Node::start(command(), "secondary", common.into_iter().chain(join), folder.path())?;
        teller.tell(format_args!("secondary (process {}) is started, and joins it", secondary.pid()));

        let load = Load {
            seed: u64::from(seed),
            connections: usize::from(args.connections),
            depth: DEPTH,
            keys: KEYS,
        };
        Ok(Stage {
            primary,
            secondary,
            client,
            model: Model::new(load),
            switch,
            _folder: folder,
            args: args.clone(),
            seed,
            watched: Instant::now(),
            heard: (0, Instant::now()),
        })
    }

    async fn play(&mut self, teller: &mut Teller) -> Result<Verdict, Failure> {
        self.protect().await?;
        teller.tell("protected: the secondary replays everything that the primary's guest does");
        self.connect().await?;
        teller.tell(format_args!(
            "TCP connections of the client to the guest: {}; it sends SET, GET and INCR",
            self.args.connections
        ));

        let mut course = Course::start(&self.args);
        let mut random = Rng::with_seed(u64::from(self.seed));
        let (earliest, latest) = KILL_BETWEEN;
        let moment = earliest + (latest - earliest) * random.f64();
        self.load_until(moment, &mut course, teller).await?;
        let kill = self.kill(Duration::from_micros(random.u64(..LINGER_MAX))).await?;
        teller.tell(format_args!(
            "kill -9 {}: {} replies so far, {} requests under way",
            self.primary.pid(),
            HumanCount(self.model.tally().replies),
            kill.under_way
        ));
        let takeover = self.takeover(&kill, teller).await?;
        course.resume_after(takeover.first_reply);
        self.load_until(1.0, &mut course, teller).await?;
        teller.tell("the load is over; everything is read back, over the same connections");
        self.read_back().await?;
        teller.tell("done");
        let reported = self.secondary.status().await.and_then(|status| status.takeover_ms);
        Ok(self.judge(&kill, &takeover, reported, teller))
    }

    /// Waits until both sides agree that the guest is protected.
    async fn protect(&mut self) -> Result<(), Failure> {
        self.primary.until("protected", Some(&mut self.secondary), |status| status.protected).await
    }

    /// Waits until the guest has accepted every connection.
    async fn connect(&mut self) -> Result<(), Failure> {
        self.client.connect(usize::from(self.args.connections));
        self.heard = (0, Instant::now());
        while !self.client.is_connected() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Goes on until this share of the load is done.
    async fn load_until(
        &mut self,
        share: f64,
        course: &mut Course,
        teller: &mut Teller,
    ) -> Result<(), Failure> {
        loop {
            self.turn().await?;
            let tally = self.model.tally();
            let done = course.share(tally.sent);
            teller.progress(done, tally.replies);
            if done >= share {
                return Ok(());
            }
        }
    }

    /// Kills the primary in the middle of the load, without any warning to anybody.
    async fn kill(&mut self, linger: Duration) -> Result<Kill, Failure> {
        let Some(status) = self.primary.status().await else {
            return Err(Failure::new("the primary does not answer under load", SAID_ABOVE));
        };
        // Without its secondary the guest could only be lost.
        self.secondary.check()?;
        let killing = self.primary.kill_after(linger);
        let mut premature_frames = 0;
        loop {
            let frames = self.frames_of_secondary();
            if killing.is_finished() {
                break;
            }
            premature_frames = frames;
            self.turn().await?;
        }
        let at = killing.join().unwrap_or_else(|_| Err(io::Error::other("the killer panicked")));
        let at = at.map_err(|error| {
            let hint = "see whether something else on this host ends processes";
            Failure::new("cannot kill the primary", hint).because(error)
        })?;
        let tally = self.model.tally();
        Ok(Kill { at, status, under_way: tally.sent - tally.replies, premature_frames })
    }

    /// Goes on with the load until the new primary has replied on every connection.
    async fn takeover(&mut self, kill: &Kill, teller: &Teller) -> Result<Takeover, Failure> {
        // What comes before the new primary's first frame was under way already, from the old one.
        let mut before = self.model.replies_by_connection();
        while self.frames_of_secondary() <= kill.premature_frames {
            before = self.model.replies_by_connection();
            self.turn().await?;
        }
        let first_frame = kill.at.elapsed();
        teller.tell(format_args!(
            "secondary (process {}) has taken over: its first packet came {:.1} ms after the kill",
            self.secondary.pid(),
            milliseconds(first_frame)
        ));
        self.until_replied(|waiting, all| waiting < all, &before).await?;
        let first_reply = kill.at.elapsed();
        teller.tell(format_args!("the first reply came {:.1} ms after the kill", milliseconds(first_reply)));
        self.until_replied(|waiting, _| waiting == 0, &before).await?;
        let all_replied = kill.at.elapsed();
        teller.tell(format_args!(
            "every connection goes on, {:.1} ms after the kill",
            milliseconds(all_replied)
        ));
        Ok(Takeover { first_frame, first_reply, all_replied })
    }

    /// Goes on until so many of the living connections still wait for a reply after `before`.
    async fn until_replied(
        &mut self,
        enough: impl Fn(usize, usize) -> bool,
        before: &[Option<u64>],
    ) -> Result<(), Failure> {
        loop {
            let now = self.model.replies_by_connection();
            let living: Vec<_> = now.iter().zip(before).filter(|(now, _)| now.is_some()).collect();
            let waiting = living.iter().filter(|(now, before)| now <= before).count();
            if enough(waiting, living.len()) {
                return Ok(());
            }
            self.turn().await?;
        }
    }

    /// Reads everything back, and has it compared.
    async fn read_back(&mut self) -> Result<(), Failure> {
        self.model.read_back();
        while !self.model.is_done() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Frames that came from the secondary.
    fn frames_of_secondary(&self) -> u64 {
        let pid = self.secondary.pid().cast_signed();
        let ports = self.switch.ports().into_iter().filter(|port| port.process == Some(pid));
        ports.map(|port| port.frames_from).sum()
    }

    /// One turn of the client, and now and then a look at the nodes. Fails if there is no hope for more turns.
    async fn turn(&mut self) -> Result<(), Failure> {
        self.client.turn(&mut self.model, TURN).await.map_err(|error| {
            let hint = "run it again; -v says what happened on the network";
            Failure::new("the client lost its network", hint).because(error)
        })?;
        if self.watched.elapsed() >= WATCH {
            self.watched = Instant::now();
            self.primary.check()?;
            self.secondary.check()?;
        }
        if self.client.resets() == usize::from(self.args.connections) {
            return Err(Failure::new("every connection was reset", SAID_ABOVE));
        }
        let replies = self.model.tally().replies;
        if replies > self.heard.0 {
            self.heard = (replies, Instant::now());
        }
        if self.heard.1.elapsed() > SILENCE_MAX {
            let what = format!("the guest has not answered for {} s", SILENCE_MAX.as_secs());
            return Err(Failure::new(what, SAID_ABOVE));
        }
        Ok(())
    }

    fn judge(&self, kill: &Kill, takeover: &Takeover, reported: Option<f64>, teller: &Teller) -> Verdict {
        let tally = self.model.tally();
        let resets = self.client.resets();
        let lost = tally.acknowledged_lost;
        Verdict {
            requests: tally.replies,
            acknowledged_lost: lost,
            resets,
            takeover_ms: milliseconds(takeover.first_frame),
            guest_rx_bytes: kill.status.guest_rx_bytes,
            log_bytes: kill.status.log_bytes,
            link_bytes: kill.status.link_bytes,
            primary_pid: self.primary.pid(),
            secondary_pid: self.secondary.pid(),
            ok: lost == 0 && resets == 0 && tally.faults == 0 && kill.premature_frames == 0,
            seed: self.seed,
            connections: self.args.connections,
            writes_acknowledged: tally.writes_acknowledged,
            under_way: kill.under_way,
            first_reply_ms: milliseconds(takeover.first_reply),
            all_replied_ms: milliseconds(takeover.all_replied),
            takeover_reported_ms: reported,
            premature_frames: kill.premature_frames,
            faults: self.model.faults().iter().map(ToString::to_string).collect(),
            seconds: teller.elapsed().as_secs_f64(),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
