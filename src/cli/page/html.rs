//! The page itself.

use base64::prelude::{Engine, BASE64_STANDARD};
use serde_json::Value as Json;

use crate::cli::certify;
use crate::cli::figures::look::{Answers, Look, Wrong};
use crate::cli::figures::{self, Figure};
use crate::error::{printable, Result};
use crate::run::locality::Certificate;

const STYLE: &str = include_str!("page.css");
/// The classes whose scores are shown of a wrong answer.
const SCORES: usize = 4;

/// A page of these runs.
pub(super) fn page(looks: &[Look]) -> Result<String> {
    let names: Vec<String> = looks.iter().map(|look| escaped(&look.name)).collect();
    let mut body = format!("<h1>{}</h1>\n", names.join(", "));
    body += &comparison(looks);
    body += &charts(figures::evaluations(looks));
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

/// Charts side by side; those with too little to draw are left out.
fn charts(figures: impl IntoIterator<Item = Figure>) -> String {
    let svgs = figures.into_iter().filter_map(|figure| figure.chart.svg());
    let figures: String = svgs
        .map(|svg| format!("<figure>{svg}</figure>\n"))
        .collect();
    format!("<div class=\"figures\">\n{figures}</div>\n")
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
        let changes = look.summary.as_ref().map(|summary| &summary["changes"]);
        let changes: Vec<&str> = changes
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        let heading = match &changes[..] {
            [] => "The command that repeats it:".to_string(),
            changes => format!(
                "Settings were changed on the way ({}), so no single command repeats it. With the \
                 last ones it is:",
                escaped(&changes.join("; "))
            ),
        };
        html += &format!(
            "<p>{heading}</p>\n<pre tabindex=\"0\">{}</pre>\n",
            escaped(&look.command)
        );
    }
    if let Some(summary) = &look.summary {
        html += &readouts(summary);
    }
    html += &charts(figures::layers(look));
    if let Some(certificate) = look.certificate() {
        html += &locality(&certificate);
    }
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
    if let Some(text) = &look.text {
        html += &format!(
            "<h3>Text</h3>\n<p>Written by this run.</p>\n<pre class=\"text\" tabindex=\"0\">{}</pre>\n",
            escaped(text)
        );
    }
    html += &format!(
        "<details><summary>Settings</summary>\n<pre tabindex=\"0\">{}</pre>\n</details>\n</section>\n",
        escaped(&look.settings)
    );
    Ok(html)
}

fn readouts(summary: &Json) -> String {
    let rows = ["readouts", "baselines"].into_iter().flat_map(|kind| {
        let of_test = summary["test"][kind].as_object().into_iter().flatten();
        of_test.map(move |(name, test)| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n",
                escaped(name),
                score(test),
                score(&summary["validation"][kind][name])
            )
        })
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

/// What the update of each block depends on.
fn locality(measured: &Certificate) -> String {
    let lines = certify::rows(measured);
    let cells = |line: &[String; 5]| {
        let rest = line[1..]
            .iter()
            .map(|cell| format!("<td>{}</td>", escaped(cell)));
        let rest: String = rest.collect();
        format!(
            "<tr><th scope=\"row\">{}</th>{rest}</tr>\n",
            escaped(&line[0])
        )
    };
    let rows: String = lines[1..].iter().map(cells).collect();
    format!(
        "<h3>Locality</h3>\n<p>What the update of each block depends on besides itself, measured \
         before the training by changing one block after the other. {}</p>\n{}",
        certify::verdict(measured),
        table(&lines[0].each_ref().map(String::as_str), &rows)
    )
}

/// Errors of classes, what is taken for what, and the worst examples.
fn of_answers(answers: &Answers) -> String {
    let count: usize = answers.confusion.iter().flatten().sum();
    let mut html = format!(
        "<h3>Predictions by {} on {count} test examples</h3>\n",
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
        html +=
            "<h3>The worst predictions</h3>\n<p>Below each, its highest scores, and that of its label \
                 in green.</p>\n<div class=\"worst\">\n";
        for wrong in &answers.worst {
            let [label, answer] =
                [wrong.label, wrong.answer].map(|class| escaped(&answers.classes[class]));
            html += &format!(
                "<figure><img alt=\"{label}, taken for {answer}\" src=\"{}\"><figcaption>{label}, not \
                 {answer}</figcaption>{}</figure>\n",
                data_url(&wrong.png),
                scores(wrong, &answers.classes)
            );
        }
        html += "</div>\n";
    }
    html
}

/// The highest scores of a wrong answer, and that of its label: a bar from the lowest of
/// all classes to the highest.
fn scores(wrong: &Wrong, classes: &[String]) -> String {
    let mut order: Vec<usize> = (0..wrong.scores.len()).collect();
    order.sort_by(|&a, &b| wrong.scores[b].total_cmp(&wrong.scores[a]));
    let value = |at: Option<&usize>| at.map_or(0., |&class| wrong.scores[class]);
    let (most, least) = (value(order.first()), value(order.last()));
    let place = order.iter().position(|&class| class == wrong.label);
    let shown = order
        .iter()
        .enumerate()
        .filter(|&(at, _)| at < SCORES || Some(at) == place);
    let lines = shown.map(|(_, &class)| {
        let (score, name) = (wrong.scores[class], escaped(&classes[class]));
        let share = (score - least) / (most - least).max(f32::MIN_POSITIVE);
        let mark = if class == wrong.label {
            " class=\"label\""
        } else {
            ""
        };
        format!("<li{mark} style=\"--share:{share:.2}\">{name} <b>{score:.3}</b></li>")
    });
    format!("<ol class=\"scores\">{}</ol>", lines.collect::<String>())
}

fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_shows_the_highest_scores_and_that_of_its_label() {
        let wrong = Wrong {
            label: 5,
            answer: 1,
            scores: vec![3., 9., 8., 7., 6., -1.],
            png: Vec::new(),
        };
        let classes = ["a", "b", "c", "d", "e", "f"].map(String::from);
        let html = scores(&wrong, &classes);
        let names = html.split("\">").skip(2).map(|part| &part[..1]);
        assert_eq!(names.collect::<String>(), "bcdef");
        assert!(html.contains("--share:1.00\">b <b>9.000"), "{html}");
        assert!(html.contains("class=\"label\" style=\"--share:0.00\">f <b>-1.000"));
    }

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
