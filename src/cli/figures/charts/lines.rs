//! Lines over epochs or layers.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{bounds, colour, digits, legend, Axes, Drawn, TICKS};

/// Lines over epochs or layers.
pub(in crate::cli) struct Lines {
    pub title: String,
    /// What is counted from left to right.
    pub over: &'static str,
    pub lines: Vec<Line>,
    /// Whether the values are fractions, shown in per cent and from 0 on.
    pub in_percent: bool,
}

/// A line of a chart: a value for each epoch or layer.
pub(in crate::cli) struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
    /// Lines of one number have one colour.
    pub colour: usize,
    pub is_dashed: bool,
}

impl Lines {
    pub(super) fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Option<Drawn<B>> {
        let is_finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let of = |line: &Line| -> Vec<(f64, f64)> {
            line.points.iter().copied().filter(is_finite).collect()
        };
        let lines: Vec<(&Line, Vec<(f64, f64)>)> =
            self.lines.iter().map(|line| (line, of(line))).collect();
        let points = || lines.iter().flat_map(|(_, points)| points);
        if points().count() < 2 {
            return None;
        }
        let (first, last) = bounds(points().map(|point| point.0));
        let (low, high) = bounds(points().map(|point| point.1));
        let low = if self.in_percent { 0. } else { low };
        let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
        let bottom = if self.in_percent { 0. } else { low - margin };
        Some(self.drawn(
            area,
            scale,
            &lines,
            [first, last.max(first + 1.), bottom, high + margin],
        ))
    }

    fn drawn<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
        lines: &[(&Line, Vec<(f64, f64)>)],
        [first, last, low, high]: [f64; 4],
    ) -> Drawn<B> {
        let factor = if self.in_percent { 100. } else { 1. };
        let digits = digits(factor * low, factor * high);
        let axes = Axes {
            title: &self.title,
            scale,
            x: [first, last],
            y: [low, high],
            over: (self.over, ((last - first) as usize + 1).clamp(2, TICKS)),
            x_number: &|count| match (count - count.round()).abs() < 1e-6 {
                true => format!("{count:.0}"),
                false => String::new(),
            },
            y_number: &|value| match self.in_percent {
                true => format!("{:.digits$}%", 100. * value),
                false => format!("{value:.digits$}"),
            },
        };
        let mut chart = axes.draw(area)?;
        for (line, points) in lines {
            let colour = colour(line.colour);
            let style = ShapeStyle::from(&colour).stroke_width(2 * scale);
            let series = match (line.is_dashed, points.len()) {
                (_, 0) => continue,
                (_, 1) => {
                    let dot = |point: &(f64, f64)| Circle::new(*point, 3 * scale, colour.filled());
                    chart.draw_series(points.iter().map(dot))?
                }
                (true, _) => chart.draw_series(DashedLineSeries::new(
                    points.iter().copied(),
                    5 * scale,
                    4 * scale,
                    style,
                ))?,
                (false, _) => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
            };
            // The same mark as in the chart.
            let (length, radius) = (16 * scale as i32, 3 * scale);
            let series = series.label(line.label.clone());
            match (line.is_dashed, points.len()) {
                (_, 1) => series.legend(move |(x, y)| {
                    Circle::new((x + length / 2, y), radius, colour.filled())
                }),
                (true, _) => series.legend(move |at| {
                    let dash = |from, to| PathElement::new([(from, 0), (to, 0)], style);
                    EmptyElement::at(at) + dash(0, length * 5 / 14) + dash(length * 9 / 14, length)
                }),
                (false, _) => {
                    series.legend(move |(x, y)| PathElement::new([(x, y), (x + length, y)], style))
                }
            };
        }
        let corner = free_corner(lines, [first, last], [low, high]);
        legend(&mut chart, scale, 22, corner)
    }
}

/// The points that are looked at between two points of a line.
const BETWEEN: usize = 8;

