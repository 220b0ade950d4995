//! Pictures as SVG: legible on a light page and on a dark one, and without any style sheet but their own.

use std::fmt::Write;

/// Colours by class, the same for all pictures, so that several of them fit on one page.
const STYLE: &str = "\
.ev{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:13px}\
.ev text{fill:#1f2328}.ev .grey{fill:#59636e}.ev .bold{font-weight:600;font-size:15px}\
.ev .paper{fill:#ffffff}.ev .band{fill:#fff1d6}\
.ev .grid{stroke:#dfe3e8}.ev .axis{stroke:#8c959f}.ev .dashed{stroke:#8c959f;stroke-dasharray:4 3}\
.ev .curve{stroke:#0969da;stroke-width:1.3;fill:none}\
.ev .tone0{fill:#6e7781;stroke:#6e7781}.ev .tone1{fill:#1a7f37;stroke:#1a7f37}.ev .tone2{fill:#0969da;stroke:#0969da}\
.ev .tone3{fill:#bc4c00;stroke:#bc4c00}.ev .tone4{fill:#a0307f;stroke:#a0307f}\
.ev polyline.trend,.ev line.trend{fill:none;stroke-width:2}.ev .dashes{stroke-dasharray:5 4}.ev text.word{stroke:none}\
.ev .ring{fill:#ffffff;stroke-width:2}.ev .range{stroke-width:2;stroke-opacity:.55}\
@media (prefers-color-scheme:dark){\
.ev text{fill:#e6edf3}.ev .grey{fill:#9da7b3}.ev .paper{fill:#0d1117}.ev .band{fill:#3a2f14}\
.ev .grid{stroke:#262c34}.ev .axis,.ev .dashed{stroke:#6e7681}.ev .curve{stroke:#58a6ff}\
.ev .tone0{fill:#9da7b3;stroke:#9da7b3}.ev .tone1{fill:#3fb950;stroke:#3fb950}.ev .tone2{fill:#58a6ff;stroke:#58a6ff}\
.ev .tone3{fill:#f0883e;stroke:#f0883e}.ev .tone4{fill:#e27ac2;stroke:#e27ac2}\
.ev .ring{fill:#0d1117}}";

/// A picture in the making.
///
/// Everything has a class: `grey`, `bold` of texts; `grid`, `axis`, `dashed`, `curve` of lines; `paper`, `band` of areas; and `tone0` to
/// `tone4` of what must be told apart, with `trend`, and perhaps `dashes`, of a line, or `word` of a text.
#[derive(Debug)]
pub struct Picture {
    size: [f64; 2],
    body: String,
}

/// Which point of a text is where it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its first letter.
    Start,
    /// Its middle.
    Middle,
    /// Its last letter.
    End,
}

impl Picture {
    /// An empty one of this width and height, in pixels.
    #[must_use]
    pub fn new(width: f64, height: f64) -> Picture {
        Picture { size: [width, height], body: String::new() }
    }

    /// Draws what `draw` draws, moved to the right and down.
    pub fn at(&mut self, x: f64, y: f64, draw: impl FnOnce(&mut Picture)) {
        self.put(format_args!("<g transform=\"translate({x:.1} {y:.1})\">"));
        draw(self);
        self.put(format_args!("</g>"));
    }

    /// A text.
    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    /// A straight line.
    pub fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], class: &str) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A line through many points.
    pub fn curve(&mut self, points: impl Iterator<Item = [f64; 2]>, class: &str) {
        let points: Vec<String> = points.map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!("<polyline points=\"{}\" class=\"{class}\"/>", points.join(" ")));
    }

    /// An area.
    pub fn area(&mut self, [x, y, width, height]: [f64; 4], class: &str) {
        self.put(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A disc.
    pub fn disc(&mut self, [x, y]: [f64; 2], radius: f64, class: &str) {
        self.put(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" class=\"{class}\"/>"));
    }

    /// The picture as a file, or a part of a page. `title` is for those who cannot see it.
    #[must_use]
    pub fn finish(self, title: &str) -> String {
        let Picture { size: [width, height], body } = self;
        let title = escape(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" class=\"ev\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" class=\"paper\"/>\n{body}</svg>\n"
        )
    }

    fn put(&mut self, element: std::fmt::Arguments) {
        // A string takes everything.
        let _ = writeln!(self.body, "{element}");
    }
}

/// A text as it stands in XML and HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A round distance, of which about `count` make `length`.
#[must_use]
pub fn tick(length: f64, count: f64) -> f64 {
    let power = 10f64.powf((length / count).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= length / count)
        .unwrap_or(power)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_picture_is_well_formed_whatever_it_says() {
        let mut picture = Picture::new(100.0, 50.0);
        picture.at(1.0, 2.0, |picture| {
            picture.text(3.0, 4.0, Anchor::Middle, "grey", "<a> & \"b\"");
            picture.disc([1.0, 2.0], 3.0, "tone1");
        });
        picture.line([0.0, 1.0, 2.0, 3.0], "grid");
        picture.curve([[1.0, 2.0], [3.0, 4.25]].into_iter(), "curve");
        picture.area([1.0, 2.0, 3.0, 4.0], "band");
        let svg = picture.finish("1 < 2");
        must_be_well_formed(&svg);
        assert!(svg.contains(">&lt;a&gt; &amp; &quot;b&quot;</text>"), "{svg}");
        assert!(svg.contains("<title>1 &lt; 2</title>"), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        for (length, count, expected) in
            [(10.0, 5.0, 2.0), (97.0, 4.0, 50.0), (0.3, 3.0, 0.1), (7.0, 7.0, 1.0)]
        {
            assert!((tick(length, count) - expected).abs() < 1e-9, "{length} by {count}");
        }
    }

    /// Every element is closed by its own name, in order, and no text holds markup.
    pub(crate) fn must_be_well_formed(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("an open tag: {tag}"));
            assert!(tag.matches('"').count() % 2 == 0, "an open quote: {tag}");
            assert!(!text.contains('&') || text.contains(';'), "a bare ampersand: {text}");
            let name = tag.trim_matches('/').split(' ').next().unwrap_or_default();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert_eq!(open, [""; 0], "not closed");
    }
}
