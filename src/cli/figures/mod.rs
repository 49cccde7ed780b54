//! What there is to see of runs, as charts: for a page and for files.

pub(super) mod charts;
pub(super) mod look;

use serde_json::Value as Json;

use self::charts::{Chart, Histograms, Line, Lines, Matrix};
use self::look::Look;

/// A chart with the name of its file.
pub(super) struct Figure {
    pub name: String,
    pub chart: Chart,
}

impl Figure {
    fn new(name: impl Into<String>, chart: Chart) -> Self {
        let name = name.into();
        Self { name, chart }
    }
}

/// The validation errors of all runs, and the errors on training examples.
pub(super) fn errors(looks: &[Look]) -> Figure {
    let mut lines = Vec::new();
    for (run, look) in looks.iter().enumerate() {
        let mut place = 0;
        for (split, word) in [("validation", ""), ("train", "training, ")] {
            let evaluations = || {
                let of_split =
                    |line: &&Json| line["event"] == "evaluation" && line["split"] == split;
                look.metrics.iter().filter(of_split)
            };
            for readout in readouts(evaluations()) {
                let points = evaluations().filter_map(|line| {
                    let value = line["result"]["readouts"][&readout]["error"].as_f64();
                    Some((line["epoch"].as_f64()?, value?))
                });
                lines.push(Line {
                    label: match looks.len() {
                        1 => format!("{word}{readout}"),
                        _ => format!("{} {word}{readout}", look.name),
                    },
                    points: points.collect(),
                    colour: if looks.len() == 1 { place } else { run },
                    is_dashed: split == "train" || looks.len() > 1 && place > 0,
                });
                place += 1;
            }
        }
    }
    let has_training = lines.iter().any(|line| line.label.contains("training, "));
    let title = match has_training {
        true => "validation error, training error (dashed)",
        false => "validation error",
    };
    Figure::new("error", over_epochs(title, lines, true))
}

/// The names of the readouts of some evaluations.
fn readouts<'a>(evaluations: impl Iterator<Item = &'a Json>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let of = |line: &'a Json| line["result"]["readouts"].as_object();
    for name in evaluations.filter_map(of).flat_map(|all| all.keys()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn over_epochs(title: &str, lines: Vec<Line>, in_percent: bool) -> Chart {
    Chart::Lines(Lines {
        title: title.into(),
        over: "epoch",
        lines,
        in_percent,
    })
}

/// The charts of the layers of a run: losses, goodness, learning rates over epochs,
/// histograms of the goodness, and what a probe reads.
pub(super) fn layers(look: &Look) -> Vec<Figure> {
    let mut figures: Vec<Figure> = [
        ("loss", "loss of each layer", &[("loss", "")][..]),
        (
            "goodness",
            "goodness: positive, negative (dashed)",
            &[("positive", "+"), ("negative", "−")],
        ),
        ("rate", "learning rate of each layer", &[("rate", "")]),
    ]
    .into_iter()
    .map(|(name, title, values)| {
        Figure::new(name, over_epochs(title, of_blocks(look, values), false))
    })
    .collect();
    figures.extend(look.goodness.iter().map(|layer| {
        let sets = [("positive", &layer.positive), ("negative", &layer.negative)];
        let sets = sets.into_iter().filter(|(_, values)| !values.is_empty());
        let chart = Chart::Histograms(Histograms {
            title: format!("layer {}: goodness of test views", layer.block),
            of: "goodness",
            sets: sets
                .map(|(name, values)| (name.into(), values.clone()))
                .collect(),
        });
        Figure::new(format!("goodness-{}", layer.block), chart)
    }));
    let probes = look.layers.iter().enumerate();
    let probes = probes.map(|(index, layer)| ((index + 1) as f64, layer.probe));
    figures.push(Figure::new(
        "probe",
        Chart::Lines(Lines {
            title: "test error of a probe on each layer".into(),
            over: "layer",
            lines: vec![Line {
                label: "probe".into(),
                points: probes.collect(),
                colour: 0,
                is_dashed: false,
            }],
            in_percent: true,
        }),
    ));
    figures
}

/// A line for each block of a run and each of these values, which has its own sign.
fn of_blocks(look: &Look, values: &[(&str, &str)]) -> Vec<Line> {
    let epochs = || look.metrics.iter().filter(|line| line["event"] == "epoch");
    let mut names: Vec<&str> = Vec::new();
    for block in epochs().flat_map(|line| line["blocks"].as_array().into_iter().flatten()) {
        let name = block["block"].as_str().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut lines = Vec::new();
    for (colour, name) in names.iter().enumerate() {
        for (place, (key, sign)) in values.iter().enumerate() {
            let points = epochs().filter_map(|line| {
                let mut blocks = line["blocks"].as_array()?.iter();
                let block = blocks.find(|block| block["block"] == **name)?;
                Some((line["epoch"].as_f64()?, block[*key].as_f64()?))
            });
            let points: Vec<_> = points.collect();
            if !points.is_empty() {
                lines.push(Line {
                    label: format!("{name} {sign}").trim_end().into(),
                    points,
                    colour,
                    is_dashed: place > 0,
                });
            }
        }
    }
    lines
}

/// How often each class was taken for each.
pub(super) fn confusion(look: &Look) -> Option<Figure> {
    let answers = look.answers.as_ref()?;
    let chart = Chart::Matrix(Matrix {
        title: format!("answers by {}", answers.readout),
        of: ["label", "answer"],
        names: answers.classes.clone(),
        counts: answers.confusion.clone(),
    });
    Some(Figure::new("confusion", chart))
}
