//! Line charts as SVG.

use plotters::prelude::*;
use plotters::style::RGBColor;

/// A line of a chart: a value for each epoch.
pub(super) struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
    /// Lines of one number have one colour.
    pub colour: usize,
    pub is_dashed: bool,
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

const SIZE: (u32, u32) = (560, 300);

/// A chart of lines over epochs; nothing if there are fewer than two points.
pub(super) fn over_epochs(title: &str, lines: &[Line], in_percent: bool) -> Option<String> {
    let lines: Vec<Line> = lines.iter().map(finite).collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    if points().count() < 2 {
        return None;
    }
    let bounds = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let least = points().map(of).fold(f64::INFINITY, f64::min);
        let most = points().map(of).fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    };
    let (first, last) = bounds(&|point| point.0);
    let (mut low, high) = bounds(&|point| point.1);
    if in_percent {
        low = 0.;
    }
    let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    let mut svg = String::new();
    drawn(
        &mut svg,
        title,
        &lines,
        (first, last.max(first + 1.)),
        (low - if in_percent { 0. } else { margin }, high + margin),
        in_percent,
    )?;
    Some(svg)
}

fn finite(line: &Line) -> Line {
    let points = line.points.iter().copied();
    Line {
        label: line.label.clone(),
        points: points
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect(),
        ..*line
    }
}

/// Draws into `svg`; nothing if the library fails, which then leaves the chart out.
fn drawn(
    svg: &mut String,
    title: &str,
    lines: &[Line],
    (first, last): (f64, f64),
    (low, high): (f64, f64),
    in_percent: bool,
) -> Option<()> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(52)
        .build_cartesian_2d(first..last, low..high)
        .ok()?;
    let size = low.abs().max(high.abs());
    let digits = (2. - size.log10().floor()).clamp(0., 6.) as usize;
    let of_value = |value: &f64| match in_percent {
        true => format!("{:.1}%", 100. * value),
        false => format!("{value:.digits$}"),
    };
    let of_epoch = |epoch: &f64| match (epoch - epoch.round()).abs() < 1e-6 {
        true => format!("{epoch:.0}"),
        false => String::new(),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE.mix(0.))
        .x_desc("epoch")
        .x_label_formatter(&of_epoch)
        .y_label_formatter(&of_value)
        .draw()
        .ok()?;
    for line in lines.iter().filter(|line| line.points.len() > 1) {
        let colour = COLOURS[line.colour % COLOURS.len()];
        let style = ShapeStyle::from(&colour).stroke_width(2);
        let series = match line.is_dashed {
            true => chart
                .draw_series(DashedLineSeries::new(line.points.clone(), 5, 4, style))
                .ok()?,
            false => chart
                .draw_series(LineSeries::new(line.points.clone(), style))
                .ok()?,
        };
        series
            .label(line.label.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE.mix(0.8))
        .draw()
        .ok()?;
    area.present().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_lines_and_labels() {
        let line = |label: &str, points: &[(f64, f64)]| Line {
            label: label.into(),
            points: points.to_vec(),
            colour: 0,
            is_dashed: label == "b",
        };
        let lines = [
            line("a", &[(1., 0.5), (2., 0.25), (3., f64::NAN)]),
            line("b", &[(1., 0.4), (2., 0.3)]),
        ];
        let svg = over_epochs("error", &lines, true).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("error") && svg.contains("epoch"));
        assert!(!svg.contains("NaN"), "{svg}");
        assert!(over_epochs("error", &lines[..0], true).is_none());
        // A constant line and a single epoch have a scale, too.
        assert!(over_epochs("x", &[line("a", &[(1., 1.), (2., 1.)])], false).is_some());
    }
}
