//! Watches a run: one observer draws how far the goodness of positive and negative
//! views is apart in every layer, another one, a closure, counts. Neither can change
//! the run.
//!
//! ```text
//! $ cargo run --release --example 08_watching_a_run
//! 4 epochs of 100 steps
//! epoch 1 layer 1    9.6 ####
//! epoch 1 layer 2    1.6
//! epoch 2 layer 1   24.2 ############
//! epoch 2 layer 2    7.5 ###
//! epoch 3 layer 1   29.0 ##############
//! epoch 3 layer 2   13.9 ######
//! epoch 4 layer 1   30.1 ###############
//! epoch 4 layer 2   16.4 ########
//! 5.3% of the test part wrong
//! 40000 examples were learned from
//! ```

use onward::flow::examples::Split;
use onward::run::observe::{Event, Observer};
use onward::{Result, Run};

/// Draws what the blocks have learned after every epoch.
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
                println!("{:.1}% of the test part wrong", 100. * evaluation.error);
            }
            // There are other events, and there may be more.
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
    // Several observers are one.
    let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(Gap::default()), Box::new(count)];
    Run::builder("progressive")
        .set("hidden", vec![300, 300])
        .set("epochs", 4)
        .build()?
        .fit(&mut observers)?;
    drop(observers);
    println!("{examples} examples were learned from");
    Ok(())
}
