//! Charts as SVG and PNG.

use std::io::Cursor;
use std::sync::OnceLock;

use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{register_font, RGBColor};

/// A chart.
pub(in crate::cli) enum Chart {
    Lines(Lines),
    Histograms(Histograms),
    Matrix(Matrix),
}

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

/// How often values occur in several sets.
pub(in crate::cli) struct Histograms {
    pub title: String,
    /// What the values are.
    pub of: &'static str,
    pub sets: Vec<(String, Vec<f32>)>,
}

/// Counts of rows and columns.
pub(in crate::cli) struct Matrix {
    pub title: String,
    /// What the rows and the columns are.
    pub of: [&'static str; 2],
    pub names: Vec<String>,
    pub counts: Vec<Vec<usize>>,
}

/// Colours that people with colour blindness can tell apart (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// The size in points; a PNG has [`SHARPNESS`] pixels for each.
const SIZE: (u32, u32) = (560, 300);
const SQUARE: (u32, u32) = (460, 460);
const SHARPNESS: u32 = 3;

/// The number of bars of a histogram.
const BINS: usize = 40;

/// The most classes whose names and counts fit into a matrix.
const FEW: usize = 26;

/// The font of charts: DejaVu Sans with Latin and Greek letters; its licence is beside it.
fn use_font() {
    static DONE: OnceLock<bool> = OnceLock::new();
    DONE.get_or_init(|| {
        let font = include_bytes!("font/DejaVuSans.ttf");
        register_font("sans-serif", FontStyle::Normal, font).is_ok()
    });
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Chart {
    /// The chart as SVG; nothing if there is too little to draw, or the library fails,
    /// which then leaves the chart out.
    pub fn svg(&self) -> Option<String> {
        use_font();
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, self.size()).into_drawing_area();
        self.draw(&area, 1)?.ok()?;
        drop(area);
        Some(svg)
    }

    /// The chart as PNG; nothing as for [`svg`](Self::svg).
    pub fn png(&self) -> Option<Vec<u8>> {
        use_font();
        let (width, height) = self.size();
        let (width, height) = (width * SHARPNESS, height * SHARPNESS);
        let mut pixels = vec![255; (width * height * 3) as usize];
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        self.draw(&area, SHARPNESS)?.ok()?;
        drop(area);
        let mut bytes = Cursor::new(Vec::new());
        let picture = RgbImage::from_raw(width, height, pixels)?;
        picture.write_to(&mut bytes, ImageFormat::Png).ok()?;
        Some(bytes.into_inner())
    }

    fn size(&self) -> (u32, u32) {
        match self {
            Self::Matrix(_) => SQUARE,
            _ => SIZE,
        }
    }

    /// Draws at this number of pixels for a point; `None` if there is too little.
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Option<Drawn<B>> {
        let drawn = match self {
            Self::Lines(lines) => lines.draw(area, scale)?,
            Self::Histograms(histograms) => histograms.draw(area, scale)?,
            Self::Matrix(matrix) => matrix.draw(area, scale)?,
        };
        Some(drawn.and_then(|()| area.present()))
    }
}

/// The least and the greatest of these values.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// The digits after the point of numbers up to this size.
fn digits(size: f64) -> usize {
    (1. - size.max(1e-9).log10().floor()).clamp(0., 6.) as usize
}

impl Lines {
    fn draw<B: DrawingBackend>(
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
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 15 * scale))
            .margin(8 * scale)
            .x_label_area_size(34 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(first..last, low..high)?;
        let digits = digits(low.abs().max(high.abs()));
        let of_value = |value: &f64| match self.in_percent {
            true => format!("{:.1}%", 100. * value),
            false => format!("{value:.digits$}"),
        };
        let of_count = |count: &f64| match (count - count.round()).abs() < 1e-6 {
            true => format!("{count:.0}"),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .light_line_style(WHITE.mix(0.))
            .axis_style(BLACK.stroke_width(scale))
            .bold_line_style(BLACK.mix(0.1).stroke_width(scale))
            .label_style(("sans-serif", 11 * scale))
            .axis_desc_style(("sans-serif", 12 * scale))
            .set_all_tick_mark_size(4 * scale)
            .x_labels(((last - first) as usize + 1).clamp(2, 11))
            .x_desc(self.over)
            .x_label_formatter(&of_count)
            .y_label_formatter(&of_value)
            .draw()?;
        for (line, points) in lines {
            let colour = COLOURS[line.colour % COLOURS.len()];
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
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .border_style(BLACK.mix(0.2))
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 11 * scale))
            .legend_area_size(22 * scale)
            .margin(6 * scale)
            .draw()
    }
}

