//! Certificates of locality of the built-in architectures.

use onward::run::locality::{Certificate, Locality};
use onward::{Result, Run, RunBuilder};

fn builder(architecture: &str) -> RunBuilder {
    let data = onward::conformance::images().unwrap();
    Run::builder(architecture)
        .data_set(data)
        .set("hidden", vec![12, 8, 8])
}

fn certified(builder: RunBuilder) -> Result<Certificate> {
    let certificate = builder.certify()?;
    let names: Vec<&str> = certificate
        .blocks
        .iter()
        .map(|block| &*block.block)
        .collect();
    assert_eq!(names, ["1", "2", "3"]);
    Ok(certificate)
}

/// What all blocks have in one column.
fn column(certificate: &Certificate, of: impl Fn(&Locality) -> &Vec<String>) -> Vec<String> {
    certificate
        .blocks
        .iter()
        .map(|block| of(block).join(" "))
        .collect()
}

#[test]
fn stacked_layers_get_activities_from_below_and_nothing_else() -> Result<()> {
    let builder = builder("progressive").set("sampler", "label_overlay");
    let uniform = certified(builder.clone().set("sampler.negatives", "uniform"))?;
    assert!(uniform.local);
    assert_eq!(column(&uniform, |block| &block.activity), ["", "1", "1 2"]);
    assert_eq!(column(&uniform, |block| &block.views), ["", "", ""]);
    // Hard negatives come from the head, which sees the layers from the second on.
    let hard = certified(builder.set("sampler.negatives", "hard"))?;
    assert!(hard.local);
    assert_eq!(
        column(&hard, |block| &block.views),
        ["2 3 head", "3 head", "head"]
    );
    Ok(())
}

#[test]
fn neighbours_of_a_recurrent_network_are_seen_as_activities() -> Result<()> {
    let builder = builder("recurrent").set("sampler", "label_overlay");
    let certificate = certified(builder.set("sampler.negatives", "uniform"))?;
    assert!(certificate.local);
    assert_eq!(
        column(&certificate, |block| &block.activity),
        ["2 3", "1 3", "1 2"]
    );
    Ok(())
}

#[test]
fn local_classifiers_have_few_weights_within_a_block_and_backpropagation_all() -> Result<()> {
    let predsim = certified(
        builder("progressive")
            .set("goodness", "predsim")
            .set("sampler", "plain")
            .set("layer.norm", "batch")
            .set("layer.slope", 0.01),
    )?;
    assert!(predsim.local);
    assert!(predsim
        .blocks
        .iter()
        .all(|block| (block.weights, block.within) == (3, 2)));
    let whole = builder("backprop").certify()?;
    let net = &whole.blocks[0];
    // Three layers and their maps to the classes.
    assert_eq!((whole.blocks.len(), net.weights, net.within), (1, 6, 5));
    assert!(!whole.local);
    Ok(())
}

#[test]
fn the_goodness_of_other_layers_is_a_signal() -> Result<()> {
    let builder = builder("layer_collaboration").set("sampler", "label_overlay");
    let certificate = certified(builder.set("sampler.negatives", "uniform"))?;
    assert_eq!(
        column(&certificate, |block| &block.signal),
        ["2 3", "3", ""]
    );
    assert_eq!(certificate.crossed, 2);
    Ok(())
}
