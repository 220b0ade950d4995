//! What Echovisor is meant to reach, and whether it did in these runs. Each aim is a ratio or a count from one run, so that it says the same
//! on a fast host and on a slow one.

use super::{
    figures::{millis, short},
    link::Link,
    policy::Policy::{self, Checkpoint, Kemari, Recorded, Replay, Unprotected},
    results::{Case, Results},
    row::Row,
    tables::Table,
    workload::Workload::{Compute, Http, Idle, Kv, KvWrite, Lone, Rate},
};

/// One aim, of which something was measured.
struct Aim {
    what: String,
    measured: f64,
    bound: Bound,
    /// How its figures are written.
    written: fn(f64) -> String,
}

/// Where it is reached.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// The aims of which everything was measured over a link.
pub(super) fn aims(results: &Results, link: &Link) -> Table {
    Table {
        title: format!("Aims, {link}"),
        note: "From the runs above: medians; where two policies are compared, the median of each round's own ratio or difference.",
        columns: vec!["aim", "measured", "at most / at least", "met"],
        names: 1,
        rows: measured(results, link).iter().map(Aim::row).collect(),
    }
}

fn measured(results: &Results, link: &Link) -> Vec<Aim> {
    let own = |workload, policy, figure: fn(&Row) -> Option<f64>| {
        results.spread(Case { link, workload, policy }, figure).map(|spread| spread.median)
    };
    let of = |workload, policy, base: Policy, figure: fn(&Row) -> Option<f64>| {
        results.ratio(Case { link, workload, policy }, base, figure)
    };
    let replayed = |workload, figure| own(workload, Replay, figure);
    let mut aims = Vec::new();
    let mut add = |what: String, measured: Option<f64>, bound, written| {
        // What is no number was not measured.
        let measured = measured.filter(|figure| figure.is_finite());
        aims.extend(measured.map(|measured| Aim { what, measured, bound, written }));
    };

    let payload = Row::payload_per_received;
    add("kv: log / received, bytes".into(), replayed(Kv, payload), Bound::AtMost(0.1), short);
    let on_link = replayed(Kv, Row::link_per_received);
    add("kv: link / received, bytes".into(), on_link, Bound::AtMost(0.25), short);
    add("lone: log / received, bytes".into(), replayed(Lone, payload), Bound::AtMost(0.35), short);
    for base in [Checkpoint, Kemari] {
        for workload in [Kv, KvWrite, Http, Rate] {
            let what = format!("{}: link bytes/answer, replay / {}", workload.name(), base.name());
            let share = of(workload, Replay, base, Row::link_per_answer);
            add(what, share, Bound::AtMost(1.0 / 200.0), fraction);
        }
    }
    let share = of(Compute, Replay, Checkpoint, Row::link_mbits);
    add("compute: link bytes/s, replay / checkpoint".into(), share, Bound::AtMost(1.0), short);
    let kbits = replayed(Idle, |row| Some(row.link_mbits()? * 1e3));
    add("idle: link kbit/s, replay".into(), kbits, Bound::AtMost(20.0), short);
    if let Some(least) = replayed(Rate, |row| millis(row.least_delay_us())) {
        let case = Case { link, workload: Rate, policy: Replay };
        let excess = results.excess(case, Unprotected, |row| millis(row.p50_us));
        let what = "rate: p50 ms, replay − unprotected; at most round trip + 4 wake-ups";
        add(what.into(), excess, Bound::AtMost(least), short);
    }
    let cpu = of(Kv, Replay, Unprotected, |row| row.primary_cpu_us_per_request);
    add("kv: primary's CPU/answer, replay / unprotected".into(), cpu, Bound::AtMost(1.15), short);
    let speed = of(Kv, Recorded, Unprotected, Row::work);
    add("kv: answers/s, recorded / unprotected".into(), speed, Bound::AtLeast(0.98), short);
    let time = own(Kv, Recorded, Row::replay_per_busy);
    add("kv: time of a replay / busy time of its recording".into(), time, Bound::AtMost(0.4), short);
    aims
}

impl Aim {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
        }
    }

    fn row(&self) -> Vec<String> {
        let bound = match self.bound {
            Bound::AtMost(most) => format!("≤ {}", (self.written)(most)),
            Bound::AtLeast(least) => format!("≥ {}", (self.written)(least)),
        };
        let met = if self.is_met() { "yes" } else { "no" };
        vec![self.what.clone(), (self.written)(self.measured), bound, met.to_owned()]
    }
}

/// A small share as one part of many.
fn fraction(share: f64) -> String {
    if share > 0.0 && share < 0.5 { format!("1/{:.0}", share.recip()) } else { short(share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::{
        results::tests::{LINK, row},
        workload::Workload,
    };

    fn results() -> Results {
        let mut results = Results::default();
        for (policy, requests) in
            [(Unprotected, 1000), (Recorded, 970), (Replay, 1000), (Checkpoint, 1000), (Kemari, 1000)]
        {
            for workload in Workload::ALL {
                let row = row(policy, workload, 1, requests);
                let heavier = if policy == Checkpoint { 300 } else { 1 };
                results.push(Row { link_bytes: row.link_bytes * heavier, ..row });
            }
        }
        results
    }

    #[test]
    fn each_aim_is_met_or_not() {
        let table = aims(&results(), &LINK);
        let rows: Vec<String> = table.rows.iter().map(|row| row.join(" | ")).collect();
        assert_eq!(rows.len(), 3 + 8 + 6, "{rows:#?}");
        for expected in [
            "kv: log / received, bytes | 0.12 | ≤ 0.10 | no",
            "kv: link / received, bytes | 0.25 | ≤ 0.25 | yes",
            "http: link bytes/answer, replay / checkpoint | 1/300 | ≤ 1/200 | yes",
            "http: link bytes/answer, replay / kemari | 1.00 | ≤ 1/200 | no",
            "idle: link kbit/s, replay | 200 | ≤ 20.0 | no",
            "rate: p50 ms, replay − unprotected; at most round trip + 4 wake-ups | 0 | ≤ 0.050 | yes",
            "kv: answers/s, recorded / unprotected | 0.97 | ≥ 0.98 | no",
            "kv: time of a replay / busy time of its recording | 0.25 | ≤ 0.40 | yes",
        ] {
            assert!(rows.iter().any(|row| row == expected), "{expected}\nis not in\n{rows:#?}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_row() {
        let mut some = Results::default();
        some.push(row(Replay, Idle, 1, 1000));
        assert_eq!(aims(&some, &LINK).rows.len(), 1);
        assert_eq!(aims(&Results::default(), &LINK).rows.len(), 0);
    }
}