/// The corner in which the names of the lines cover least of them.
fn free_corner(
    lines: &[(&Line, Vec<(f64, f64)>)],
    [left, right]: [f64; 2],
    [bottom, top]: [f64; 2],
) -> SeriesLabelPosition {
    // About the size of the names, as shares of the chart.
    let longest = lines.iter().map(|(line, _)| line.label.chars().count());
    let width = (0.1 + 0.013 * longest.max().unwrap_or(0) as f64).min(0.5);
    let height = (0.05 + 0.065 * lines.len() as f64).min(0.9);
    let share = |x: f64, y: f64| ((x - left) / (right - left), (y - bottom) / (top - bottom));
    let mut seen: Vec<(f64, f64)> = Vec::new();
    for (_, points) in lines {
        seen.extend(points.first().map(|&(x, y)| share(x, y)));
        for pair in points.windows(2) {
            let [from, to] = [pair[0], pair[1]];
            seen.extend((1..=BETWEEN).map(|step| {
                let part = step as f64 / BETWEEN as f64;
                share(
                    from.0 + part * (to.0 - from.0),
                    from.1 + part * (to.1 - from.1),
                )
            }));
        }
    }
    let corners = [
        (SeriesLabelPosition::UpperRight, true, true),
        (SeriesLabelPosition::UpperLeft, false, true),
        (SeriesLabelPosition::LowerRight, true, false),
        (SeriesLabelPosition::LowerLeft, false, false),
    ];
    let covered = |is_right: bool, is_upper: bool| {
        let is_in = |&&(x, y): &&(f64, f64)| {
            let x = if is_right { 1. - x } else { x };
            let y = if is_upper { 1. - y } else { y };
            x < width && y < height
        };
        seen.iter().filter(is_in).count()
    };
    let best = corners
        .into_iter()
        .min_by_key(|(_, is_right, is_upper)| covered(*is_right, *is_upper));
    best.map_or(SeriesLabelPosition::UpperRight, |(corner, _, _)| corner)
}

#[cfg(test)]
mod tests {
    use super::super::Chart;
    use super::*;

    fn line(label: &str, points: &[(f64, f64)]) -> Line {
        Line {
            label: label.into(),
            points: points.to_vec(),
            colour: 0,
            is_dashed: label == "b",
        }
    }

    fn lines(lines: Vec<Line>) -> Chart {
        Chart::Lines(Lines {
            title: "error".into(),
            over: "epoch",
            lines,
            in_percent: true,
        })
    }

    #[test]
    fn the_names_are_where_no_line_is() {
        let corner = |points: &[(f64, f64)]| {
            let line = line("a long name", points);
            free_corner(&[(&line, points.to_vec())], [0., 1.], [0., 1.])
        };
        let falling = corner(&[(0., 1.), (1., 0.)]);
        assert!(matches!(falling, SeriesLabelPosition::UpperRight));
        let rising = corner(&[(0., 0.), (1., 1.)]);
        assert!(matches!(rising, SeriesLabelPosition::UpperLeft));
        let high = corner(&[(0., 1.), (1., 1.)]);
        assert!(matches!(high, SeriesLabelPosition::LowerRight));
    }

    #[test]
    fn a_chart_has_its_lines_and_labels() {
        let chart = lines(vec![
            line("a", &[(1., 0.5), (2., 0.25), (3., f64::NAN)]),
            line("b", &[(1., 0.4), (2., 0.3)]),
        ]);
        let svg = chart.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("error") && svg.contains("epoch"));
        assert!(!svg.contains("NaN"), "{svg}");
        let png = image::load_from_memory(&chart.png().unwrap()).unwrap();
        assert_eq!((png.width(), png.height()), (3 * 560, 3 * 300));
        assert!(lines(Vec::new()).svg().is_none());
        // A constant line and a single epoch have a scale, too.
        assert!(lines(vec![line("a", &[(1., 1.), (2., 1.)])])
            .svg()
            .is_some());
    }
}
