//! A live view of a training in the terminal: curves of the losses and of the validation
//! errors, and the last epoch of each block.

use std::io::{IsTerminal, Stderr};
use std::time::{Duration, Instant};

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{
    Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Table, Widget,
};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use super::progress::Display;
use crate::contract::block::StepReport;
use crate::error::notify;
use crate::run::observe::{Event, Observer};

/// The lines of the view. It is part of the terminal's text: what was printed before
/// stays above it, and its last state stays at the end.
const HEIGHT: u16 = 22;

/// The time between two drawings within an epoch.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows a training on stderr.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    view: View,
    drawn: Instant,
}

impl Screen {
    /// A view, or why there can be none.
    pub fn open() -> Result<Self, String> {
        if !std::io::stderr().is_terminal() {
            return Err("stderr is no terminal".into());
        }
        let options = TerminalOptions {
            viewport: Viewport::Inline(HEIGHT),
        };
        let terminal = Terminal::with_options(CrosstermBackend::new(std::io::stderr()), options);
        Ok(Self {
            terminal: terminal.map_err(|error| error.to_string())?,
            view: View::default(),
            drawn: Instant::now(),
        })
    }

    fn draw(&mut self) {
        self.drawn = Instant::now();
        // A terminal that is gone does not end the training.
        let _ = self.terminal.draw(|frame| self.view.draw(frame));
    }
}

impl Display for Screen {
    fn say(&mut self, text: String) {
        let lines: Vec<Line<'_>> = text
            .lines()
            .map(|line| Line::from(line.to_string()))
            .collect();
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let said = self.terminal.insert_before(height, |buffer| {
            Paragraph::new(lines).render(buffer.area, buffer);
        });
        if said.is_err() {
            notify(text);
        }
    }
}

impl Observer for Screen {
    fn on(&mut self, event: &Event<'_>) {
        let is_step = matches!(event, Event::Stepped { .. });
        self.view.on(event);
        if !is_step || self.drawn.elapsed() > PAUSE {
            self.draw();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.draw();
        // What is printed next goes below the view.
        let below = self.terminal.get_frame().area().bottom().saturating_sub(1);
        let _ = self.terminal.set_cursor_position((0, below));
        let _ = self.terminal.backend_mut().append_lines(1);
        let _ = self.terminal.show_cursor();
    }
}

/// A line of a chart.
#[derive(Default)]
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// What is shown.
#[derive(Default)]
struct View {
    title: String,
    blocks: Vec<String>,
    epochs: usize,
    steps: usize,
    /// Complete steps, counted from the first epoch.
    done: usize,
    started: Option<(Instant, usize)>,
    last: Vec<(usize, StepReport<f64>)>,
    losses: Vec<Curve>,
    errors: Vec<Curve>,
}

fn add(curves: &mut Vec<Curve>, name: &str, point: (f64, f64)) {
    let found = curves.iter_mut().position(|curve| curve.name == name);
    let index = found.unwrap_or_else(|| {
        curves.push(Curve {
            name: name.into(),
            points: Vec::new(),
        });
        curves.len() - 1
    });
    if point.1.is_finite() {
        curves[index].points.push(point);
    }
}

impl Observer for View {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                config,
                blocks,
                epoch,
                epochs,
                steps,
                ..
            } => {
                let data = config.run.data.as_ref();
                let data = data.map_or("data", |data| data.name.as_str());
                self.title = format!("{} on {data}", config.architecture);
                (self.blocks, self.epochs, self.steps) = (blocks.to_vec(), *epochs, *steps);
                self.done = epoch * steps;
                self.started = Some((Instant::now(), self.done));
            }
            Event::Stepped { .. } => self.done += 1,
            Event::EpochEnded { epoch, reports, .. } => {
                self.done = epoch * self.steps;
                self.last = reports.to_vec();
                for (block, report) in *reports {
                    let name = self.blocks.get(*block).map_or("?", String::as_str);
                    if let Some(loss) = report.loss {
                        add(&mut self.losses, name, (*epoch as f64, loss));
                    }
                }
            }
            Event::Evaluated {
                epoch,
                split,
                evaluation,
            } => {
                for (readout, score) in &evaluation.readouts {
                    let name = format!("{} {readout}", split.word());
                    let point = (*epoch as f64, 100. * score.error);
                    add(&mut self.errors, &name, point);
                }
            }
            _ => {}
        }
    }
}

const COLOURS: [Color; 6] = [
    Color::Blue,
    Color::Yellow,
    Color::Green,
    Color::Magenta,
    Color::Cyan,
    Color::Red,
];

