//! What thinner and longer links make of it: a line for each policy, from link to link.

use super::{
    chart::{Axis, LETTER, Scale},
    figures::short,
    link::Link,
    plots::tone,
    policy::Policy,
    results::{Case, Results, distinct},
    row::Row,
    workload::Workload,
};
use crate::svg::{Anchor, Picture};

/// Above everything: title, remark, legend. Pixels, as all that follows.
const HEAD: f64 = 88.0;

/// Of a figure: its title, and the headings of its panels.
const TITLES: f64 = 56.0;
/// Of a panel: the plot, and the names of links below.
const HEIGHT: f64 = 190.0;
const BELOW: f64 = 52.0;

/// Left of the first panel, where the names of values are.
const LEFT: f64 = 62.0;
/// From link to link at least, and on either side of them.
const STEP: f64 = 84.0;
const SIDE: f64 = 38.0;
/// Right of each panel, where the last values are.
const WORDS: f64 = 66.0;

/// Everything is at least so wide: a title and a remark fit.
const WIDTH: f64 = 640.0;

/// Lines of text stand so far from each other.
const SPACING: f64 = 15.0;

/// The workload whose answers are shown: the first of these that was measured.
const SHOWN: [Workload; 8] = [
    Workload::Kv,
    Workload::KvWrite,
    Workload::Http,
    Workload::Receive,
    Workload::Send,
    Workload::Lone,
    Workload::Compute,
    Workload::Rate,
];

/// What is shown of all policies.
struct Figure {
    title: String,
    workload: Workload,
    value: fn(&Row) -> Option<f64>,
}

/// The values of each policy, by the number of the link in its panel.
type Lines = Vec<(Policy, Vec<(usize, f64)>)>;

/// The links, side by side.
struct Sides<'a> {
    /// The panels: what all links of each have in common, and the links.
    panels: Vec<(String, Vec<&'a Link>)>,
    /// What is different among the links of a panel.
    names: Vec<String>,
    title: &'static str,
}

/// The picture, where there are several links.
pub(super) fn of_links(results: &Results) -> Option<Picture> {
    let links = results.links();
    let figures: Vec<Figure> = figures(results);
    if links.len() < 2 || figures.is_empty() {
        return None;
    }
    let sides = Sides::of(&links);
    let policies = distinct(results.rows().iter().map(|row| row.policy));
    let legend: f64 = policies.iter().map(|policy| legend_width(*policy)).sum();
    let width = (LEFT + sides.panels.len() as f64 * (sides.width() + WORDS)).max(LEFT + legend).max(WIDTH);
    let height = TITLES + HEIGHT + BELOW;
    let mut picture = Picture::new(width, HEAD + figures.len() as f64 * height);
    picture.text(12.0, 24.0, Anchor::Start, "bold", sides.title);
    let remark = "Medians. Requests without an answer count with the time that they have waited.";
    picture.text(12.0, 44.0, Anchor::Start, "grey", remark);
    let mut x = 18.0;
    for policy in &policies {
        let tone = tone(*policy);
        picture.line([x - 6.0, 66.0, x + 12.0, 66.0], &format!("tone{tone} trend{}", dashes(*policy)));
        picture.disc([x + 3.0, 66.0], 4.0, &format!("tone{tone}"));
        picture.text(x + 18.0, 70.0, Anchor::Start, "", policy.name());
        x += legend_width(*policy);
    }
    for (number, figure) in figures.iter().enumerate() {
        picture.at(0.0, HEAD + number as f64 * height, |picture| {
            figure.draw(picture, results, &sides, &policies);
        });
    }
    Some(picture)
}

fn figures(results: &Results) -> Vec<Figure> {
    let has = |workload: Workload| results.rows().iter().any(|row| row.workload == workload);
    let mut figures = Vec::new();
    if let Some(workload) = SHOWN.into_iter().find(|workload| has(*workload)) {
        let unit = if workload == Workload::Compute { "Iterations" } else { "Answers" };
        let title = format!("{unit} per second: {}", workload.name());
        figures.push(Figure { title, workload, value: Row::work });
    }
    if has(Workload::Rate) {
        figures.push(Figure {
            title: "Median response time at a fixed rate of requests, ms: rate".to_owned(),
            workload: Workload::Rate,
            value: |row| row.p50_us.map(|micros| micros / 1e3),
        });
    }
    figures
}

