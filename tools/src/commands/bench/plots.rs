//! What the results look like.

use super::{
    chart::{Chart, Line, Scale},
    figures::short,
    link::Link,
    policy::Policy,
    results::{Case, Results},
    row::Row,
    trends,
    workload::Workload,
};
use crate::svg::Picture;

/// How wide a chart is.
const WIDTH: f64 = 500.0;

/// What the dots of response times are.
const QUANTILES: &str = "● median   ○ p99   ∘ p99.9";

/// What the dots of all else are.
const MEDIAN: &str = "● median of all rounds, — from the least to the most";

/// What to see first, with its title: what several links make of it, or what the bench is for.
pub(super) fn first(results: &Results) -> String {
    match trends::of_links(results) {
        Some(picture) => picture.finish("Answers per second and response time, by link and policy"),
        None => headline(results).finish("Bytes on the link and response time, by policy"),
    }
}

/// What the bench is for: bytes on the link and response time by policy, for each link. Bytes are those of the workload `rate`, as the
/// response times are, or else of the first one that was measured.
fn headline(results: &Results) -> Picture {
    let has = |workload| results.rows().iter().any(|row| row.workload == workload);
    let first = Workload::ALL.into_iter().find(|workload| has(*workload)).unwrap_or(Workload::Rate);
    let rows: Vec<[Chart; 2]> = results
        .links()
        .into_iter()
        .map(|link| [bandwidth(results, link, first), response_time(results, link)])
        .filter(|charts| !charts.iter().all(Chart::is_empty))
        .collect();
    let height = |row: &[Chart; 2]| row.iter().map(Chart::height).fold(0.0, f64::max);
    let mut picture = Picture::new(2.0 * WIDTH, rows.iter().map(height).sum());
    let mut top = 0.0;
    for row in &rows {
        for (number, chart) in row.iter().enumerate().filter(|(_, chart)| !chart.is_empty()) {
            picture.at(number as f64 * WIDTH, top, |picture| chart.draw(picture, WIDTH));
        }
        top += height(row);
    }
    picture
}

/// Every chart of a link, each as an SVG of its own.
pub(super) fn of_link(results: &Results, link: &Link) -> Vec<String> {
    let mut workloads: Vec<Workload> = results.cases(link).iter().map(|case| case.workload).collect();
    workloads.dedup();
    let mut charts = vec![response_time(results, link)];
    charts.extend(workloads.iter().map(|workload| bandwidth(results, link, *workload)));
    charts.extend(workloads.iter().map(|workload| work(results, link, *workload)));
    charts.extend(workloads.iter().map(|workload| memory(results, link, *workload)));
    charts.iter().filter(|chart| !chart.is_empty()).map(single).collect()
}

/// What other links make of it, where there were several.
pub(super) fn of_all_links(results: &Results) -> Vec<String> {
    let links = results.links();
    if links.len() < 2 {
        return Vec::new();
    }
    let over_all = |charts: &dyn Fn(&Link) -> Chart| {
        let about = "over each of the links".to_owned();
        let mut all = Chart { about, lines: Vec::new(), ..charts(links[0]) };
        for link in &links {
            let lines = charts(link).lines.into_iter();
            all.lines
                .extend(lines.map(|line| Line { name: format!("{}, {}", line.name, link.short()), ..line }));
        }
        all
    };
    let mut charts = vec![over_all(&|link| response_time(results, link))];
    charts.extend(Workload::ALL.map(|workload| over_all(&|link| work(results, link, workload))));
    charts.iter().filter(|chart| !chart.is_empty()).map(single).collect()
}

fn single(chart: &Chart) -> String {
    let mut picture = Picture::new(WIDTH, chart.height());
    chart.draw(&mut picture, WIDTH);
    picture.finish(&chart.title)
}

fn bandwidth(results: &Results, link: &Link, workload: Workload) -> Chart {
    let cases = cases(results, link, workload);
    let received = cases.first().and_then(|case| {
        results
            .spread(*case, |row| Some(row.mbits(row.guest_rx_bytes)))
            .filter(|_| workload == Workload::Rate)
    });
    let line =
        |case: &Case| line(results, *case, Row::link_mbits, |mbits| format!("{} Mbit/s", short(mbits)));
    Chart {
        title: format!("Traffic between the nodes: {}", workload.name()),
        about: link.to_string(),
        legend: MEDIAN,
        heading: "median",
        axis: "Mbit/s, both directions, all headers",
        scale: Scale::Logarithmic,
        lines: cases.iter().filter(|case| case.policy.has_secondary()).map(line).collect(),
        reference: received.map(|spread| (spread.median, "what the guest receives")),
    }
}