impl View {
    fn draw(&self, frame: &mut Frame<'_>) {
        let rows = u16::try_from(self.last.len().min(4)).unwrap_or(4) + 1;
        let parts = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(8),
            Constraint::Length(rows),
        ]);
        let [top, middle, bottom] = parts.areas(frame.area());
        self.progress(frame, top);
        let halves = Layout::horizontal([Constraint::Percentage(50); 2]);
        let [left, right] = halves.areas(middle);
        self.curves(frame, left, "loss", &self.losses);
        self.curves(frame, right, "error in %", &self.errors);
        self.table(frame, bottom);
    }

    fn progress(&self, frame: &mut Frame<'_>, area: Rect) {
        let all = self.epochs * self.steps;
        let ratio = self.done as f64 / all.max(1) as f64;
        let epoch = (self.done / self.steps.max(1) + 1).min(self.epochs.max(1));
        let left = self.started.and_then(|(since, first)| {
            let done = self.done.checked_sub(first).filter(|done| *done > 0)?;
            let each = since.elapsed().as_secs_f64() / done as f64;
            Some(each * (all.saturating_sub(self.done)) as f64)
        });
        let left = left.map_or(String::new(), |seconds| {
            format!(", {} left", super::outcome::duration(seconds))
        });
        let label = format!("{}: epoch {epoch}/{}{left}", self.title, self.epochs);
        let gauge = Gauge::default().ratio(ratio.clamp(0., 1.)).label(label);
        frame.render_widget(gauge.gauge_style(Style::new().blue()), area);
    }

    fn curves(&self, frame: &mut Frame<'_>, area: Rect, title: &str, curves: &[Curve]) {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let values = points().map(|point| point.1);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let block = Block::bordered().title(title.to_string());
        if !low.is_finite() {
            frame.render_widget(Paragraph::new("after the first epoch").block(block), area);
            return;
        }
        let margin = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
        let (low, high) = ((low - margin).max(0f64.min(low)), high + margin);
        let curve = |(index, curve)| -> Dataset<'_> {
            let (index, curve): (usize, &Curve) = (index, curve);
            let marker = match curve.points.len() {
                1 => Marker::Dot,
                _ => Marker::Braille,
            };
            Dataset::default()
                .name(curve.name.as_str())
                .marker(marker)
                .graph_type(GraphType::Line)
                .style(COLOURS[index % COLOURS.len()])
                .data(&curve.points)
        };
        let last = self.epochs.max(2) as f64;
        let chart = Chart::new(curves.iter().enumerate().map(curve).collect())
            .block(block)
            .hidden_legend_constraints((Constraint::Ratio(2, 3), Constraint::Ratio(1, 2)))
            .x_axis(
                Axis::default()
                    .bounds([1., last])
                    .labels(["1".into(), format!("{last}")]),
            )
            .y_axis(
                Axis::default()
                    .bounds([low, high])
                    .labels([short(low), short(high)]),
            );
        frame.render_widget(chart, area);
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect) {
        let number = |value: Option<f64>| value.map_or("–".into(), short);
        let row = |(block, report): &(usize, StepReport<f64>)| {
            let name = self.blocks.get(*block).cloned().unwrap_or_default();
            Row::new([
                name,
                number(report.loss),
                number(report.positive),
                number(report.negative),
            ])
        };
        // The last ones, if there is no room for all.
        let hidden = self.last.len().saturating_sub(4);
        let table = Table::new(
            self.last[hidden..].iter().map(row),
            [Constraint::Fill(1); 4],
        );
        let heading = Row::new(["block", "loss", "goodness +", "goodness −"]).bold();
        frame.render_widget(table.header(heading), area);
    }
}

fn short(value: f64) -> String {
    super::progress::short(value)
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::data::score::Score;
    use crate::flow::examples::Split;
    use crate::run::summary::Evaluation;

    #[test]
    fn the_view_has_curves_and_the_last_epoch() {
        let mut view = View {
            title: "progressive on digits".into(),
            blocks: vec!["1".into()],
            epochs: 4,
            steps: 10,
            ..View::default()
        };
        let mut terminal = Terminal::new(TestBackend::new(80, HEIGHT)).unwrap();
        let mut shown = |view: &View| {
            terminal.draw(|frame| view.draw(frame)).unwrap();
            terminal.backend().to_string()
        };
        assert!(shown(&view).contains("after the first epoch"));
        for epoch in 1..=2 {
            let report = StepReport {
                loss: Some(1. / epoch as f64),
                positive: Some(20.),
                negative: None,
            };
            view.on(&Event::EpochEnded {
                epoch,
                epochs: 4,
                seconds: 1.,
                reports: &[(0, report)],
                rates: &[],
            });
            let readouts = [("head".to_string(), Score::new(1, 4, None))];
            view.on(&Event::Evaluated {
                epoch,
                split: Split::Validation,
                evaluation: &Evaluation::of(readouts.into(), 4),
            });
        }
        let text = shown(&view);
        for part in [
            "progressive on digits: epoch 3/4",
            "loss",
            "error in %",
            "validation head",
            "goodness +",
            "0.500",
            "20.0",
            "–",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        // On a narrow and low terminal nothing fails.
        let mut small = Terminal::new(TestBackend::new(10, 5)).unwrap();
        small.draw(|frame| view.draw(frame)).unwrap();
    }
}