impl<'a> Sides<'a> {
    /// From rate to rate, in a panel for each delay; or from delay to delay.
    fn of(links: &[&'a Link]) -> Sides<'a> {
        let rates = distinct(links.iter().map(|link| &link.rate));
        let delays = distinct(links.iter().map(|link| link.delay));
        let all = |belongs: &dyn Fn(&Link) -> bool| -> Vec<&'a Link> {
            links.iter().copied().filter(|link| belongs(link)).collect()
        };
        let time = |delay: &std::time::Duration| humantime::format_duration(*delay).to_string();
        if rates.len() < 2 {
            let panels = rates.iter().map(|rate| (rate.words(), all(&|link| link.rate == **rate))).collect();
            let names = delays.iter().map(time).collect();
            return Sides { panels, names, title: "What a longer link leaves of a guest's speed, by policy" };
        }
        let heading = |delay: &std::time::Duration| match delay.is_zero() {
            true => "no delay".to_owned(),
            false => format!("{} each way", time(delay)),
        };
        let panels = delays.iter().map(|delay| (heading(delay), all(&|link| link.delay == *delay))).collect();
        let names = rates.iter().map(|rate| rate.words()).collect();
        Sides { panels, names, title: "What a thinner link leaves of a guest's speed, by policy" }
    }

    /// From link to link: more where there are few.
    fn step(&self) -> f64 {
        let panels = self.panels.len() as f64;
        let room = (WIDTH - LEFT) / panels - WORDS - 2.0 * SIDE;
        STEP.max(room / self.steps())
    }

    fn steps(&self) -> f64 {
        (self.names.len() as f64 - 1.0).max(1.0)
    }

    /// Of a panel.
    fn width(&self) -> f64 {
        2.0 * SIDE + self.step() * self.steps()
    }
}

impl Figure {
    /// The values of a policy, by the number of the link in its panel.
    fn points(&self, results: &Results, links: &[&Link], policy: Policy) -> Vec<(usize, f64)> {
        let value = |link| {
            let spread = results.spread(Case { link, workload: self.workload, policy }, self.value)?;
            Some(spread.median).filter(|median| *median > 0.0)
        };
        links.iter().enumerate().filter_map(|(number, link)| Some((number, value(link)?))).collect()
    }