fn response_time(results: &Results, link: &Link) -> Chart {
    let line = |case: &Case| {
        let millis =
            |micros: fn(&Row) -> Option<f64>| results.spread(*case, micros).map(|spread| spread.median / 1e3);
        let dots = [millis(|row| row.p50_us), millis(|row| row.p99_us), millis(|row| row.p999_us)];
        let dots: Vec<f64> = dots.into_iter().flatten().collect();
        let words: Vec<String> = dots.iter().copied().map(short).collect();
        Line {
            name: case.policy.name().to_owned(),
            tone: tone(case.policy),
            dots,
            range: None,
            words: words.join(" / "),
        }
    };
    Chart {
        title: "Response time: rate".to_owned(),
        about: link.to_string(),
        legend: QUANTILES,
        heading: "p50 / p99 / p99.9",
        axis: "ms from when a request should have been sent",
        scale: Scale::Logarithmic,
        lines: cases(results, link, Workload::Rate).iter().map(line).collect(),
        reference: None,
    }
}

fn work(results: &Results, link: &Link, workload: Workload) -> Chart {
    let line = |case: &Case| line(results, *case, Row::work, short);
    Chart {
        title: format!("Throughput: {}", workload.name()),
        about: link.to_string(),
        legend: MEDIAN,
        heading: "median",
        axis: if workload == Workload::Compute { "iterations/s" } else { "answers/s" },
        scale: Scale::Linear,
        lines: cases(results, link, workload).iter().map(line).collect(),
        reference: None,
    }
}

fn memory(results: &Results, link: &Link, workload: Workload) -> Chart {
    let mebibytes = |row: &Row| Some(row.resident() as f64 / f64::from(1 << 20));
    let line = |case: &Case| line(results, *case, mebibytes, |size| format!("{} MiB", short(size)));
    Chart {
        title: format!("Memory of both nodes: {}", workload.name()),
        about: link.to_string(),
        legend: MEDIAN,
        heading: "median",
        axis: "MiB resident, the guest's memory included",
        scale: Scale::Linear,
        lines: cases(results, link, workload).iter().map(line).collect(),
        reference: None,
    }
}

fn cases<'a>(results: &'a Results, link: &'a Link, workload: Workload) -> Vec<Case<'a>> {
    results.cases(link).into_iter().filter(|case| case.workload == workload).collect()
}

/// One figure, with its spread.
fn line(
    results: &Results,
    case: Case,
    figure: impl Fn(&Row) -> Option<f64>,
    words: impl Fn(f64) -> String,
) -> Line {
    let spread = results.spread(case, figure);
    Line {
        name: case.policy.name().to_owned(),
        tone: tone(case.policy),
        dots: spread.iter().map(|spread| spread.median).collect(),
        range: spread.map(|spread| [spread.min, spread.max]),
        words: spread.map_or("–".to_owned(), |spread| words(spread.median)),
    }
}

/// A colour for each policy, the same everywhere.
pub(super) fn tone(policy: Policy) -> usize {
    match policy {
        Policy::Unprotected => 0,
        Policy::Recorded => 1,
        Policy::Replay => 2,
        Policy::Checkpoint | Policy::CheckpointZstd => 3,
        Policy::Kemari | Policy::KemariZstd => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::bench::results::tests::{LINK, row},
        svg::tests::must_be_well_formed,
    };

    #[test]
    fn every_picture_is_well_formed() {
        let mut results = Results::default();
        must_be_well_formed(&headline(&results).finish("nothing"));
        for round in 1..=2 {
            for policy in Policy::DEFAULT {
                for workload in Workload::ALL {
                    results.push(row(policy, workload, round, 1000 * u64::from(round)));
                }
            }
        }
        let picture = headline(&results).finish("all");
        must_be_well_formed(&picture);
        for part in
            ["Traffic between the nodes: rate<", ">unlimited link<", "Response time", "0.20 / 1.50 / 3.00<"]
        {
            assert!(picture.contains(part), "{part}");
        }
        let charts = of_link(&results, &LINK);
        // Of each workload bandwidth, throughput and memory; and the response time.
        assert_eq!(charts.len(), 3 * Workload::ALL.len() + 1);
        charts.iter().for_each(|chart| must_be_well_formed(chart));
        assert_eq!(of_all_links(&results).len(), 0, "there is one only");
    }

    #[test]
    fn links_are_compared() {
        let mut results = Results::default();
        let slow = Link { rate: "10mbit".parse().expect("a rate"), delay: LINK.delay };
        for policy in [Policy::Unprotected, Policy::Replay] {
            let row = row(policy, Workload::Kv, 1, 1000);
            results.push(Row { link: slow.clone(), ..row.clone() });
            results.push(row);
        }
        let charts = of_all_links(&results);
        assert_eq!(charts.len(), 1);
        let names = ["unprotected, 10mbit", "replay, 10mbit", "unprotected, unlimited", "replay, unlimited"];
        let places = names.map(|name| charts[0].find(&format!(">{name}<")).expect("a line"));
        assert!(places.is_sorted(), "{}", charts[0]);
    }
}
