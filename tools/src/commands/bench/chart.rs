//! One chart: a line for each policy, its figures as dots on a common axis, and in words beside them.

use crate::svg::{Anchor, Picture, tick};

/// Space around the axis, and the height of a line, in pixels.
const LEFT_MIN: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 94.0;
const BOTTOM: f64 = 42.0;
const LINE: f64 = 30.0;

/// Between the axis and the words beside it.
const GAP: f64 = 14.0;

/// How wide a letter is, about.
pub(super) const LETTER: f64 = 7.1;

/// Dots on one axis.
pub(super) struct Chart {
    pub(super) title: String,
    /// Of what all its figures are.
    pub(super) about: String,
    /// What the dots are.
    pub(super) legend: &'static str,
    /// What the words beside the dots are.
    pub(super) heading: &'static str,
    /// What the axis counts, with its unit.
    pub(super) axis: &'static str,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
    /// A value to compare with, and what it is.
    pub(super) reference: Option<(f64, &'static str)>,
}

/// How figures are laid on the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero on.
    Linear,
    /// By powers of ten, for figures that are far apart.
    Logarithmic,
}

/// The figures of one policy.
pub(super) struct Line {
    pub(super) name: String,
    /// Its colour.
    pub(super) tone: usize,
    /// The first is a disc, the others are rings.
    pub(super) dots: Vec<f64>,
    /// From where to where the first one went in different rounds.
    pub(super) range: Option<[f64; 2]>,
    /// The figures, in words.
    pub(super) words: String,
}

/// Where values are on the axis.
pub(super) struct Axis {
    scale: Scale,
    /// In the units of the scale: values, or their logarithms.
    from: f64,
    to: f64,
    /// Where it begins and ends, in pixels. It may go upwards, too.
    left: f64,
    right: f64,
}

impl Chart {
    /// How high it is.
    pub(super) fn height(&self) -> f64 {
        TOP + self.lines.len() as f64 * LINE + BOTTOM
    }

    /// Where the axis begins: behind the names.
    fn left(&self) -> f64 {
        let longest = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        (30.0 + LETTER * longest as f64).max(LEFT_MIN)
    }

    /// Whether there is nothing to see.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.dots.is_empty())
    }

    /// Draws it, so wide.
    pub(super) fn draw(&self, picture: &mut Picture, width: f64) {
        let dots = self
            .lines
            .iter()
            .flat_map(|line| line.dots.iter().copied().chain(line.range.into_iter().flatten()));
        let values = dots.chain(self.reference.map(|(value, _)| value));
        let axis = Axis::over(self.scale, values, self.left(), width - RIGHT);
        let floor = self.height() - BOTTOM;

        picture.text(12.0, 22.0, Anchor::Start, "bold", &self.title);
        picture.text(12.0, 41.0, Anchor::Start, "grey", &self.about);
        picture.text(12.0, 60.0, Anchor::Start, "grey", self.legend);
        picture.text(axis.right + GAP, TOP - 10.0, Anchor::Start, "grey", self.heading);
        for (value, label) in axis.ticks() {
            let x = axis.at(value);
            picture.line([x, TOP - 6.0, x, floor], "grid");
            picture.text(x, floor + 16.0, Anchor::Middle, "grey", &label);
        }
        picture.line([axis.left, floor, axis.right, floor], "axis");
        picture.text((axis.left + axis.right) / 2.0, floor + 33.0, Anchor::Middle, "grey", self.axis);
        if let Some((value, name)) = self.reference {
            let x = axis.at(value);
            picture.line([x, TOP - 6.0, x, floor], "dashed");
            picture.text(x, TOP - 10.0, Anchor::Middle, "grey", name);
        }
        for (number, line) in self.lines.iter().enumerate() {
            line.draw(picture, &axis, TOP + (number as f64 + 0.5) * LINE);
        }
    }
}

