//! Charts as SVG and PNG.

mod histograms;
mod lines;
mod matrix;

use std::io::Cursor;
use std::sync::OnceLock;

use image::{ImageFormat, RgbImage};
use plotters::coord::types::RangedCoordf64;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{register_font, RGBColor};

pub(in crate::cli) use self::histograms::Histograms;
pub(in crate::cli) use self::lines::{Line, Lines};
pub(in crate::cli) use self::matrix::Matrix;

/// A chart.
pub(in crate::cli) enum Chart {
    Lines(Lines),
    Histograms(Histograms),
    Matrix(Matrix),
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

/// The colour of a line; after the last one they begin again, darker.
fn colour(index: usize) -> RGBColor {
    let RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
    let share = 0.6f64.powi((index / COLOURS.len()) as i32);
    let [red, green, blue] = [red, green, blue].map(|part| (f64::from(part) * share) as u8);
    RGBColor(red, green, blue)
}

/// The size in points; a PNG has [`SHARPNESS`] pixels for each.
const SIZE: (u32, u32) = (560, 300);
const SQUARE: (u32, u32) = (460, 460);
const SHARPNESS: u32 = 3;

/// The font of charts: DejaVu Sans with Latin and Greek letters; its licence is beside
/// it.
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

/// The most numbers on an axis.
const TICKS: usize = 11;

/// The digits after the point with which the numbers on an axis of this range differ.
fn digits(low: f64, high: f64) -> usize {
    let least = ((high - low) / TICKS as f64).max(1e-9);
    (-least.log10().floor()).clamp(0., 9.) as usize
}

/// Two axes of numbers, at this number of pixels for a point.
struct Axes<'a> {
    title: &'a str,
    scale: u32,
    x: [f64; 2],
    y: [f64; 2],
    /// What is counted from left to right, and the most numbers on that axis.
    over: (&'a str, usize),
    x_number: &'a dyn Fn(&f64) -> String,
    y_number: &'a dyn Fn(&f64) -> String,
}

type Plane<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Axes<'_> {
    fn draw<'b, B: DrawingBackend>(
        &self,
        area: &'b DrawingArea<B, Shift>,
    ) -> Result<Plane<'b, B>, DrawingAreaErrorKind<B::ErrorType>> {
        let scale = self.scale;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 15 * scale))
            .margin(8 * scale)
            .x_label_area_size(34 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(self.x[0]..self.x[1], self.y[0]..self.y[1])?;
        chart
            .configure_mesh()
            .light_line_style(WHITE.mix(0.))
            .axis_style(BLACK.stroke_width(scale))
            .bold_line_style(BLACK.mix(0.1).stroke_width(scale))
            .label_style(("sans-serif", 11 * scale))
            .axis_desc_style(("sans-serif", 12 * scale))
            .set_all_tick_mark_size(4 * scale)
            .x_labels(self.over.1)
            .y_labels(TICKS)
            .x_desc(self.over.0)
            .x_label_formatter(&self.x_number)
            .y_label_formatter(&self.y_number)
            .draw()?;
        Ok(chart)
    }
}

/// The names of what was drawn, in a corner.
fn legend<'a, B: DrawingBackend + 'a>(
    chart: &mut Plane<'a, B>,
    scale: u32,
    width: u32,
    corner: SeriesLabelPosition,
) -> Drawn<B> {
    chart
        .configure_series_labels()
        .position(corner)
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 11 * scale))
        .legend_area_size(width * scale)
        .margin(6 * scale)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_on_an_axis_differ() {
        for (low, high) in [
            (0.999, 1.001),
            (0., 46.),
            (0., 2.2),
            (-3e-7, 5e-7),
            (85., 118.),
        ] {
            let digits = digits(low, high);
            // No two ticks are closer than that.
            let step = (high - low) / TICKS as f64;
            let words = (0..TICKS).map(|tick| format!("{:.digits$}", low + step * tick as f64));
            let words: Vec<String> = words.collect();
            assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
        }
        assert_eq!(digits(0., 46.), 0);
        assert_eq!(digits(0., 2.2), 1);
    }

    #[test]
    fn lines_of_many_layers_differ_in_colour() {
        let colours: Vec<RGBColor> = (0..3 * COLOURS.len()).map(colour).collect();
        assert_eq!(colours[..COLOURS.len()], COLOURS);
        for (place, one) in colours.iter().enumerate() {
            assert!(!colours[..place].contains(one), "{place}");
        }
    }
}
