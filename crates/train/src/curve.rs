//! The course of a training as a picture (SVG): losses, a measure on the development data and the
//! learning rate over the steps. Readable on light and on dark ground.

use std::fmt::Write as _;

use crate::record::Record;

/// A line of a picture: its name and its points (step, value). Values that are not finite are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its points, by rising step.
    pub points: Vec<(u64, f64)>,
}

/// A panel of a picture: lines that share an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What the axis is called.
    pub title: String,
    /// The lines.
    pub series: Vec<Series>,
}

/// The panels of a run's records: what is called `loss` or `…_loss`, what else of the development data
/// (`dev_…`, `eval_…`), and the learning rate (`lr`). Other values are not drawn; panels without a point
/// are left out.
pub fn panels(records: &[Record]) -> Vec<Panel> {
    let is_loss = |name: &str| name == "loss" || name.ends_with("_loss");
    let is_dev = |name: &str| name.starts_with("dev_") || name.starts_with("eval_");
    type Kind<'k> = (&'static str, &'k dyn Fn(&str) -> bool);
    let kinds: [Kind<'_>; 3] = [
        ("loss", &is_loss),
        ("development data", &|name| is_dev(name) && !is_loss(name)),
        ("learning rate", &|name| name == "lr"),
    ];
    let mut panels = Vec::new();
    for (title, wanted) in kinds {
        let mut series: Vec<Series> = Vec::new();
        for record in records {
            for (name, value) in &record.values {
                let (true, Some(value)) = (wanted(name), value.as_f64()) else {
                    continue;
                };
                let point = (record.step, value);
                match series.iter_mut().find(|series| series.name == *name) {
                    Some(series) => series.points.push(point),
                    None => series.push(Series {
                        name: name.clone(),
                        points: vec![point],
                    }),
                }
            }
        }
        if !series.is_empty() {
            panels.push(Panel {
                title: title.to_owned(),
                series,
            });
        }
    }
    panels
}

const WIDTH: f64 = 760.0;
const PANEL: f64 = 190.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 20.0;
/// Room above a panel's plot, for its title and legend, and below, for the ticks.
const ABOVE: f64 = 34.0;
const BELOW: f64 = 26.0;

/// Draws panels below each other, over a common axis of steps.
///
/// The picture has no ground of its own colour: it follows the reader's scheme where that is known
/// (`prefers-color-scheme`), and is light otherwise.
pub fn draw(title: &str, panels: &[Panel]) -> String {
    let steps = panels
        .iter()
        .flat_map(|panel| &panel.series)
        .flat_map(|series| &series.points);
    let steps = range(steps.map(|&(step, _)| step as f64), false);
    let height = 40.0 + panels.len() as f64 * PANEL + 24.0;
    let mut svg = String::new();
    // Writing to a String does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"ink\" x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{0}</text>\n",
        escape(title)
    );
    for (i, panel) in panels.iter().enumerate() {
        let top = 40.0 + i as f64 * PANEL + ABOVE;
        let bottom = 40.0 + (i + 1) as f64 * PANEL - BELOW;
        draw_panel(&mut svg, panel, steps, (top, bottom));
    }
    let _ = write!(
        svg,
        "<text class=\"ink\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>\n</svg>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 10.0
    );
    svg
}

/// Colours of a palette made for colour-blind readers (Okabe and Ito), darker or lighter as the ground
/// needs.
const STYLE: &str = ".ground{fill:#fff}.ink{fill:#222}.soft{fill:#555}.grid{stroke:#ddd}\
.frame{stroke:#888;fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}\
.s0{stroke:#0072b2;color:#0072b2}.s1{stroke:#d55e00;color:#d55e00}\
.s2{stroke:#007a57;color:#007a57}.s3{stroke:#b0518a;color:#b0518a}\
@media (prefers-color-scheme:dark){.ground{fill:#16181d}.ink{fill:#e8e8e8}.soft{fill:#a8a8a8}\
.grid{stroke:#33363d}.frame{stroke:#777}.s0{stroke:#56b4e9}.s1{stroke:#e69f00}.s2{stroke:#2fc79a}\
.s3{stroke:#e08fc0}}";

