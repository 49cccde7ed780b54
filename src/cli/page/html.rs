//! The page itself.

use base64::prelude::{Engine, BASE64_STANDARD};
use serde_json::Value as Json;

use super::charts::{over_epochs, Line};
use super::look::{Answers, Look};
use crate::error::{printable, Result};

const STYLE: &str = include_str!("page.css");

/// A page of these runs.
pub(super) fn page(looks: &[Look]) -> Result<String> {
    let names: Vec<String> = looks.iter().map(|look| escaped(&look.name)).collect();
    let mut body = format!("<h1>{}</h1>\n", names.join(", "));
    body += &comparison(looks);
    body += &curves(looks);
    for look in looks {
        body += &section(look)?;
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <footer>written by onward {}</footer>\n</body>\n</html>\n",
        names.join(", "),
        env!("CARGO_PKG_VERSION")
    ))
}

/// Text in HTML: nothing in it is a mark, and control characters are shown.
fn escaped(text: &str) -> String {
    let mut html = String::new();
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\n' => html.push(c),
            c if c.is_control() => html += &printable(&c.to_string()),
            c => html.push(c),
        }
    }
    html
}

fn percent(value: Option<f64>) -> String {
    value.map_or("–".into(), |value| format!("{:.2}%", 100. * value))
}

/// The result by one readout: bits for text, else the error.
fn score(score: &Json) -> String {
    match score["bits_per_char"].as_f64() {
        Some(bits) => format!("{bits:.3} bits/char"),
        None => percent(score["error"].as_f64()),
    }
}

/// One line for each run.
fn comparison(looks: &[Look]) -> String {
    let mut rows = String::new();
    for look in looks {
        let cells = match &look.summary {
            None => "<td colspan=\"8\">no result</td>".to_string(),
            Some(summary) => {
                let readout = summary["test"]["readout"].as_str().unwrap_or_default();
                let rule = summary["rule"]["class"].as_str().unwrap_or("–");
                let number = |key: &str| summary[key].as_f64();
                let seconds = number("seconds_per_epoch").unwrap_or(f64::NAN);
                [
                    escaped(summary["data"].as_str().unwrap_or_default()),
                    escaped(rule),
                    summary["epochs"].to_string(),
                    summary["seed"].to_string(),
                    score(&summary["validation"]["readouts"][readout]),
                    format!(
                        "{} ({})",
                        score(&summary["test"]["readouts"][readout]),
                        escaped(readout)
                    ),
                    format!("{seconds:.2}"),
                    number("peak_memory_mb").map_or("–".into(), |mb| format!("{mb:.0}")),
                ]
                .map(|cell| format!("<td>{cell}</td>"))
                .concat()
            }
        };
        rows += &format!(
            "<tr><th scope=\"row\">{}</th>{cells}</tr>\n",
            escaped(&look.name)
        );
    }
    table(
        &[
            "run",
            "data",
            "rule",
            "epochs",
            "seed",
            "validation",
            "test",
            "s/epoch",
            "MB",
        ],
        &rows,
    )
}

/// A table that can be scrolled sideways on a narrow screen.
fn table(headings: &[&str], rows: &str) -> String {
    let headings: String = headings
        .iter()
        .map(|h| format!("<th scope=\"col\">{h}</th>"))
        .collect();
    format!(
        "<div class=\"wide\" tabindex=\"0\"><table>\n<thead><tr>{headings}</tr></thead>\n\
         <tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// Charts of all runs: validation by readout, losses, goodness.
fn curves(looks: &[Look]) -> String {
    let mut error = Vec::new();
    for (run, look) in looks.iter().enumerate() {
        let evaluations = look
            .metrics
            .iter()
            .filter(|line| line["event"] == "evaluation" && line["split"] == "validation");
        let mut readouts: Vec<String> = Vec::new();
        for line in evaluations.clone() {
            for name in line["result"]["readouts"]
                .as_object()
                .into_iter()
                .flat_map(|all| all.keys())
            {
                if !readouts.contains(name) {
                    readouts.push(name.clone());
                }
            }
        }
        for (place, readout) in readouts.iter().enumerate() {
            let points = evaluations.clone().filter_map(|line| {
                let value = line["result"]["readouts"][readout]["error"].as_f64();
                Some((line["epoch"].as_f64()?, value?))
            });
            error.push(Line {
                label: match looks.len() {
                    1 => readout.clone(),
                    _ => format!("{} {readout}", look.name),
                },
                points: points.collect(),
                colour: if looks.len() == 1 { place } else { run },
                is_dashed: looks.len() > 1 && place > 0,
            });
        }
    }
    let charts = over_epochs("validation error", &error, true);
    figures(charts)
}

fn figures(charts: impl IntoIterator<Item = String>) -> String {
    let figures = charts
        .into_iter()
        .map(|svg| format!("<figure>{svg}</figure>\n"));
    format!(
        "<div class=\"figures\">\n{}</div>\n",
        figures.collect::<String>()
    )
}

/// A chart of a value of every block of a run.
fn of_blocks(look: &Look, title: &str, values: &[(&str, &str)]) -> Option<String> {
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
                    label: format!("{name} {sign}"),
                    points,
                    colour,
                    is_dashed: place > 0,
                });
            }
        }
    }
    over_epochs(title, &lines, false)
}

