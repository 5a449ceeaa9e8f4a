//! The summary as a Markdown page.

use std::fmt::Write;

use crate::report::{Report, Row, number};

/// Every row of the reports, by bench.
pub fn write(reports: &[Report]) -> String {
    let mut page = String::from(
        "# What the benches found\n\nWritten by `cargo bench -p ringmain-benches --bench summary -- --publish`.\n",
    );
    for report in reports {
        let _ = write!(page, "\n## {}\n\n{}\n\n", report.bench, report.machine);
        page.push_str("| what | measured | beside | ratio | goal | |\n| --- | --- | --- | --- | --- | --- |\n");
        report.rows.iter().for_each(|row| page.push_str(&line(row)));
        report.skipped.iter().for_each(|what| {
            let _ = write!(page, "\nSkipped: {what}\n");
        });
    }
    page
}

fn line(row: &Row) -> String {
    let (beside, ratio) = match &row.beside {
        Some(beside) => (format!("{} {}", beside.name, number(beside.value)), format!("{:.2}", beside.ratio)),
        None => Default::default(),
    };
    let (goal, verdict) = match &row.goal {
        Some(goal) => (goal.text.as_str(), if goal.holds { "holds" } else { "**missed**" }),
        None => ("", ""),
    };
    format!("| {} | {} {} | {beside} | {ratio} | {goal} | {verdict} |\n", row.what, number(row.value), row.unit)
}
