//! `rcg plot`: results of lat and bw as a drawing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Deserialize;

const WIDTH: u32 = 720;
const HEIGHT: u32 = 420;
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
];

#[derive(Args)]
pub(crate) struct Options {
    /// Files with what lat and bw wrote with --json, one or more results each; - = standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The drawing, as SVG
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// What is needed of a result.
#[derive(Deserialize)]
struct Outcome {
    test: String,
    op: String,
    #[serde(default)]
    bidirectional: bool,
    size: u32,
    provider: String,
    device: String,
    rdma: Figures,
    tcp: Option<Figures>,
}

/// Of lat or of bw.
#[derive(Deserialize)]
#[serde(untagged)]
enum Figures {
    Times { p50_us: f64 },
    Rate { bytes_per_second: f64 },
}

impl Figures {
    fn value(&self) -> f64 {
        match self {
            Self::Times { p50_us } => *p50_us,
            Self::Rate { bytes_per_second } => bytes_per_second / 1e6,
        }
    }
}

/// Values by size.
type Line = BTreeMap<u32, f64>;
/// Lines by name.
type Chart = BTreeMap<String, Line>;

/// Charts by what they show: lat and bw have axes of their own.
fn charts(outcomes: &[Outcome]) -> BTreeMap<String, Chart> {
    let mut charts: BTreeMap<String, Chart> = BTreeMap::new();
    for outcome in outcomes {
        let both = if outcome.bidirectional { ", both ways" } else { "" };
        let chart = charts.entry(outcome.test.clone()).or_default();
        let mut add = |what: String, figures: &Figures| {
            chart
                .entry(format!("{}{both}, {what}", outcome.op))
                .or_default()
                .insert(outcome.size, figures.value());
        };
        add(format!("{} ({})", outcome.provider, outcome.device), &outcome.rdma);
        outcome.tcp.iter().for_each(|tcp| add("raw TCP".into(), tcp));
    }
    charts
}

fn title(test: &str) -> (&'static str, &'static str) {
    match test {
        "lat" => ("Round trip, median", "microseconds"),
        _ => ("Throughput, median of rounds", "MB/s"),
    }
}

fn told(error: impl std::fmt::Display) -> String {
    format!("drawing: {error}")
}

/// Sizes go up by factors; values begin at 0.
fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, test: &str, chart: &Chart) -> Result<(), String> {
    let points = || chart.values().flatten();
    let least = points().map(|(size, _)| *size).min().unwrap_or(1).max(1);
    let most = points().map(|(size, _)| *size).max().unwrap_or(1);
    let top = points().map(|(_, value)| *value).fold(0.0, f64::max) * 1.1;
    let (title, unit) = title(test);
    let (from, to) = (f64::from(least) / 2.0, f64::from(most) * 2.0);
    let mut context = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((from..to).log_scale().base(2.0), 0.0..top.max(f64::MIN_POSITIVE))
        .map_err(told)?;
    let size = |size: &f64| crate::output::octets(size.round() as u64);
    context.configure_mesh().x_desc("size").y_desc(unit).x_label_formatter(&size).draw().map_err(told)?;
    for (at, (name, line)) in chart.iter().enumerate() {
        let colour = COLOURS.get(at % COLOURS.len()).copied().unwrap_or(BLACK);
        let points: Vec<_> = line.iter().map(|(size, value)| (f64::from((*size).max(1)), *value)).collect();
        let series = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        let drawn = context.draw_series(series).map_err(told)?;
        drawn
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let labels = context
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw();
    labels.map_err(told)
}

fn read(path: &Path) -> Result<Vec<Outcome>, String> {
    let mut text = String::new();
    let result = if path == Path::new("-") {
        stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    result.map_err(|error| format!("{}: {error}", path.display()))?;
    let outcomes = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<Vec<_>, _>>();
    let outcomes =
        outcomes.map_err(|error| format!("{}: not a result of lat or bw: {error}", path.display()))?;
    if outcomes.is_empty() {
        return Err(format!("{}: no result", path.display()));
    }
    Ok(outcomes)
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut outcomes = Vec::new();
    for file in &options.files {
        outcomes.extend(read(file)?);
    }
    let charts = charts(&outcomes);
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * charts.len() as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(told)?;
        let areas = root.split_evenly((charts.len(), 1));
        for (area, (test, chart)) in areas.iter().zip(&charts) {
            draw(area, test, chart)?;
        }
        root.present().map_err(told)?;
    }
    fs::write(&options.output, svg).map_err(|error| format!("{}: {error}", options.output.display()))
}