/// All that is known of one run.
fn section(look: &Look) -> Result<String> {
    let mut html = format!("<section>\n<h2>{}</h2>\n", escaped(&look.name));
    if !look.gaps.is_empty() {
        let gaps = look
            .gaps
            .iter()
            .map(|gap| format!("<li>{}</li>\n", escaped(gap)));
        html += &format!(
            "<p>Some parts are missing:</p>\n<ul>\n{}</ul>\n",
            gaps.collect::<String>()
        );
    }
    if !look.command.is_empty() {
        html += &format!(
            "<p>The command that repeats it:</p>\n<pre tabindex=\"0\">{}</pre>\n",
            escaped(&look.command)
        );
    }
    if let Some(summary) = &look.summary {
        html += &readouts(summary);
    }
    let charts = [
        of_blocks(look, "loss of each layer", &[("loss", "")]),
        of_blocks(
            look,
            "goodness: positive, negative (dashed)",
            &[("positive", "+"), ("negative", "−")],
        ),
    ];
    html += &figures(charts.into_iter().flatten());
    html += &layers(look);
    if let Some(answers) = &look.answers {
        html += &of_answers(answers);
    }
    if let Some(sheet) = &look.sheet {
        html += &format!(
            "<h3>Examples, views, and weights of the first layer</h3>\n<p>From the top: training \
             examples, positive views, negative views with their masks, weights of units. Rows \
             that a rule does not have are left out.</p>\n<img class=\"sheet\" alt=\"examples, views and weights\" src=\"{}\">\n",
            data_url(sheet)
        );
    }
    html += &format!(
        "<details><summary>Settings</summary>\n<pre tabindex=\"0\">{}</pre>\n</details>\n</section>\n",
        escaped(&look.settings)
    );
    Ok(html)
}

fn readouts(summary: &Json) -> String {
    let of_test = summary["test"]["readouts"]
        .as_object()
        .into_iter()
        .flatten();
    let baselines = summary["test"]["baselines"]
        .as_object()
        .into_iter()
        .flatten();
    let rows = of_test.chain(baselines).map(|(name, test)| {
        let validation = &summary["validation"]["readouts"][name];
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n",
            escaped(name),
            score(test),
            score(validation)
        )
    });
    table(
        &["readout", "test", "validation"],
        &rows.collect::<String>(),
    )
}

fn layers(look: &Look) -> String {
    if look.layers.is_empty() {
        return String::new();
    }
    let rows = look.layers.iter().map(|layer| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td></tr>\n",
            escaped(&layer.name),
            percent(Some(layer.probe)),
            layer.units,
            percent(Some(layer.dead)),
            layer.rank
        )
    });
    let headings = [
        "layer",
        "test error of a probe",
        "units",
        "dead units",
        "effective rank",
    ];
    format!(
        "<h3>Layers</h3>\n{}<p>A probe is a ridge regression from the activity, learned from at most \
         10,000 training examples. A dead unit is 0 for all of 1,000 test examples. The effective rank \
         is (tr C)² / tr(C²) of the covariance C of the units.</p>\n",
        table(&headings, &rows.collect::<String>())
    )
}

/// Errors of classes, what is taken for what, and the worst examples.
fn of_answers(answers: &Answers) -> String {
    let count: usize = answers.confusion.iter().flatten().sum();
    let mut html = format!(
        "<h3>Answers by {} on {count} test examples</h3>\n",
        escaped(&answers.readout)
    );
    let most = answers.confusion.iter().enumerate();
    let most = most.flat_map(|(row, cells)| {
        cells
            .iter()
            .enumerate()
            .filter(move |(column, _)| *column != row)
            .map(|(_, n)| *n)
    });
    let most = most.max().unwrap_or(0).max(1);
    let mut rows = String::new();
    for (row, cells) in answers.confusion.iter().enumerate() {
        let total: usize = cells.iter().sum();
        let error = (total > 0).then(|| (total - cells[row]) as f64 / total as f64);
        rows += &format!(
            "<tr><th scope=\"row\">{}</th>",
            escaped(&answers.classes[row])
        );
        for (column, &n) in cells.iter().enumerate() {
            let shade = if column == row {
                0.
            } else {
                n as f64 / most as f64
            };
            let class = if column == row {
                " class=\"right\""
            } else {
                ""
            };
            rows += &format!(
                "<td{class} style=\"--shade:{shade:.2}\">{}</td>",
                if n == 0 { String::new() } else { n.to_string() }
            );
        }
        rows += &format!("<td>{}</td></tr>\n", percent(error));
    }
    let mut headings = vec!["label \\ answer".to_string()];
    headings.extend(answers.classes.iter().map(|class| escaped(class)));
    headings.push("error".into());
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    html += &table(&headings, &rows).replacen("<table>", "<table class=\"confusion\">", 1);
    if !answers.worst.is_empty() {
        html += "<h3>The worst answers</h3>\n<div class=\"worst\">\n";
        for wrong in &answers.worst {
            let [label, answer] =
                [wrong.label, wrong.answer].map(|class| escaped(&answers.classes[class]));
            html += &format!(
                "<figure><img alt=\"{label}, taken for {answer}\" src=\"{}\"><figcaption>{label}, not \
                 {answer}<br>+{:.2}</figcaption></figure>\n",
                data_url(&wrong.png),
                wrong.margin
            );
        }
        html += "</div>\n";
    }
    html
}

fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_user_is_a_mark() {
        let look = Look {
            name: "<script>\"a\"</script>\u{1b}[31m".into(),
            settings: "architecture = \"<b>\"".into(),
            ..Look::default()
        };
        let page = page(&[look]).unwrap();
        assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;") && page.contains("no result"));
    }
}
