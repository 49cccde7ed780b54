//! How often values occur.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{bounds, digits, legend, Axes, Drawn, COLOURS, TICKS};

/// The number of bars.
const BINS: usize = 40;

/// How often values occur in several sets.
pub(in crate::cli) struct Histograms {
    pub title: String,
    /// What the values are.
    pub of: &'static str,
    pub sets: Vec<(String, Vec<f32>)>,
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

    pub(super) fn draw<B: DrawingBackend>(
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
        let [of_value, of_share] = [digits(low, high), digits(0., 105. * most)];
        let axes = Axes {
            title: &self.title,
            scale,
            x: [low, high],
            y: [0., most * 1.05],
            over: (self.of, TICKS),
            x_number: &|value| format!("{value:.of_value$}"),
            y_number: &|share| format!("{:.of_share$}%", 100. * share),
        };
        let mut chart = axes.draw(area)?;
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
        legend(&mut chart, scale, 16, SeriesLabelPosition::UpperRight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chart;
    use super::*;

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
}
