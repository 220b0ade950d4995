//! A plot of throughput over time, as SVG.

use std::fmt::Write;

/// Size of the picture and of a panel's frame, in pixels.
const WIDTH: f64 = 860.0;
const PANEL: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 48.0;

const INK: &str = "#24292f";
const GREY: &str = "#6e7781";
const GRID: &str = "#e4e7eb";
const LINE: &str = "#0969da";
const BAND: &str = "#fff1d6";

/// Throughput at a time.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Seconds since the secondary's start.
    pub(crate) at: f64,
    /// Replies per second.
    pub(crate) rate: f64,
}

/// One join.
pub(crate) struct Panel<'a> {
    pub(crate) title: String,
    pub(crate) samples: &'a [Sample],
    /// Seconds since the secondary's start.
    pub(crate) joining: f64,
    pub(crate) protected: f64,
}

/// Draws the panels, one below the other.
pub(crate) fn draw(panels: &[Panel]) -> String {
    let height = PANEL * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"{INK}\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (n, panel) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", n as f64 * PANEL);
        panel.draw(&mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

impl Panel<'_> {
    fn draw(&self, svg: &mut String) {
        let first = self.samples.first().map_or(0.0, |sample| sample.at);
        let last = self.samples.last().map_or(1.0, |sample| sample.at);
        let most = self.samples.iter().map(|sample| sample.rate).fold(1.0, f64::max);
        let step = tick(most, 4.0);
        let top = (most / step).ceil() * step;
        let x = |at: f64| LEFT + (at - first) / (last - first) * (WIDTH - LEFT - RIGHT);
        let y = |rate: f64| PANEL - BOTTOM - rate / top * (PANEL - TOP - BOTTOM);
        let (floor, ceiling) = (y(0.0), y(top));

        text(svg, LEFT, 22.0, "start", "font-size=\"15\" font-weight=\"bold\"", &self.title);
        let (from, to) = (x(self.joining), x(self.protected));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{ceiling:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{BAND}\"/>",
            to - from,
            floor - ceiling
        );
        for n in 0..=(top / step).round() as u64 {
            let rate = n as f64 * step;
            line(svg, [LEFT, y(rate), WIDTH - RIGHT, y(rate)], GRID);
            text(svg, LEFT - 8.0, y(rate) + 4.0, "end", "", &thousands(rate));
        }
        let second = tick(last - first, 8.0);
        let mut at = (first / second).ceil() * second;
        while at <= last {
            line(svg, [x(at), floor, x(at), floor + 4.0], GREY);
            text(svg, x(at), floor + 18.0, "middle", "", &format!("{at}"));
            at += second;
        }
        text(
            svg,
            (LEFT + WIDTH - RIGHT) / 2.0,
            floor + 36.0,
            "middle",
            "",
            "seconds since the secondary was started",
        );
        text(svg, LEFT - 8.0, ceiling - 12.0, "end", &format!("fill=\"{GREY}\""), "replies/s");

        let points = self.samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample.at), y(sample.rate)));
        let points = points.collect::<Vec<String>>().join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"1.3\"/>"
        );

        for at in [from, to] {
            line(svg, [at, ceiling - 6.0, at, floor], GREY);
        }
        let grey = format!("fill=\"{GREY}\"");
        text(svg, from - 6.0, ceiling - 10.0, "end", &grey, "unprotected");
        let taken = (self.protected - self.joining) * 1000.0;
        text(svg, (from + to) / 2.0, ceiling - 26.0, "middle", &grey, &format!("joining: {taken:.0} ms"));
        text(svg, to + 6.0, ceiling - 10.0, "start", &grey, "protected");
    }
}

/// A round distance, of which about `count` make `length`.
fn tick(length: f64, count: f64) -> f64 {
    let power = 10f64.powf((length / count).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= length / count)
        .unwrap_or(power)
}

fn thousands(rate: f64) -> String {
    if rate >= 1000.0 { format!("{} 000", rate / 1000.0) } else { format!("{rate}") }
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{text}</text>");
}
