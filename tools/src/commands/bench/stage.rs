//! A network and its nodes, for one run.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    client,
    link::{Link, Rate},
    placement::Placement,
    policy::{Pace, Policy},
    relay::Relay,
    row::Resident,
    workload::Guest,
};
use crate::{
    child::{Node, SAID_ABOVE},
    control::{Role, Status},
    failure::Failure,
    key_file,
    lab::{self, GUEST, Network, Site, TAP},
};

/// The port of the link.
const LINK_PORT: u16 = 7000;

/// How long a silent node is trusted to be alive. Nobody is killed here, and a slow link makes everybody silent for long.
const SUSPICION: &str = "60s";

/// How long is waited for the acknowledgement of everything, at most. A policy may have something to send all the time.
const SETTLING: Duration = Duration::from_secs(1);

/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(5);

/// Everything that takes part.
pub(super) struct Stage {
    // Fields are dropped in order: first the nodes end, then the network goes.
    pub(super) primary: Node,
    secondary: Option<Node>,
    _relay: Option<Relay>,
    pub(super) network: Network,
    rate: Rate,
}

/// With what a stage is set.
#[derive(Clone, Copy)]
pub(super) struct Props<'a> {
    /// This program, as the nodes.
    pub(super) program: &'a OsStr,
    /// For the files of this one stage.
    pub(super) folder: &'a Path,
    pub(super) pace: Pace,
    pub(super) placement: &'a Placement,
}

impl Stage {
    /// Lays the network and starts the nodes; the guest is protected then, if it shall be, and answers.
    pub(super) async fn set(
        policy: Policy,
        guest: Guest,
        link: &Link,
        props: Props<'_>,
    ) -> Result<Stage, Failure> {
        fs::create_dir(props.folder).map_err(|error| unusable(props.folder, error))?;
        let network = Network::new()?;
        let nodes = Nodes { network: &network, props };
        let mut primary = nodes.primary(policy, &guest)?;
        if let Err(failure) = primary.until("up", None, |status| status.role == Role::Primary).await {
            primary.tell_last_words();
            return Err(failure);
        }
        let relay = (policy.has_secondary() && !link.delay.is_zero())
            .then(|| Relay::start(&network.secondary.namespace, address(&network.primary), link.delay))
            .transpose()?;
        let secondary = policy.has_secondary().then(|| nodes.secondary(relay.as_ref())).transpose()?;
        let rate = link.rate.clone();
        let mut stage = Stage { primary, secondary, _relay: relay, network, rate };
        let ready = stage.until_ready(guest.port).await;
        if ready.is_err() {
            stage.tell_last_words();
        }
        ready.map(|()| stage)
    }

    async fn until_ready(&mut self, port: u16) -> Result<(), Failure> {
        if self.secondary.is_some() {
            self.primary.until("protected", self.secondary.as_mut(), |status| status.protected).await?;
        }
        client::connect(&self.network.client, port).map(|_| ())
    }

    /// Makes the link as slow as it shall be. Until then all goes as fast as it can, for nobody measures how a guest is prepared.
    pub(super) fn slow_down(&self) -> Result<(), Failure> {
        match &self.rate {
            Rate::Unlimited => Ok(()),
            Rate::Limited(rate) => Ok(self.network.shape_link(rate)?),
        }
    }

    /// How the primary is. It must be as it was in the beginning: else the figures are those of something else.
    pub(super) async fn status(&mut self) -> Result<Status, Failure> {
        self.primary.check()?;
        if let Some(secondary) = &mut self.secondary {
            secondary.check()?;
        }
        let status = self.primary.status().await;
        let status = status.ok_or_else(|| Failure::new("the primary does not answer", SAID_ABOVE))?;
        if status.role != Role::Primary || status.protected != self.secondary.is_some() {
            let hint = "the nodes lost each other: what they said last stands above; a slower load or a faster link may help";
            return Err(Failure::new("the guest did not stay protected under this load", hint));
        }
        Ok(status)
    }

