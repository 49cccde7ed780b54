//! What there is to see of runs, as charts: for a page and for files.

pub(super) mod charts;
pub(super) mod look;

use serde_json::Value as Json;

use self::charts::{Chart, Histograms, Line, Lines, Matrix};
use self::look::Look;
use super::train::for_a_name;

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

/// What was evaluated of all runs, on validation and on training examples: errors, and of
/// text the bits per character.
pub(super) fn evaluations(looks: &[Look]) -> Vec<Figure> {
    let of = |measure, name: &str, word: &str, in_percent| {
        let lines = of_readouts(looks, measure);
        let title = match lines.iter().any(|line| line.is_dashed) {
            true => format!("validation {word}, training {word} (dashed)"),
            false => format!("validation {word}"),
        };
        Figure::new(name, over_epochs(&title, lines, in_percent))
    };
    vec![
        of("bits_per_char", "bits", "bits per character", false),
        of("error", "error", "error", true),
    ]
}

/// A line of a measure for each readout of each run; where it was measured in training
/// examples, another one.
fn of_readouts(looks: &[Look], measure: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut colours = 0;
    for look in looks {
        let of_split = |split: &'static str| {
            let is_of = move |line: &&Json| line["event"] == "evaluation" && line["split"] == split;
            look.metrics.iter().filter(is_of)
        };
        for readout in readouts(of_split("validation").chain(of_split("train"))) {
            for (split, word) in [("validation", ""), ("train", "training, ")] {
                let points = of_split(split).filter_map(|line| {
                    let value = line["result"]["readouts"][&readout][measure].as_f64();
                    Some((line["epoch"].as_f64()?, value?))
                });
                let points: Vec<_> = points.collect();
                if !points.is_empty() {
                    let of_run = match looks.len() {
                        1 => String::new(),
                        _ => format!("{} ", look.name),
                    };
                    lines.push(Line {
                        label: format!("{of_run}{word}{readout}"),
                        points,
                        colour: colours,
                        is_dashed: split == "train",
                    });
                }
            }
            colours += 1;
        }
    }
    lines
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
        Figure::new(format!("goodness-{}", for_a_name(&layer.block)), chart)
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
        title: format!("predictions by {}", answers.readout),
        of: ["label", "answer"],
        names: answers.classes.clone(),
        counts: answers.confusion.clone(),
    });
    Some(Figure::new("confusion", chart))
}
