//! All runs, and what they say together.

use super::{link::Link, policy::Policy, row::Row, workload::Workload};

/// The rows of all runs.
#[derive(Default)]
pub(super) struct Results {
    rows: Vec<Row>,
}

/// One policy under one load over one link.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) link: &'a Link,
    pub(super) workload: Workload,
    pub(super) policy: Policy,
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Results {
    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The links, as they were asked for.
    pub(super) fn links(&self) -> Vec<&Link> {
        distinct(self.rows.iter().map(|row| &row.link))
    }

    /// What was measured over a link: load by load, and there policy by policy.
    pub(super) fn cases<'a>(&'a self, link: &'a Link) -> Vec<Case<'a>> {
        let rows = || self.rows.iter().filter(|row| row.link == *link);
        let of = |workload| {
            let rows = rows().filter(move |row| row.workload == workload);
            distinct(rows.map(move |row| row.policy)).into_iter().map(move |policy| (workload, policy))
        };
        let pairs = distinct(rows().map(|row| row.workload)).into_iter().flat_map(of);
        pairs.map(|(workload, policy)| Case { link, workload, policy }).collect()
    }

    /// A figure of all rounds of a case; none if no run has it.
    pub(super) fn spread(&self, case: Case, figure: impl Fn(&Row) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(case).filter_map(figure))
    }

    /// A figure of a case as a share of the same figure under another policy: the median of each round's own ratio.
    pub(super) fn ratio(
        &self,
        case: Case,
        base: Policy,
        figure: impl Fn(&Row) -> Option<f64>,
    ) -> Option<f64> {
        let ratio = |own: f64, other: f64| Some(own / other).filter(|ratio| ratio.is_finite());
        self.compared(case, base, figure, ratio)
    }

    /// A figure of a case without the same figure under another policy, by rounds, as above.
    pub(super) fn excess(
        &self,
        case: Case,
        base: Policy,
        figure: impl Fn(&Row) -> Option<f64>,
    ) -> Option<f64> {
        self.compared(case, base, figure, |own, other| Some(own - other))
    }

    /// The median of what `compare` makes of a figure of a case and of the same figure under another policy in the same round.
    fn compared(
        &self,
        case: Case,
        base: Policy,
        figure: impl Fn(&Row) -> Option<f64>,
        compare: impl Fn(f64, f64) -> Option<f64>,
    ) -> Option<f64> {
        let base: Vec<&Row> = self.of(Case { policy: base, ..case }).collect();
        let compared = self.of(case).filter_map(|row| {
            let other = base.iter().find(|other| other.round == row.round)?;
            compare(figure(row)?, figure(other)?)
        });
        Spread::of(compared).map(|spread| spread.median)
    }

    fn of(&self, case: Case) -> impl Iterator<Item = &Row> {
        let Case { link, workload, policy } = case;
        self.rows
            .iter()
            .filter(move |row| row.link == *link && row.workload == workload && row.policy == policy)
    }
}

impl Spread {
    /// None of no figures at all.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let is_even = values.len().is_multiple_of(2);
        let median = if is_even { f64::midpoint(values[middle - 1], upper) } else { upper };
        Some(Spread { median, min: *values.first()?, max: *values.last()? })
    }
}

/// Each value once, in the order of its first appearance.
pub(super) fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        commands::bench::{
            link::Rate,
            load::{Latency, Outcome},
            meter::Spent,
            rerun::Rerun,
            row::{Findings, Resident},
            yardstick::Yardstick,
        },
        lab::Traffic,
    };

    pub(in super::super) const LINK: Link = Link { rate: Rate::Unlimited, delay: Duration::ZERO };

    /// A run whose figures follow from so many requests in one second.
    pub(in super::super) fn row(policy: Policy, workload: Workload, round: u32, requests: u64) -> Row {
        let latency = Latency { p50: 200.0, p99: 1500.0, p999: Some(3000.0) };
        let outcome = Outcome {
            requests: Some(requests),
            per_second: Some(requests as f64),
            latency: Some(latency),
            ..Outcome::default()
        };
        let link = if policy.has_secondary() { requests * 25 } else { 0 };
        let spent = Spent {
            time: Duration::from_secs(1),
            link,
            guest: Traffic { received: requests * 100, sent: requests * 50 },
            payload: link / 2,
            flushes: link / 250,
            cpu: Duration::from_micros(requests * 10),
        };
        let resident = Resident { primary: 64 << 20, secondary: policy.has_secondary().then_some(96 << 20) };
        let yardstick =
            Yardstick { round_trip: Duration::from_micros(30), wake_up: Duration::from_micros(5) };
        let findings = Findings {
            outcome,
            spent,
            resident,
            yardstick: (policy == Policy::Replay).then_some(yardstick),
            rerun: (policy == Policy::Recorded).then_some(Rerun { seconds: 0.5, busy: 2.0 }),
        };
        Row::new((policy, workload, &LINK, round), &findings)
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn a_ratio_compares_what_was_measured_in_the_same_round() {
        let mut results = Results::default();
        for (round, plain, protected) in [(1, 1000, 500), (2, 100, 40), (3, 2000, 1600)] {
            results.push(row(Policy::Unprotected, Workload::Kv, round, plain));
            results.push(row(Policy::Replay, Workload::Kv, round, protected));
        }
        let case = Case { link: &LINK, workload: Workload::Kv, policy: Policy::Replay };
        let rate = |row: &Row| row.requests_per_second;
        assert_eq!(results.ratio(case, Policy::Unprotected, rate), Some(0.5));
        assert_eq!(results.excess(case, Policy::Unprotected, rate), Some(-400.0));
        assert_eq!(results.spread(case, rate).map(|spread| spread.median), Some(500.0));
        assert_eq!(results.ratio(case, Policy::Kemari, rate), None, "it was not measured");
        let by_link = |row: &Row| Some(row.link_bytes as f64);
        assert_eq!(results.ratio(case, Policy::Unprotected, by_link), None, "nothing went over the link");
    }

    #[test]
    fn cases_come_as_they_were_asked_for() {
        let mut results = Results::default();
        for round in 1..=2 {
            for workload in [Workload::Kv, Workload::Idle] {
                for policy in [Policy::Replay, Policy::Unprotected] {
                    results.push(row(policy, workload, round, 10));
                }
            }
        }
        assert_eq!(results.links(), [&LINK]);
        let cases: Vec<_> = results.cases(&LINK).iter().map(|case| (case.workload, case.policy)).collect();
        let (replay, unprotected) = (Policy::Replay, Policy::Unprotected);
        let [kv, idle] = [Workload::Kv, Workload::Idle];
        assert_eq!(cases, [(kv, replay), (kv, unprotected), (idle, replay), (idle, unprotected)]);
    }
}