fn draw_panel(svg: &mut String, panel: &Panel, steps: (f64, f64), (top, bottom): (f64, f64)) {
    let finite = |series: &Series| {
        // Differences of larger values are not finite.
        let points = series
            .points
            .iter()
            .filter(|(_, value)| value.abs() <= 1e300);
        points.copied().collect::<Vec<_>>()
    };
    let all: Vec<Vec<(u64, f64)>> = panel.series.iter().map(finite).collect();
    let values = range(all.iter().flatten().map(|&(_, value)| value), true);
    let right = WIDTH - RIGHT;
    let x = |step: f64| LEFT + (step - steps.0) / (steps.1 - steps.0) * (right - LEFT);
    let y = |value: f64| bottom - (value - values.0) / (values.1 - values.0) * (bottom - top);
    let _ = writeln!(
        svg,
        "<text class=\"ink\" x=\"{LEFT}\" y=\"{}\">{}</text>",
        top - 10.0,
        escape(&panel.title)
    );
    for tick in ticks(values, 4) {
        let y = y(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            label(tick)
        );
    }
    for tick in ticks(steps, 8) {
        let x = x(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            label(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<rect class=\"frame\" x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{}\"/>",
        right - LEFT,
        bottom - top
    );
    // The legend runs from the right to the left, above the plot.
    let mut legend = right;
    for (i, (series, points)) in panel.series.iter().zip(&all).enumerate().rev() {
        let class = i % 4;
        let mut path = String::new();
        for &(step, value) in points {
            let _ = write!(path, "{:.1},{:.1} ", x(step as f64), y(value));
        }
        if let [(step, value)] = points[..] {
            // A line of one point would not be seen.
            let _ = writeln!(
                svg,
                "<circle class=\"line s{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                x(step as f64),
                y(value)
            );
        } else if !points.is_empty() {
            let _ = writeln!(
                svg,
                "<polyline class=\"line s{class}\" points=\"{}\"/>",
                path.trim_end()
            );
        }
        let text = legend;
        // About the width of the text.
        legend -= 7.0 * series.name.chars().count() as f64 + 34.0;
        let _ = writeln!(
            svg,
            "<text class=\"ink\" x=\"{text:.1}\" y=\"{0}\" text-anchor=\"end\">{1}</text>\
             <line class=\"line s{class}\" x1=\"{2:.1}\" x2=\"{3:.1}\" y1=\"{4}\" y2=\"{4}\"/>",
            top - 10.0,
            escape(&series.name),
            legend + 4.0,
            legend + 24.0,
            top - 14.0
        );
        // Air between it and the next.
        legend -= 14.0;
    }
}

/// The least and the largest value, widened where they are equal, and on request a little in any case.
fn range(values: impl Iterator<Item = f64>, margin: bool) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(start, |(low, high), x| (low.min(x), high.max(x)));
    if low > high {
        return (0.0, 1.0);
    }
    if high - low <= f64::EPSILON * high.abs().max(low.abs()) {
        let half = if low == 0.0 { 0.5 } else { low.abs() / 2.0 };
        return (low - half, high + half);
    }
    let room = if margin { (high - low) * 0.05 } else { 0.0 };
    (low - room, high + room)
}

/// At most about `count` round numbers within a range.
fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    if !(step.is_finite() && step > 0.0) {
        return vec![low];
    }
    let first = (low / step).ceil();
    let whole = (0..=2 * count).map(|i| (first + i as f64) * step);
    whole
        .take_while(|tick| *tick <= high + step * 1e-9)
        .collect()
}

/// A number as a person writes it.
fn label(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || size < 1e-300 {
        return "0".into();
    }
    if (1e-3..1e6).contains(&size) {
        let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
        let text = format!("{value:.digits$}");
        return match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        };
    }
    let power = size.log10().floor() as i32;
    let factor = value / 10f64.powi(power);
    let text = format!("{factor:.2}");
    format!(
        "{}e{power}",
        text.trim_end_matches('0').trim_end_matches('.')
    )
}

/// A text within XML. Control characters, which XML does not have, are dropped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(u64, f64)>) -> Panel {
        Panel {
            title: "loss".into(),
            series: vec![Series {
                name: "train <a & b>".into(),
                points,
            }],
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks((0.0, 1000.0), 8),
            [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
        );
        assert_eq!(ticks((0.3, 2.2), 4), [0.5, 1.0, 1.5, 2.0]);
        assert!(ticks((-1e-5, 3e-5), 4).len() >= 3);
    }

    #[test]
    fn numbers_are_written_short() {
        for (value, text) in [
            (0.0, "0"),
            (1500.0, "1500"),
            (0.25, "0.25"),
            (-2.0, "-2"),
            (3e-5, "3e-5"),
            (2.5e7, "2.5e7"),
            (0.1 + 0.2, "0.3"),
        ] {
            assert_eq!(label(value), text);
        }
    }

    #[test]
    fn a_picture_has_every_finite_point() {
        let svg = draw("a run", &[panel(vec![(0, 2.0), (5, f64::NAN), (10, 1.0)])]);
        let line = svg
            .lines()
            .find(|line| line.starts_with("<polyline"))
            .unwrap();
        assert_eq!(line.matches(',').count(), 2, "{line}");
        assert!(svg.contains("train &lt;a &amp; b&gt;"));
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn panels_are_found_in_records() {
        let records = [
            Record::new(1)
                .with("loss", 2.0)
                .with("lr", 1e-3)
                .with("tokens", 9),
            Record::new(2)
                .with("loss", f64::NAN)
                .with("dev_loss", 1.5)
                .with("dev_f1", 0.5),
        ];
        let found: Vec<(String, Vec<String>)> = panels(&records)
            .into_iter()
            .map(|panel| {
                (
                    panel.title,
                    panel.series.into_iter().map(|s| s.name).collect(),
                )
            })
            .collect();
        let own = |title: &str, names: &[&str]| {
            (
                title.to_owned(),
                names.iter().map(|&name| name.to_owned()).collect(),
            )
        };
        assert_eq!(
            found,
            [
                own("loss", &["loss", "dev_loss"]),
                own("development data", &["dev_f1"]),
                own("learning rate", &["lr"])
            ]
        );
    }

    #[test]
    fn odd_data_is_drawn_all_the_same() {
        for points in [
            vec![],
            vec![(3, 1.0)],
            vec![(3, f64::INFINITY)],
            vec![(0, 0.0), (1, 0.0)],
            vec![(0, 1e300), (1, -1e300), (2, f64::MAX)],
            vec![(0, 5e-324), (u64::MAX, 0.0)],
        ] {
            let svg = draw("odd", &[panel(points.clone())]);
            assert!(svg.ends_with("</svg>\n"));
            assert!(
                !svg.contains("NaN") && !svg.contains("inf"),
                "{points:?}: {svg}"
            );
        }
        assert!(draw("nothing", &[]).contains("<svg"));
    }
}
