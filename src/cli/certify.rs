//! `onward certify`: measures whether the update of a block depends on the blocks above
//! it.

use clap::Args;

use super::output::{print, print_json};
use super::subject::Subject;
use crate::error::Result;
use crate::run::locality::Certificate;

#[derive(Args)]
pub(super) struct Certify {
    #[command(flatten)]
    subject: Subject,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Certify {
    pub(super) fn run(self) -> Result<()> {
        let certificate = self.subject.builder()?.certify()?;
        match self.json {
            true => print_json(&certificate),
            false => print(&in_words(&certificate)),
        }
    }
}

/// The rows of a certificate, with their headings.
pub(super) fn rows(certificate: &Certificate) -> Vec<[String; 5]> {
    let mut lines =
        vec![["block", "weights", "activity of", "signal from", "views by"].map(String::from)];
    let names = |names: &Vec<String>| match names.is_empty() {
        true => "–".to_string(),
        false => names.join(", "),
    };
    lines.extend(certificate.blocks.iter().map(|block| {
        let weights = match block.within {
            0 => block.weights.to_string(),
            within => format!("{} ({within})", block.weights),
        };
        let [activity, signal, views] = [&block.activity, &block.signal, &block.views].map(names);
        [block.block.clone(), weights, activity, signal, views]
    }));
    lines
}

/// What a certificate means.
pub(super) fn verdict(certificate: &Certificate) -> String {
    let is_one_block = certificate.blocks.len() == 1 && certificate.wide().next().is_some();
    let mut text = match certificate.crossed {
        0 if is_one_block => "The whole network is one block, and inside it a signal comes back \
                              from layer to layer."
            .into(),
        0 => "No signal comes back to a block from another one.".into(),
        1 => "A signal comes back from a neighbouring block.".into(),
        more => format!("A signal comes back across {more} blocks."),
    };
    for block in certificate.wide() {
        text += &format!(
            " In block {} a weight learns from {} others: the block is more than a layer with \
             a classifier.",
            block.block, block.within
        );
    }
    text
}

/// What the columns of the rows are.
const LEGEND: &str = "  \
  weights      their number; in brackets, on how many others the update of one depends
  activity of  blocks whose activity reaches it
  signal from  blocks above it that send a signal back: none, for a local rule
  views by     blocks whose prediction the sampler uses for its views
";

fn in_words(certificate: &Certificate) -> String {
    let lines = rows(certificate);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let mut text = String::from("What the update of each block depends on, besides itself:\n");
    for line in &lines {
        let cells = line.iter().enumerate();
        let cells = cells.map(|(column, cell)| {
            format!("{cell:<width$}", width = width(column).unwrap_or(0) + 2)
        });
        text += &format!("  {}\n", cells.collect::<String>().trim_end());
    }
    format!("{text}{}\n\n{LEGEND}", verdict(certificate))
}
