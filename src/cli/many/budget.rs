//! What every run of a table may cost.

use std::sync::atomic::AtomicBool;

use clap::Args;

use super::cell::{Cell, Price};
use crate::error::{Error, Result};

/// The same for all runs: epochs, or the time or the multiplications of training.
#[derive(Args, Clone)]
pub(super) struct Budget {
    /// Passes over the training part, the same for all runs. Each of the layers that learn one
    /// after the other gets as many; a probe has its own (`probe_epochs`).
    #[arg(long, value_name = "N", group = "budget")]
    pub epochs: Option<u32>,
    /// Minutes of training for each run, without evaluation. One epoch of each method is
    /// trained first, to find out how many there may be.
    #[arg(long, value_name = "M", group = "budget", value_parser = amount)]
    minutes: Option<f64>,
    /// Multiplications of training for each run, each with an addition, as in 1e12;
    /// counted in one epoch that is trained first.
    #[arg(long, value_name = "N", group = "budget", value_parser = amount)]
    multiply_adds: Option<f64>,
}

/// The most epochs of a run.
const MOST: f64 = 1e6;

impl Budget {
    /// Whether the number of epochs is known before anything is trained.
    fn is_known(&self) -> bool {
        self.minutes.is_none() && self.multiply_adds.is_none()
    }

    /// The run with the number of epochs that the budget allows.
    ///
    /// # Errors
    /// If one epoch fails or costs more than the budget.
    pub fn applied_to(&self, cell: &Cell, stop: &AtomicBool) -> Result<Cell> {
        match self.is_known() {
            true => Ok(cell.clone()),
            false => self.allows(cell, cell.price(stop)?),
        }
    }

    /// The same, if the number of epochs is known without training.
    ///
    /// # Errors
    /// If what was measured is another run.
    pub fn known_for(&self, cell: &Cell) -> Result<Option<Cell>> {
        if self.is_known() {
            return Ok(Some(cell.clone()));
        }
        let price = cell.known_price()?;
        Ok(price.and_then(|price| self.allows(cell, price).ok()))
    }

    fn allows(&self, cell: &Cell, price: Price) -> Result<Cell> {
        let (wanted, per_epoch) = match (self.minutes, self.multiply_adds) {
            (Some(minutes), _) => (60. * minutes, price.seconds),
            (_, Some(count)) => {
                let counted = price.multiply_adds.ok_or_else(|| {
                    let problem = "its multiplications are not counted; give --minutes instead";
                    Error::usage("--multiply-adds", problem)
                })?;
                (count, counted)
            }
            _ => return Ok(cell.clone()),
        };
        let epochs = (wanted / per_epoch).min(MOST).floor();
        if epochs < 1. {
            let (flag, costs) = match self.minutes {
                Some(_) => ("--minutes", format!("takes {per_epoch:.2} s")),
                None => (
                    "--multiply-adds",
                    format!("has {per_epoch:.2e} multiplications"),
                ),
            };
            let problem = format!("one epoch {costs}, more than the budget");
            return Err(Error::usage(flag, problem));
        }
        Ok(cell.with_epochs(epochs as u32))
    }
}

fn amount(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok();
    let number = number.filter(|number| *number > 0. && number.is_finite());
    number.ok_or_else(|| "expected a number above 0, as in 2.5 or 1e12".into())
}
