//! A stack as a graph for other programs.

use super::readout::no_hypotheses;
use super::Stack;
use crate::contract::net::Readout;
use crate::error::{Error, Result};
use crate::flow::graph::{Graph, Inputs, Node};

impl Stack {
    /// Adds the scores of one of [`Stack::readouts`] to a graph; refuses shortcuts, and
    /// parts that cannot be exported.
    pub(super) fn add_to(
        &self,
        views: Inputs,
        readout: &Readout,
        graph: &mut Graph,
    ) -> Result<Node> {
        if self.shortcuts.iter().any(|levels| !levels.is_empty()) {
            return Err(Error::unfit("stack", "cannot be exported with shortcuts"));
        }
        match (readout.name, self.net.heads.first()) {
            ("head", Some(head)) => {
                let mut features = Vec::new();
                self.levels_graph(views.neutral, graph, |_, passed, graph| {
                    features.push(graph.flat(passed));
                    Ok(())
                })?;
                let features = graph.beside(&features);
                head.graph(features, graph)
            }
            ("goodness", _) => self.goodness_graph(views.neutral, graph),
            _ => {
                let (views, classes) = views.hypotheses.ok_or_else(no_hypotheses)?;
                let goodness = self.goodness_graph(views, graph)?;
                Ok(graph.views_as_columns(goodness, classes))
            }
        }
    }

    /// The goodness, summed over the levels that are read out.
    fn goodness_graph(&self, input: Node, graph: &mut Graph) -> Result<Node> {
        let mut sum = None;
        let mut add = |(index, activity): (usize, Node), _: Node, graph: &mut Graph| {
            let goodness = self.net.blocks[index].goodness_graph(activity, graph)?;
            sum = Some(match sum {
                None => goodness,
                Some(sum) => graph.add(sum, goodness),
            });
            Ok(())
        };
        self.levels_graph(input, graph, &mut add)?;
        sum.ok_or_else(|| Error::usage("stack", "no level is read out"))
    }

    /// Adds the levels, and calls `f` for those that are read out with the index, the
    /// activity and what is passed on.
    fn levels_graph(
        &self,
        input: Node,
        graph: &mut Graph,
        mut f: impl FnMut((usize, Node), Node, &mut Graph) -> Result<()>,
    ) -> Result<()> {
        let mut input = graph.normalised(input, self.normalise)?;
        for (index, block) in self.net.blocks[..self.readout.end].iter().enumerate() {
            let activity = block.graph(input, graph)?;
            input = block.pass_on_graph(activity, graph)?;
            if self.readout.contains(&index) {
                f((index, activity), input, graph)?;
            }
        }
        Ok(())
    }
}
