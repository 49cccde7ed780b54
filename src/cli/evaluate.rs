//! `onward evaluate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::flags::{DataDir, Device};
use super::outcome;
use super::output::{print, print_json};
use crate::data::score::Score;
use crate::data::{Content, Split};
use crate::error::{nearest, notify, shell_word, Error, Result};
use crate::run::folder::to_go_on;
use crate::run::Run;

#[derive(Args)]
pub(super) struct Evaluate {
    /// Folder of a run.
    run: PathBuf,
    /// Another data set of the same shape.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Part of the data: train, validation, test, or all of it.
    #[arg(long, default_value = "test", value_name = "PART")]
    split: String,
    /// Evaluate a probe on each layer instead of the readouts: ridge regression from its
    /// activity, learned from at most 10,000 training examples.
    #[arg(long)]
    layers: bool,
    /// Print JSON, with all digits.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: Device,
}

fn layers_as_json(scores: &[(String, Score)]) -> Vec<serde_json::Value> {
    let layer = |(layer, score): &(String, Score)| json!({ "layer": layer, "score": score });
    scores.iter().map(layer).collect()
}

impl Evaluate {
    pub(super) fn run(self) -> Result<()> {
        let split = self.split()?;
        if split.is_none() && self.layers {
            let expected = "train, validation or test for the probes of `--layers`";
            return Err(Error::setting("split", &self.split, "--split", expected));
        }
        let mut builder = Run::open(&self.run)?.device(&self.device.device);
        if let Some(data) = &self.data {
            builder = builder.data(data);
        }
        let run = self.data_dir.add_to(builder)?.build()?;
        if run.is_unfinished() {
            notify(format_args!(
                "note: the run is not finished: {} of {} epochs are complete; {}",
                run.epoch(),
                run.epochs(),
                to_go_on(&self.run)
            ));
        }
        let readout = run.preferred_readout();
        if run.has_own_data() && matches!(split, None | Some(Split::Train)) {
            notify(
                "note: the network was trained on the training part; only the test part shows \
                    what it does with new examples",
            );
        }
        let (part, evaluation) = match split {
            None => ("all", run.evaluate_all(Some(&readout))?),
            Some(split) if self.layers => {
                self.say_what_is_left_out(&run, split);
                let scores = run.probe_layers(split)?;
                return match self.json {
                    true => print_json(&layers_as_json(&scores)),
                    false => print(&outcome::of_layers(split.word(), &scores)),
                };
            }
            Some(split) => {
                self.say_what_is_left_out(&run, split);
                (split.word(), run.evaluate(split, Some(&readout))?)
            }
        };
        if self.json {
            return print_json(&evaluation);
        }
        print(&outcome::of_evaluation(part, &evaluation))
    }

    /// Other data are divided as for a training.
    fn say_what_is_left_out(&self, run: &Run, split: Split) {
        if self.data.is_none() {
            return;
        }
        let part = split.word();
        if run.data().spec.content == Content::Text {
            notify(format_args!(
                "note: only the {part} part of that text; for all of it: onward score {} FILE",
                shell_word(&self.run.display().to_string())
            ));
            return;
        }
        let count = |split| run.data().split(split).len();
        let all: usize = [Split::Train, Split::Validation, Split::Test]
            .map(count)
            .iter()
            .sum();
        let [here, train] = [split, Split::Train].map(count);
        match self.layers {
            true => notify(format_args!(
                "note: the probes learn from the training part of that data, {train} of {all}, \
                 and are evaluated on the {part} part, {here}"
            )),
            false => notify(format_args!(
                "note: only the {part} part of that data, {here} of {all}; for all of it: \
                 --split all"
            )),
        }
    }

    /// The part; `None` for all of them.
    fn split(&self) -> Result<Option<Split>> {
        let all = [Split::Train, Split::Validation, Split::Test];
        let given = match self.split.as_str() {
            "val" | "valid" => "validation",
            "training" => "train",
            "all" => return Ok(None),
            given => given,
        };
        let found = all.into_iter().find(|split| split.word() == given);
        let found = found.ok_or_else(|| {
            let words = ["train", "validation", "test", "all"].map(String::from);
            let meant = nearest(&self.split, &words);
            let expected = format!("train, validation, test or all{meant}");
            Error::setting("split", &self.split, "--split", expected)
        })?;
        Ok(Some(found))
    }
}