    fn draw(&self, picture: &mut Picture, results: &Results, sides: &Sides, policies: &[Policy]) {
        let lines = |links: &[&Link]| -> Lines {
            policies.iter().map(|policy| (*policy, self.points(results, links, *policy))).collect()
        };
        let panels: Vec<_> = sides.panels.iter().map(|(heading, links)| (heading, lines(links))).collect();
        let (top, floor) = (TITLES, TITLES + HEIGHT);
        let values = panels.iter().flat_map(|(_, lines)| lines).flat_map(|(_, points)| points);
        // The same for all panels, from the floor up.
        let axis = Axis::over(Scale::Logarithmic, values.map(|(_, value)| *value), floor, top);
        picture.text(12.0, 18.0, Anchor::Start, "bold", &self.title);
        for (value, name) in axis.ticks() {
            picture.text(LEFT - 8.0, axis.at(value) + 4.0, Anchor::End, "grey", &name);
        }
        for (number, (heading, lines)) in panels.iter().enumerate() {
            let left = LEFT + number as f64 * (sides.width() + WORDS);
            picture.at(left, 0.0, |picture| panel(picture, &axis, sides, (heading, lines)));
        }
    }
}

/// The lines of one panel, with the last values beside them.
fn panel(picture: &mut Picture, axis: &Axis, sides: &Sides, (heading, lines): (&str, &Lines)) {
    let (width, floor) = (sides.width(), TITLES + HEIGHT);
    picture.text(0.0, TITLES - 14.0, Anchor::Start, "grey", heading);
    for (value, _) in axis.ticks() {
        picture.line([0.0, axis.at(value), width, axis.at(value)], "grid");
    }
    let at = |number: usize| SIDE + sides.step() * number as f64;
    for (number, name) in sides.names.iter().enumerate() {
        picture.line([at(number), TITLES, at(number), floor], "grid");
        picture.text(at(number), floor + 18.0, Anchor::Middle, "grey", name);
    }
    picture.line([0.0, floor, width, floor], "axis");
    for (policy, points) in lines {
        let (tone, dashes) = (tone(*policy), dashes(*policy));
        let places = || points.iter().map(|(number, value)| [at(*number), axis.at(*value)]);
        picture.curve(places(), &format!("tone{tone} trend{dashes}"));
        places().for_each(|place| picture.disc(place, 4.0, &format!("tone{tone}")));
    }
    let ends: Vec<(Policy, f64)> = lines
        .iter()
        .filter_map(|(policy, points)| {
            points
                .last()
                .filter(|(number, _)| number + 1 == sides.names.len())
                .map(|(_, last)| (*policy, *last))
        })
        .collect();
    let places = apart(&ends.iter().map(|(_, value)| axis.at(*value)).collect::<Vec<_>>(), floor - 6.0);
    for ((policy, value), y) in ends.iter().zip(places) {
        let class = format!("tone{} word", tone(*policy));
        picture.text(width - SIDE + 12.0, y + 4.0, Anchor::Start, &class, &short(*value));
    }
}

/// Places as near as can be to these, but so far from each other that texts there can be read, and none below `floor`.
fn apart(places: &[f64], floor: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|one, other| places[*one].total_cmp(&places[*other]));
    let mut apart = places.to_vec();
    for pair in order.windows(2) {
        apart[pair[1]] = apart[pair[1]].max(apart[pair[0]] + SPACING);
    }
    let mut limit = floor;
    for number in order.into_iter().rev() {
        apart[number] = apart[number].min(limit);
        limit = apart[number] - SPACING;
    }
    apart
}

fn legend_width(policy: Policy) -> f64 {
    48.0 + LETTER * policy.name().len() as f64
}

/// Two policies that differ in their compression only have the same colour.
fn dashes(policy: Policy) -> &'static str {
    match policy {
        Policy::CheckpointZstd | Policy::KemariZstd => " dashes",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{commands::bench::results::tests::row, svg::tests::must_be_well_formed};

    fn results(rates: &[&str], delays: &[u64]) -> Results {
        let mut results = Results::default();
        for rate in rates {
            for delay in delays {
                let link = Link { rate: rate.parse().expect("a rate"), delay: Duration::from_millis(*delay) };
                for policy in Policy::DEFAULT {
                    for workload in [Workload::Rate, Workload::Kv] {
                        results.push(Row { link: link.clone(), ..row(policy, workload, 1, 20_000) });
                    }
                }
            }
        }
        results
    }

    #[test]
    fn links_are_drawn_by_rate_and_by_delay() {
        assert!(of_links(&results(&["none"], &[0])).is_none(), "one link is no trend");
        assert!(of_links(&Results::default()).is_none());
        let drawn = |rates: &[&str], delays: &[u64]| {
            let picture = of_links(&results(rates, delays)).expect("several links").finish("links");
            must_be_well_formed(&picture);
            picture
        };
        let thin = drawn(&["none", "10mbit"], &[0, 5]);
        for part in ["thinner link", ">no delay<", ">5ms each way<", ">10 Mbit/s<", ">unlimited<"] {
            assert!(thin.contains(part), "{part} is not in\n{thin}");
        }
        // Two figures with two panels each.
        assert_eq!(thin.matches("<polyline").count(), 4 * Policy::DEFAULT.len());
        let long = drawn(&["1gbit"], &[0, 1]);
        assert!(long.contains("longer link") && long.contains(">1ms<"), "{long}");
    }

    #[test]
    fn words_do_not_cover_each_other() {
        assert_eq!(apart(&[10.0, 100.0], 200.0), [10.0, 100.0]);
        assert_eq!(apart(&[12.0, 10.0, 11.0], 200.0), [40.0, 10.0, 25.0]);
        assert_eq!(apart(&[199.0, 200.0], 200.0), [185.0, 200.0]);
    }
}
