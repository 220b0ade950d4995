//! The tables: one for each experiment, in Markdown that reads well as it is.

use std::fmt;

use super::{
    link::Link,
    policy::Policy,
    results::{Case, Results, Spread},
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
    let of = |link| [bandwidth, response_time, memory, throughput].map(|table| table(results, link));
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
        ]);
        row
    });
    Table {
        title: format!("Network bandwidth, {link}"),
        note: "Link: all bytes of its interface, both directions, headers and acknowledgements included. Received: frames for the \
               guest. Of replay: link bytes for each answer, or for each second where nothing is asked.",
        columns: vec![
            "workload",
            "policy",
            "link Mbit/s",
            "guest receives Mbit/s",
            "link bytes / received",
            "log bytes / received",
            "link bytes / answer",
            "of replay",
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
            spread(|row| Some(row.unanswered as f64)),
        ]
    });
    Table {
        title: format!("Response time, {link}"),
        note: "Workload `rate`: requests come at the same fixed rate under each policy, and count from when they should have been sent. \
               Those without an answer count with the time that they have waited.",
        columns: vec![
            "policy",
            "answers/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "p50 − unprotected",
            "of unprotected",
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
            spread(|row| millis(row.p50_us)),
            spread(|row| millis(row.p99_us)),
            spread(|row| row.primary_cpu_us_per_request),
            number(results.ratio(case, Policy::Unprotected, |row| row.primary_cpu_us_per_request)),
        ]);
        row
    });
    Table {
        title: format!("Throughput, {link}"),
        note: "As many requests as the clients of each workload get answered (`rate`: as many as are asked; `compute`: iterations). CPU: of \
               the primary, its guest included.",
        columns: vec![
            "workload",
            "policy",
            "per second",
            "of unprotected",
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

fn millis(micros: Option<f64>) -> Option<f64> {
    micros.map(|micros| micros / 1e3)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Row {
    /// Megabits per second.
    pub(super) fn mbits(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / 1e6 / self.seconds
    }

    /// What crosses the link, megabits per second.
    pub(super) fn link_mbits(&self) -> Option<f64> {
        Some(self.mbits(self.link_bytes))
    }

    fn link_per_received(&self) -> Option<f64> {
        self.requests.map(|_| self.link_bytes as f64 / self.guest_rx_bytes as f64)
    }

    fn payload_per_received(&self) -> Option<f64> {
        self.requests.map(|_| self.payload as f64 / self.guest_rx_bytes as f64)
    }

    fn link_per_answer(&self) -> Option<f64> {
        let answered = self.requests.map(|requests| requests - self.unanswered);
        answered.map(|answered| self.link_bytes as f64 / answered as f64)
    }

    /// Link bytes for what both policies that are compared have done alike: an answer, or a second.
    fn link_per_unit(&self) -> Option<f64> {
        self.link_per_answer().or(Some(self.link_bytes as f64 / self.seconds))
    }

    /// What the guest has done, in each second.
    pub(super) fn work(&self) -> Option<f64> {
        self.requests_per_second.or(self.iterations_per_second)
    }

    /// Bytes of memory of both nodes.
    pub(super) fn resident(&self) -> u64 {
        self.primary_rss_bytes + self.secondary_rss_bytes.unwrap_or(0)
    }
}

/// A figure with its spread, where there is one that shows.
fn shown(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return number(None);
    };
    let [least, most] = [min, max].map(|end| number(Some(end)));
    if least == most { number(Some(median)) } else { format!("{} ({least}..{most})", number(Some(median))) }
}

fn number(figure: Option<f64>) -> String {
    figure.filter(|figure| figure.is_finite()).map_or("–".to_owned(), short)
}

/// A number with three digits that count, or all that stand before the point.
pub(super) fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        size if size >= 0.0995 => format!("{figure:.2}"),
        size if size >= 0.00995 => format!("{figure:.3}"),
        _ => format!("{figure:.4}"),
    }
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
        assert_eq!(titles, ["Network bandwidth", "Response time", "Memory", "Throughput"].map(Some));
        let text = tables.iter().map(ToString::to_string).collect::<String>();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "### Response time, unlimited link Workload `rate`",
            "| unprotected | 2000 (1000..3000) | 0.20 | 1.50 | 3.00 | 0 | 1.00 | 0 |",
            "| rate | replay | 0.40 (0.20..0.60) | 1.60 (0.80..2.40) | 0.25 | 0.12 | 25.0 | 1.00 |",
            "| rate | unprotected | 64.0 | – | 1.00 |",
            "| rate | replay | 64.0 | 96.0 | 2.50 |",
            "| kv | replay | 2000 (1000..3000) | 1.00 | 0.20 | 1.50 | 10.0 | 1.00 |",
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

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (12345.6, "12346"),
            (99.96, "100"),
            (12.34, "12.3"),
            (1.0, "1.00"),
            (-0.05, "-0.050"),
        ] {
            assert_eq!(short(number), text);
        }
        assert_eq!(short(0.0012), "0.0012");
    }
}