impl Line {
    fn draw(&self, picture: &mut Picture, axis: &Axis, y: f64) {
        picture.text(axis.left - GAP, y + 4.0, Anchor::End, "", &self.name);
        picture.text(axis.right + GAP, y + 4.0, Anchor::Start, "", &self.words);
        let tone = self.tone;
        let ends = self.dots.iter().copied().map(|value| axis.at(value));
        let (first, last) = (ends.clone().fold(f64::MAX, f64::min), ends.fold(f64::MIN, f64::max));
        if first < last {
            picture.line([first, y, last, y], &format!("tone{tone} range"));
        }
        if let Some([least, most]) = self.range {
            picture.line([axis.at(least), y, axis.at(most), y], &format!("tone{tone} range"));
        }
        for (number, value) in self.dots.iter().enumerate().rev() {
            let ring = if number == 0 { "" } else { " ring" };
            let radius = if number == 2 { 3.5 } else { 5.5 };
            picture.disc([axis.at(*value), y], radius, &format!("tone{tone}{ring}"));
        }
    }
}

impl Axis {
    /// An axis on which all these values are.
    pub(super) fn over(scale: Scale, values: impl Iterator<Item = f64>, left: f64, right: f64) -> Axis {
        let values: Vec<f64> = values.filter(|value| *value > 0.0 && value.is_finite()).collect();
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let (from, to) = match scale {
            _ if values.is_empty() => (0.0, 1.0),
            Scale::Linear => {
                let step = tick(most, 4.0);
                (0.0, (most / step).ceil() * step)
            }
            Scale::Logarithmic => {
                let from = least.log10().floor();
                (from, most.log10().ceil().max(from + 1.0))
            }
        };
        Axis { scale, from, to, left, right }
    }

    /// Where a value is, in pixels.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
        };
        let share = (value - self.from) / (self.to - self.from);
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// Values that are worth a line, with their names.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = tick(self.to - self.from, 4.0);
                let count = ((self.to - self.from) / step).round() as u32;
                (0..=count).map(|n| f64::from(n) * step).map(|value| (value, name(value))).collect()
            }
            Scale::Logarithmic => {
                let (from, to) = (self.from.round() as i32, self.to.round() as i32);
                // Names of many decades would run into each other.
                let each = (to - from) / 7 + 1;
                let values = (from..=to).filter(|power| (power - from) % each == 0);
                values.map(|power| 10f64.powi(power)).map(|value| (value, name(value))).collect()
            }
        }
    }
}

/// A round number as it stands on an axis.
fn name(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e4 => format!("{}k", value / 1e3),
        // Thousandths are as exact as it gets, and what the division leaves behind them is not shown.
        value => format!("{}", (value * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, values: &[f64]) -> Axis {
        Axis::over(scale, values.iter().copied(), 100.0, 300.0)
    }

    #[test]
    fn values_lie_between_the_ends_of_the_axis() {
        let linear = axis(Scale::Linear, &[3.0, 97.0]);
        assert_eq!((linear.at(0.0), linear.at(50.0), linear.at(100.0)), (100.0, 200.0, 300.0));
        let names = |axis: &Axis| axis.ticks().into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names(&linear), ["0", "50", "100"]);
        let powers = axis(Scale::Logarithmic, &[0.02, 4.0, 700.0]);
        assert_eq!(names(&powers), ["0.01", "0.1", "1", "10", "100", "1000"]);
        assert!((powers.at(0.01) - 100.0).abs() < 1e-9 && (powers.at(1000.0) - 300.0).abs() < 1e-9);
        assert!((powers.at(10.0) - 220.0).abs() < 1e-9);
        assert_eq!(powers.at(0.0), 100.0, "nothing is at the left end");
        let same = axis(Scale::Logarithmic, &[10.0]);
        assert_eq!(names(&same), ["10", "100"]);
        assert_eq!(names(&axis(Scale::Logarithmic, &[])), ["1", "10"], "an empty axis is an axis");
    }

    #[test]
    fn names_of_decades_do_not_run_into_each_other() {
        let wide = axis(Scale::Logarithmic, &[1e-4, 1e8]);
        assert!(wide.ticks().len() <= 8, "{:?}", wide.ticks());
        assert_eq!(name(250_000.0), "250k");
        assert_eq!(name(2_000_000.0), "2M");
    }
}