impl Histograms {
    /// The range of nearly all values: one in two hundred on each side may be outside.
    fn range(&self) -> Option<(f32, f32)> {
        let all = self
            .sets
            .iter()
            .flat_map(|(_, values)| values.iter().copied());
        let mut all: Vec<f32> = all.filter(|value| value.is_finite()).collect();
        all.sort_by(f32::total_cmp);
        let outside = all.len() / 200;
        let (low, high) = (
            *all.get(outside)?,
            *all.get(all.len().checked_sub(outside + 1)?)?,
        );
        let margin = (0.02 * (high - low)).max(1e-6).max(high.abs() * 1e-6);
        Some((low - margin, high + margin))
    }

    /// The share of each set in each bin.
    fn shares(values: &[f32], (low, high): (f32, f32)) -> Vec<f64> {
        let mut counts = vec![0.; BINS];
        for value in values.iter().filter(|value| (low..=high).contains(*value)) {
            let bin = (value - low) / (high - low) * BINS as f32;
            counts[(bin as usize).min(BINS - 1)] += 1.;
        }
        let all = values.len().max(1) as f64;
        counts.into_iter().map(|count| count / all).collect()
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Option<Drawn<B>> {
        let range = self.range()?;
        let sets: Vec<(&str, Vec<f64>)> = self
            .sets
            .iter()
            .map(|(name, values)| (name.as_str(), Self::shares(values, range)))
            .collect();
        Some(self.drawn(area, scale, &sets, range))
    }

    fn drawn<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
        sets: &[(&str, Vec<f64>)],
        (low, high): (f32, f32),
    ) -> Drawn<B> {
        let (low, high) = (f64::from(low), f64::from(high));
        let most = bounds(sets.iter().flat_map(|(_, shares)| shares.iter().copied())).1;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 15 * scale))
            .margin(8 * scale)
            .x_label_area_size(34 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(low..high, 0. ..most * 1.05)?;
        let digits = digits(low.abs().max(high.abs()));
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE.mix(0.))
            .axis_style(BLACK.stroke_width(scale))
            .bold_line_style(BLACK.mix(0.1).stroke_width(scale))
            .label_style(("sans-serif", 11 * scale))
            .axis_desc_style(("sans-serif", 12 * scale))
            .set_all_tick_mark_size(4 * scale)
            .x_desc(self.of)
            .x_label_formatter(&|value| format!("{value:.digits$}"))
            .y_label_formatter(&|value| format!("{:.0}%", 100. * value))
            .draw()?;
        let width = (high - low) / BINS as f64;
        for (index, (name, shares)) in sets.iter().enumerate() {
            let style = COLOURS[index % COLOURS.len()].mix(0.55).filled();
            let bar = |(bin, share): (usize, &f64)| {
                let left = low + bin as f64 * width;
                Rectangle::new([(left, 0.), (left + width, *share)], style)
            };
            let side = 5 * scale as i32;
            let bars = shares.iter().enumerate().filter(|(_, share)| **share > 0.);
            chart
                .draw_series(bars.map(bar))?
                .label(*name)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - side), (x + 2 * side, y + side)], style)
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .border_style(BLACK.mix(0.2))
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 11 * scale))
            .legend_area_size(16 * scale)
            .margin(6 * scale)
            .draw()
    }
}

impl Matrix {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Option<Drawn<B>> {
        (!self.names.is_empty()).then(|| self.drawn(area, scale))
    }

