//! One table of what the other benches found in their last whole run, with where it was measured, and the same as a picture and as a
//! page. `--publish` puts both where the README shows them.

#![allow(missing_docs)]

use std::path::Path;

use ringmain_benches::measure::Args;
use ringmain_benches::report::{Report, folder};
use ringmain_benches::{chart, table};

fn main() {
    let args = Args::read();
    let reports = read_all();
    for report in &reports {
        println!("\n{}: {}", report.bench, report.machine);
        report.rows.iter().for_each(|row| println!("  {row}"));
        report.skipped.iter().for_each(|what| println!("  skipped: {what}"));
    }
    let goals = reports.iter().flat_map(|report| &report.rows).filter_map(|row| row.goal.as_ref());
    let (held, all) = goals.fold((0, 0), |(held, all), goal| (held + usize::from(goal.holds), all + 1));
    println!(
        "\n{held} of {all} goals hold. Measured by the benches that were run; see `cargo bench -p ringmain-benches`."
    );
    let (picture, page) = (chart::draw(&reports), table::write(&reports));
    if args.is_smoke() {
        return;
    }
    let publish = std::env::args().any(|argument| argument == "--publish");
    let here = if publish { Path::new(env!("CARGO_MANIFEST_DIR")).to_owned() } else { folder() };
    let write = |name: &str, text: String| std::fs::write(here.join(name), text);
    let written = std::fs::create_dir_all(&here)
        .and_then(|()| write("summary.svg", picture))
        .and_then(|()| write("summary.md", page));
    match written {
        Ok(()) => println!("Picture and page are summary.svg and summary.md in {}.", here.display()),
        Err(error) => println!("Could not write to {}: {error}", here.display()),
    }
}

/// What the benches left, in the order in which it reads best.
fn read_all() -> Vec<Report> {
    let mut reports: Vec<Report> = std::fs::read_dir(folder())
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|json| serde_json::from_str(&json).ok())
        .collect();
    reports.sort_by_key(|report| ORDER.iter().position(|bench| *bench == report.bench));
    reports
}

const ORDER: [&str; 11] =
    ["floor", "engine", "fanout", "idle", "scale", "latency", "join", "rtcp", "rings", "srtp", "srtp, multi-buffer"];
