//! The tables: one for each experiment, in Markdown that reads well as it is.

use std::fmt;

use super::{
    aims::aims,
    figures::{mebibytes, millis, number, shown},
    link::Link,
    policy::Policy,
    results::{Case, Results},
    row::Row,
    workload::Workload,
};

/// A table with its heading.
pub(super) struct Table {
    pub(super) title: String,
    /// What the figures are.
    pub(super) note: &'static str,
    /// The first ones are names, the others figures.
    pub(super) columns: Vec<&'static str>,
    pub(super) names: usize,
    pub(super) rows: Vec<Vec<String>>,
}

/// All tables.
pub(super) fn tables(results: &Results) -> Vec<Table> {
    let of = |link| [bandwidth, response_time, memory, throughput, aims].map(|table| table(results, link));
    results.links().into_iter().flat_map(of).filter(|table| !table.rows.is_empty()).collect()
}

fn bandwidth(results: &Results, link: &Link) -> Table {
    let cases = results.cases(link).into_iter().filter(|case| case.policy.has_secondary());
    let rows = cases.map(|case| {
        let spread = |figure: fn(&Row) -> Option<f64>| shown(results.spread(case, figure));
        let mut row = names(case);
        row.extend([
            spread(Row::link_mbits),
            spread(|row| Some(row.mbits(row.guest_rx_bytes))),
            spread(Row::link_per_received),
            spread(Row::payload_per_received),
            spread(Row::link_per_answer),
            number(results.ratio(case, Policy::Replay, Row::link_per_unit)),
            spread(Row::answers_per_flush),
            spread(Row::link_per_flush),
        ]);
        row
    });
    Table {
        title: format!("Network bandwidth, {link}"),
        note: "Link: all bytes of its interface, both directions, headers and acknowledgements included. Received: frames for the \
               guest. Of replay: link bytes for each answer, or for each second where nothing is asked. Flush: a part of the log that is \
               sent at once.",
        columns: vec![
            "workload",
            "policy",
            "link Mbit/s",
            "received Mbit/s",
            "link / received",
            "log / received",
            "link bytes/answer",
            "of replay",
            "answers/flush",
            "link bytes/flush",
        ],
        names: 2,
        rows: rows.collect(),
    }
}

fn response_time(results: &Results, link: &Link) -> Table {
    let cases = results.cases(link).into_iter().filter(|case| case.workload == Workload::Rate);
    let rows = cases.map(|case| {
        let spread = |figure: fn(&Row) -> Option<f64>| shown(results.spread(case, figure));
        vec![
            case.policy.name().to_owned(),
            spread(|row| row.requests_per_second),
            spread(|row| millis(row.p50_us)),
            spread(|row| millis(row.p99_us)),
            spread(|row| millis(row.p999_us)),
            number(results.excess(case, Policy::Unprotected, |row| millis(row.p50_us))),
            number(results.ratio(case, Policy::Unprotected, |row| row.p50_us)),
            spread(|row| millis(row.least_delay_us())),
            spread(|row| Some(row.unanswered as f64)),
        ]
    });
    Table {
        title: format!("Response time, {link}"),
        note: "Workload `rate`: requests come at the same fixed rate under each policy, and count from when they should have been sent. \
               Those without an answer count with the time that they have waited. Round trip + 4 wake-ups: of the link of that run, and of \
               a thread by another one on another processor, measured just before the load of `replay`.",
        columns: vec![
            "policy",
            "answers/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "p50 − unprotected",
            "of unprotected",
            "round trip + 4 wake-ups",
            "unanswered",
        ],
        names: 1,
        rows: rows.collect(),
    }
}

fn memory(results: &Results, link: &Link) -> Table {
    let rows = results.cases(link).into_iter().map(|case| {
        let spread = |figure: fn(&Row) -> Option<f64>| shown(results.spread(case, figure));
        let mut row = names(case);
        row.extend([
            spread(|row| Some(mebibytes(row.primary_rss_bytes))),
            spread(|row| row.secondary_rss_bytes.map(mebibytes)),
            number(results.ratio(case, Policy::Unprotected, |row| Some(mebibytes(row.resident())))),
        ]);
        row
    });
    Table {
        title: format!("Memory, {link}"),
        note: "Resident set of each process at the end of the load, the guest's memory included.",
        columns: vec!["workload", "policy", "primary MiB", "secondary MiB", "both, of unprotected"],
        names: 2,
        rows: rows.collect(),
    }
}