    fn drawn<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: u32) -> Drawn<B> {
        let count = self.names.len() as i32;
        let is_small = self.names.len() <= FEW;
        let longest = self.names.iter().map(|name| name.chars().count()).max();
        let for_names = (20 + 6 * longest.unwrap_or(0).min(14)) as u32;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 15 * scale))
            .margin(8 * scale)
            .x_label_area_size(34 * scale)
            .y_label_area_size(for_names * scale)
            .build_cartesian_2d(
                (0..count - 1).into_segmented(),
                (0..count - 1).into_segmented(),
            )?;
        let name = |at: &SegmentValue<i32>, is_row: bool| match at {
            SegmentValue::CenterOf(at) if *at < count && is_small => {
                let at = if is_row { count - 1 - at } else { *at };
                self.names[at as usize].chars().take(14).collect()
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(BLACK.stroke_width(scale))
            .label_style(("sans-serif", 11 * scale))
            .axis_desc_style(("sans-serif", 12 * scale))
            .set_all_tick_mark_size(2 * scale)
            .x_labels(self.names.len())
            .y_labels(self.names.len())
            .x_desc(self.of[1])
            .y_desc(self.of[0])
            .x_label_formatter(&|at| name(at, false))
            .y_label_formatter(&|at| name(at, true))
            .draw()?;
        let wrong = |row: usize| {
            let cells = self.counts[row].iter().enumerate();
            cells
                .filter(move |(column, _)| *column != row)
                .map(|(_, n)| *n)
        };
        let most = (0..self.names.len())
            .flat_map(wrong)
            .max()
            .unwrap_or(0)
            .max(1);
        let size = (self.size_of_text(count) * f64::from(scale)) as u32;
        let text = ("sans-serif", size).into_font();
        for (row, cells) in self.counts.iter().enumerate() {
            let from_below = count - 1 - row as i32;
            for (column, &number) in cells.iter().enumerate().filter(|(_, n)| **n > 0) {
                let at = column as i32;
                let fill = match row == column {
                    true => COLOURS[2].mix(0.3),
                    false => COLOURS[1].mix(0.08 + 0.8 * number as f64 / most as f64),
                };
                let corners = [
                    (SegmentValue::Exact(at), SegmentValue::Exact(from_below)),
                    (
                        SegmentValue::Exact(at + 1),
                        SegmentValue::Exact(from_below + 1),
                    ),
                ];
                chart.draw_series([Rectangle::new(corners, fill.filled())])?;
                if is_small {
                    let style = text.color(&BLACK).pos(Pos::new(HPos::Center, VPos::Center));
                    let centre = (
                        SegmentValue::CenterOf(at),
                        SegmentValue::CenterOf(from_below),
                    );
                    chart.draw_series([Text::new(number.to_string(), centre, style)])?;
                }
            }
        }
        Ok(())
    }

    /// The size at which counts of three digits fit into a cell.
    fn size_of_text(&self, count: i32) -> f64 {
        (150. / f64::from(count)).clamp(5., 12.)
    }
}

#[cfg(test)]
mod tests {
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
    fn a_chart_has_its_lines_and_labels() {
        let chart = lines(vec![
            line("a", &[(1., 0.5), (2., 0.25), (3., f64::NAN)]),
            line("b", &[(1., 0.4), (2., 0.3)]),
        ]);
        let svg = chart.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("error") && svg.contains("epoch"));
        assert!(!svg.contains("NaN"), "{svg}");
        let png = image::load_from_memory(&chart.png().unwrap()).unwrap();
        assert_eq!((png.width(), png.height()), (3 * SIZE.0, 3 * SIZE.1));
        assert!(lines(Vec::new()).svg().is_none());
        // A constant line and a single epoch have a scale, too.
        assert!(lines(vec![line("a", &[(1., 1.), (2., 1.)])])
            .svg()
            .is_some());
    }

    #[test]
    fn nearly_all_values_are_in_the_range_of_a_histogram() {
        let mut values: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.).collect();
        values[0] = 1e9;
        values[1] = f32::NAN;
        let histograms = Histograms {
            title: "layer 1".into(),
            of: "goodness",
            sets: vec![("positive".into(), values.clone())],
        };
        let range = histograms.range().unwrap();
        assert!(range.0 > -0.1 && range.1 < 1.1, "{range:?}");
        let shares = Histograms::shares(&values, range);
        let all: f64 = shares.iter().sum();
        assert!((0.98..1.).contains(&all), "{all}");
        assert!(Chart::Histograms(histograms).png().is_some());
        let empty = Histograms {
            title: String::new(),
            of: "",
            sets: vec![("a".into(), Vec::new())],
        };
        assert!(Chart::Histograms(empty).svg().is_none());
    }

    #[test]
    fn a_matrix_shows_the_counts_that_are_not_zero() {
        let matrix = Chart::Matrix(Matrix {
            title: "answers".into(),
            of: ["label", "answer"],
            names: vec!["cat".into(), "dog".into()],
            counts: vec![vec![17, 0], vec![23, 41]],
        });
        let svg = matrix.svg().unwrap();
        for part in ["cat", "dog", ">\n17\n<", ">\n23\n<", ">\n41\n<", "answers"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }
}
