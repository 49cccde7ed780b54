//! Counts of rows and columns.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Drawn, COLOURS};

/// The most classes whose names and counts fit.
const FEW: usize = 26;

/// Counts of rows and columns.
pub(in crate::cli) struct Matrix {
    pub title: String,
    /// What the rows and the columns are.
    pub of: [&'static str; 2],
    pub names: Vec<String>,
    pub counts: Vec<Vec<usize>>,
}

impl Matrix {
    pub(super) fn draw<B: DrawingBackend>(
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
    use super::super::Chart;
    use super::*;

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