    /// Waits until everything is acknowledged.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < SETTLING {
            let status = self.status().await?;
            if status.acknowledged >= status.watermark {
                break;
            }
            tokio::time::sleep(PERIOD).await;
        }
        Ok(())
    }

    /// How much memory the nodes have now.
    pub(super) fn resident(&self) -> Result<Resident, Failure> {
        let of = |node: &Node| {
            lab::resident(node.pid()).map_err(|error| {
                Failure::new("the memory of a node is unknown", "see whether /proc is mounted").because(error)
            })
        };
        let secondary = self.secondary.as_ref().map(of).transpose()?;
        Ok(Resident { primary: of(&self.primary)?, secondary })
    }

    /// Shows what the nodes said last, so that a failure explains itself.
    pub(super) fn tell_last_words(&self) {
        self.primary.tell_last_words();
        self.secondary.iter().for_each(Node::tell_last_words);
    }
}

/// What is needed to start nodes.
struct Nodes<'a> {
    network: &'a Network,
    props: Props<'a>,
}

impl Nodes<'_> {
    /// Whoever runs the guest first.
    fn primary(&self, policy: Policy, guest: &Guest) -> Result<Node, Failure> {
        let site = &self.network.primary;
        let guest_arguments = format!("ip={GUEST}/24{}", guest.arguments);
        let mut arguments = words(["--guest", guest.name, "--guest-args", &guest_arguments]);
        arguments.extend(words(["--memory", guest.memory, "--net", &format!("tap:{TAP}")]));
        if policy == Policy::Recorded {
            arguments.extend(words(["--out", &recording(self.props.folder).display().to_string()]));
            return self.start("record", site, &arguments);
        }
        if policy.has_secondary() {
            arguments.extend(policy.options(&self.props.pace));
            arguments.extend(words(["--wait-for-secondary", "--listen", &address(site)]));
            arguments.extend(self.membership("primary", "secondary")?);
        }
        self.start("primary", site, &arguments)
    }

    /// Whoever follows; over the relay, if there is one.
    fn secondary(&self, relay: Option<&Relay>) -> Result<Node, Failure> {
        let site = &self.network.secondary;
        let primary = relay.map_or(address(&self.network.primary), |relay| relay.address.to_string());
        let mut arguments = words(["--net", &format!("tap:{TAP}"), "--join", &primary]);
        arguments.extend(words(["--listen", &address(site)]));
        arguments.extend(self.membership("secondary", "primary")?);
        self.start("secondary", site, &arguments)
    }

    /// The arbiter, and the keys of both ends: the link is encrypted, as between two hosts.
    fn membership(&self, own: &str, other: &str) -> Result<Vec<String>, Failure> {
        for name in [own, other] {
            let key = self.props.folder.join(format!("{name}.key"));
            if !key.exists() {
                key_file::generate(&key)?;
            }
        }
        let peer = key_file::public_path(&self.props.folder.join(format!("{other}.key")));
        let (key, arbiter) = (self.path(&format!("{own}.key")), format!("file:{}", self.path("arbiter")));
        let mut words = words(["--arbiter", &arbiter, "--key", &key, "--peer", &peer.display().to_string()]);
        words.extend(["--suspicion", SUSPICION].map(str::to_owned));
        Ok(words)
    }

    fn start(&self, name: &'static str, site: &Site, arguments: &[String]) -> Result<Node, Failure> {
        let mut command = Command::new(self.props.program);
        site.namespace.house(&mut command)?;
        self.props.placement.pin(&mut command, name != "secondary");
        Node::start(command, name, arguments, self.props.folder)
    }

    fn path(&self, name: &str) -> String {
        self.props.folder.join(name).display().to_string()
    }
}

/// Where what is recorded goes.
pub(super) fn recording(folder: &Path) -> PathBuf {
    folder.join("recording")
}

/// Where a node at this site listens for its peer.
fn address(site: &Site) -> String {
    format!("{}:{LINK_PORT}", site.address)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).to_vec()
}

fn unusable(folder: &Path, error: io::Error) -> Failure {
    let hint = "let TMPDIR name a folder that can be written to and has a short path";
    Failure::new(format!("cannot use the temporary folder {}", folder.display()), hint).because(error)
}