fn throughput(results: &Results, link: &Link) -> Table {
    let has_work = |case: &Case| results.spread(*case, Row::work).is_some();
    let rows = results.cases(link).into_iter().filter(has_work).map(|case| {
        let spread = |figure: fn(&Row) -> Option<f64>| shown(results.spread(case, figure));
        let mut row = names(case);
        row.extend([
            spread(Row::work),
            number(results.ratio(case, Policy::Unprotected, Row::work)),
            spread(Row::guest_mbits),
            spread(|row| millis(row.p50_us)),
            spread(|row| millis(row.p99_us)),
            spread(|row| row.primary_cpu_us_per_request),
            number(results.ratio(case, Policy::Unprotected, |row| row.primary_cpu_us_per_request)),
        ]);
        row
    });
    Table {
        title: format!("Throughput, {link}"),
        note: "As many requests as the clients of each workload get answered (`rate`: as many as are asked; `compute`: iterations). Guest: \
               frames that it receives, of `send` those that it sends. CPU: of the primary, its guest included.",
        columns: vec![
            "workload",
            "policy",
            "per second",
            "of unprotected",
            "guest Mbit/s",
            "p50 ms",
            "p99 ms",
            "CPU µs/answer",
            "CPU, of unprotected",
        ],
        names: 2,
        rows: rows.collect(),
    }
}

fn names(case: Case) -> Vec<String> {
    [case.workload.name(), case.policy.name()].map(str::to_owned).to_vec()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        writeln!(f, "### {}\n\n{}\n", self.title, self.note)?;
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            cells.zip(&widths).enumerate().fold("|".to_owned(), |line, (column, (cell, width))| {
                if column < self.names {
                    format!("{line} {cell:<width$} |")
                } else {
                    format!("{line} {cell:>width$} |")
                }
            })
        };
        writeln!(f, "{}", line(&mut self.columns.iter().copied()))?;
        for (column, width) in widths.iter().enumerate() {
            let colon = if column < self.names { '-' } else { ':' };
            write!(f, "|-{}{colon}", "-".repeat(*width))?;
        }
        writeln!(f, "|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(&mut row.iter().map(String::as_str))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::results::tests::row;

    fn results() -> Results {
        let mut results = Results::default();
        for round in 1..=3 {
            for policy in [Policy::Unprotected, Policy::Replay] {
                for workload in [Workload::Rate, Workload::Kv] {
                    results.push(row(policy, workload, round, 1000 * u64::from(round)));
                }
            }
        }
        results
    }

    #[test]
    fn there_is_a_table_for_each_experiment() {
        let tables = tables(&results());
        let titles: Vec<_> = tables.iter().map(|table| table.title.split(',').next()).collect();
        assert_eq!(titles, ["Network bandwidth", "Response time", "Memory", "Throughput", "Aims"].map(Some));
        let text = tables.iter().map(ToString::to_string).collect::<String>();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "### Response time, unlimited link Workload `rate`",
            "| unprotected | 2000 (1000..3000) | 0.20 | 1.50 | 3.00 | 0 | 1.00 | – | 0 |",
            "| replay | 2000 (1000..3000) | 0.20 | 1.50 | 3.00 | 0 | 1.00 | 0.050 | 0 |",
            "| rate | replay | 0.40 (0.20..0.60) | 1.60 (0.80..2.40) | 0.25 | 0.12 | 25.0 | 1.00 | 10.0 | 250 |",
            "| rate | unprotected | 64.0 | – | 1.00 |",
            "| rate | replay | 64.0 | 96.0 | 2.50 |",
            "| kv | replay | 2000 (1000..3000) | 1.00 | 1.60 (0.80..2.40) | 0.20 | 1.50 | 10.0 | 1.00 |",
            "| kv: link / received, bytes | 0.25 | ≤ 0.25 | yes |",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_table_is_markdown() {
        for table in tables(&results()) {
            let text = table.to_string();
            let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('|')).collect();
            assert_eq!(lines.len(), 2 + table.rows.len());
            let bars = |line: &str| line.matches('|').count();
            assert!(lines.iter().all(|line| bars(line) == table.columns.len() + 1), "{text}");
            let width = lines[0].chars().count();
            assert!(lines.iter().all(|line| line.chars().count() == width), "{text}");
        }
    }
}
