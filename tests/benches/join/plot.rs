//! A plot of throughput over time, as SVG.

use echovisor_tools::svg::{Anchor, Picture, tick};

/// Size of the picture and of a panel's frame, in pixels.
const WIDTH: f64 = 860.0;
const PANEL: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 48.0;

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
    let mut picture = Picture::new(WIDTH, PANEL * panels.len() as f64);
    for (n, panel) in panels.iter().enumerate() {
        picture.at(0.0, n as f64 * PANEL, |picture| panel.draw(picture));
    }
    picture.finish("Replies per second before, during and after a join")
}

impl Panel<'_> {
    fn draw(&self, picture: &mut Picture) {
        let first = self.samples.first().map_or(0.0, |sample| sample.at);
        let last = self.samples.last().map_or(1.0, |sample| sample.at);
        let most = self.samples.iter().map(|sample| sample.rate).fold(1.0, f64::max);
        let step = tick(most, 4.0);
        let top = (most / step).ceil() * step;
        let x = |at: f64| LEFT + (at - first) / (last - first) * (WIDTH - LEFT - RIGHT);
        let y = |rate: f64| PANEL - BOTTOM - rate / top * (PANEL - TOP - BOTTOM);
        let (floor, ceiling) = (y(0.0), y(top));

        picture.text(LEFT, 22.0, Anchor::Start, "bold", &self.title);
        let (from, to) = (x(self.joining), x(self.protected));
        picture.area([from, ceiling, to - from, floor - ceiling], "band");
        for n in 0..=(top / step).round() as u64 {
            let rate = n as f64 * step;
            picture.line([LEFT, y(rate), WIDTH - RIGHT, y(rate)], "grid");
            picture.text(LEFT - 8.0, y(rate) + 4.0, Anchor::End, "", &thousands(rate));
        }
        let second = tick(last - first, 8.0);
        let mut at = (first / second).ceil() * second;
        while at <= last {
            picture.line([x(at), floor, x(at), floor + 4.0], "axis");
            picture.text(x(at), floor + 18.0, Anchor::Middle, "", &format!("{at}"));
            at += second;
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        picture.text(middle, floor + 36.0, Anchor::Middle, "", "seconds since the secondary was started");
        picture.text(LEFT - 8.0, ceiling - 12.0, Anchor::End, "grey", "replies/s");

        picture.curve(self.samples.iter().map(|sample| [x(sample.at), y(sample.rate)]), "curve");

        for at in [from, to] {
            picture.line([at, ceiling - 6.0, at, floor], "axis");
        }
        picture.text(from - 6.0, ceiling - 10.0, Anchor::End, "grey", "unprotected");
        let taken = format!("joining: {:.0} ms", (self.protected - self.joining) * 1000.0);
        picture.text((from + to) / 2.0, ceiling - 26.0, Anchor::Middle, "grey", &taken);
        picture.text(to + 6.0, ceiling - 10.0, Anchor::Start, "grey", "protected");
    }
}

fn thousands(rate: f64) -> String {
    if rate >= 1000.0 { format!("{} 000", rate / 1000.0) } else { format!("{rate}") }
}
