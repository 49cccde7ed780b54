//! Watches a run with two observers.
//!
//! One observer draws the gap between positive and negative goodness in every layer. The
//! other one is a closure that counts examples. An observer cannot change the run.
//!
//! ```text
//! $ cargo run --release --example 08_watching_a_run
//! 4 epochs of 100 steps
//! epoch 1 layer 1    9.6 ####
//! epoch 1 layer 2    1.5
//! epoch 2 layer 1   22.8 ###########
//! epoch 2 layer 2    7.6 ###
//! epoch 3 layer 1   27.5 #############
//! epoch 3 layer 2   14.0 #######
//! epoch 4 layer 1   28.6 ##############
//! epoch 4 layer 2   16.7 ########
//! test error 5.9%
//! trained on 40000 examples
//! ```

use onward::flow::examples::Split;
use onward::run::observe::{Event, Observer};
use onward::{Result, Run};

/// Draws the goodness gap of every block after every epoch.
#[derive(Default)]
struct Gap {
    blocks: Vec<String>,
}

impl Observer for Gap {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                blocks,
                epochs,
                steps,
                ..
            } => {
                self.blocks = blocks.to_vec();
                println!("{epochs} epochs of {steps} steps");
            }
            Event::EpochEnded { epoch, reports, .. } => {
                for (block, report) in *reports {
                    let gap = report.positive.unwrap_or(0.) - report.negative.unwrap_or(0.);
                    let bar = "#".repeat((gap / 2.).max(0.) as usize);
                    println!(
                        "epoch {epoch} layer {} {gap:6.1} {bar}",
                        self.blocks[*block]
                    );
                }
            }
            Event::Evaluated {
                split: Split::Test,
                evaluation,
                ..
            } => {
                println!("test error {:.1}%", 100. * evaluation.error);
            }
            // `Event` has other variants, and later versions may add more.
            _ => (),
        }
    }
}

fn main() -> Result<()> {
    let mut examples = 0;
    let count = |event: &Event<'_>| {
        if let Event::Stepped { examples: seen, .. } = event {
            examples += seen;
        }
    };
    // A vector of observers is an observer.
    let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(Gap::default()), Box::new(count)];
    Run::builder("progressive")
        .set("hidden", vec![300, 300])
        .set("epochs", 4)
        .build()?
        .fit(&mut observers)?;
    drop(observers);
    println!("trained on {examples} examples");
    Ok(())
}
