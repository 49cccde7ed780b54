//! Draws learning curves as an SVG file.
//!
//! The left panel is the validation error. The right panel is the goodness of each layer
//! for positive and negative views.
//!
//! ```text
//! $ cargo run --release --example 11_learning_curves
//! test error 1.2%, curves in target/learning-curves.svg
//! ```
//!
//! Pass another path as the argument to change the output file.

use std::fmt::Write;

use onward::data::Split;
use onward::run::observe::Event;
use onward::{Result, Run};

const COLOURS: [&str; 3] = ["#1b9e77", "#d95f02", "#7570b3"];

/// A panel of 360×220 pixels and its lines.
struct Panel {
    left: f64,
    title: &'static str,
    lines: Vec<Line>,
}

struct Line {
    colour: &'static str,
    is_dashed: bool,
    label: String,
    values: Vec<f64>,
}

impl Panel {
    fn svg(&self) -> String {
        let values = || self.lines.iter().flat_map(|line| &line.values).copied();
        let most = values().fold(0., f64::max);
        let least = values().fold(most, f64::min).min(most * 0.9);
        let y = |value: f64| 200. - 160. * (value - least) / (most - least);
        let (left, title) = (self.left, self.title);
        let mut svg = format!("<text x='{left}' y='20' font-weight='bold'>{title}</text>\n");
        for value in [least, (least + most) / 2., most] {
            let (at, digits) = (y(value), if most < 1. { 2 } else { 0 });
            let (from, to) = (left + 40., left + 300.);
            let _ = writeln!(svg, "<path d='M{from} {at:.1}H{to}' stroke='#ddd'/>");
            let _ = writeln!(
                svg,
                "<text x='{left}' y='{:.1}'>{value:.digits$}</text>",
                at + 4.
            );
        }
        for line in &self.lines {
            let across = 260. / (line.values.len().max(2) - 1) as f64;
            let points = line.values.iter().enumerate();
            let points = points.map(|(epoch, &value)| {
                format!("{:.1},{:.1}", left + 40. + across * epoch as f64, y(value))
            });
            let points: Vec<_> = points.collect();
            let dashes = if line.is_dashed { "5 4" } else { "none" };
            let (colour, label) = (line.colour, &line.label);
            let _ = writeln!(
                svg,
                "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2' \
                 stroke-dasharray='{dashes}'/>",
                points.join(" ")
            );
            let end = y(line.values.last().copied().unwrap_or(0.)) + 4.;
            let at = left + 305.;
            let _ = writeln!(
                svg,
                "<text x='{at}' y='{end:.1}' fill='{colour}'>{label}</text>"
            );
        }
        svg
    }
}

fn main() -> Result<()> {
    let mut error = Vec::new();
    let mut goodness = vec![[Vec::new(), Vec::new()]; 3];
    let mut watch = |event: &Event<'_>| match event {
        Event::EpochEnded { reports, .. } => {
            for (block, report) in *reports {
                goodness[*block][0].push(report.positive.unwrap_or(0.));
                goodness[*block][1].push(report.negative.unwrap_or(0.));
            }
        }
        Event::Evaluated {
            split: Split::Validation,
            evaluation,
            ..
        } => error.push(evaluation.error),
        _ => (),
    };
    let mut run = Run::builder("progressive").data("digits").build()?;
    let summary = run.fit(&mut watch)?;

    let mut error = vec![Line {
        colour: "#333",
        is_dashed: false,
        label: "head".into(),
        values: error,
    }];
    error[0].values.truncate(summary.epochs);
    let mut of_layers = Vec::new();
    for (index, values) in goodness.into_iter().enumerate() {
        for (values, sign) in values.into_iter().zip(["+", "−"]) {
            of_layers.push(Line {
                colour: COLOURS[index],
                is_dashed: sign == "−",
                label: format!("layer {} {sign}", index + 1),
                values,
            });
        }
    }
    let panels = [
        Panel {
            left: 10.,
            title: "validation error by epoch",
            lines: error,
        },
        Panel {
            left: 410.,
            title: "goodness of positive and negative views",
            lines: of_layers,
        },
    ];
    let style = "font-family='sans-serif' font-size='11'";
    let panels: String = panels.iter().map(Panel::svg).collect();
    let svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 800 220' {style}>\n\
         <rect width='800' height='220' fill='white'/>\n{panels}</svg>\n"
    );
    let file = std::env::args()
        .nth(1)
        .unwrap_or("target/learning-curves.svg".into());
    std::fs::write(&file, svg).expect("write the SVG file");
    println!(
        "test error {:.1}%, curves in {file}",
        100. * summary.test.error
    );
    Ok(())
}
