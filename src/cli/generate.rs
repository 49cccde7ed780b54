//! `onward generate`.

use std::path::PathBuf;

use clap::Args;

use super::flags::{open_to_predict, Device, ReadoutName};
use super::output::{print, stream};
use crate::error::{notify, Result};
use crate::run::generate::{Generator, Sampling};

#[derive(Args)]
pub(super) struct Generate {
    /// Folder of a run on text.
    run: PathBuf,
    /// Beginning of the text; may be empty.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Number of tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 200)]
    tokens: usize,
    /// Temperature: below 1 probable tokens become more probable; 0 takes the most
    /// probable token.
    #[arg(
        long,
        value_name = "T",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    temperature: f64,
    /// Sample from the K most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample from the most probable tokens that together have the probability P.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    top_p: f64,
    /// Seed of the sampling.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    readout: ReadoutName,
    #[command(flatten)]
    device: Device,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
        };
        sampling.check()?;
        let run = open_to_predict(&self.run, &self.device)?;
        let net = run.architecture().net();
        let has_probabilities = |name: &String| {
            net.readout(name)
                .is_ok_and(|readout| readout.log_probabilities)
        };
        let preferred = || Some(run.preferred_readout()).filter(has_probabilities);
        let readout = self.readout.readout.clone().or_else(preferred);
        let mut generator = Generator::new(&run, &self.prompt, readout.as_deref(), sampling)?;
        for note in generator.notes() {
            notify(format_args!("note: {note}"));
        }
        print(generator.prompt())?;
        for _ in 0..self.tokens {
            if !stream(&generator.step()?)? {
                return Ok(());
            }
        }
        print(&format!("{}\n", generator.finish()?))
    }
}
