//! The summary as a picture: a bar for each goal, as long as the part of what is allowed that was used: what reaches over the line
//! misses its goal. A comparison without a goal is a bar as long as the ratio. Plain SVG, readable on light and dark.

use std::fmt::Write;

use crate::report::{Report, Row, number};

/// Every row of the reports that wants to be drawn.
pub fn draw(reports: &[Report]) -> String {
    let rows: Vec<(&str, &Row)> = reports
        .iter()
        .flat_map(|report| report.rows.iter().map(|row| (report.bench.as_str(), row)))
        .filter(|(_, row)| row.drawn)
        .collect();
    let height = TOP + ROW * rows.len() + BOTTOM;
    let mut svg = String::new();
    let mut put = |line: &str| {
        svg.push_str(line);
        svg.push('\n');
    };
    put(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Benches: how much of each goal is used\">"
    ));
    put(STYLE);
    put(&format!(
        "<text class=\"h\" x=\"{EDGE}\" y=\"24\">How much of what each goal allows was used: up to the line it holds. Grey: as many times the other one</text>"
    ));
    for (index, (bench, row)) in rows.iter().enumerate() {
        put(&bar(bench, row, TOP + ROW * index));
    }
    let (limit, end) = (BARS + UNIT, TOP + ROW * rows.len());
    put(&format!("<line class=\"g\" x1=\"{limit}\" y1=\"{}\" x2=\"{limit}\" y2=\"{end}\"/>", TOP - 4));
    let mut machines: Vec<String> = reports.iter().map(|report| report.machine.to_string()).collect();
    machines.dedup();
    put(&format!("<text class=\"s\" x=\"{EDGE}\" y=\"{}\">{}</text>", height - 12, escape(&machines.join("; "))));
    svg.push_str("</svg>\n");
    svg
}

fn bar(bench: &str, row: &Row, y: usize) -> String {
    let (class, used) = match (&row.goal, &row.beside) {
        (Some(goal), _) if goal.holds => ("y", goal.used),
        (Some(goal), _) => ("n", goal.used),
        (None, beside) => ("c", beside.as_ref().map_or(0.0, |beside| beside.ratio)),
    };
    let size = (used.clamp(0.0, USED_MAX) * UNIT as f64) as usize;
    let mut told = format!("{} {}", number(row.value), row.unit);
    if let Some(beside) = &row.beside {
        let _ = write!(told, ", {:.2} × {} ({})", beside.ratio, beside.name, number(beside.value));
    }
    if let Some(goal) = &row.goal {
        let _ = write!(told, "; {}", goal.text);
    }
    let base = y + 15;
    format!(
        "<text x=\"{EDGE}\" y=\"{base}\">{} · {}</text><rect class=\"{class}\" x=\"{BARS}\" y=\"{}\" width=\"{}\" height=\"12\" rx=\"2\"/>\
         <text class=\"s\" x=\"{}\" y=\"{base}\">{}</text>",
        escape(bench),
        escape(&row.what),
        y + 5,
        size.max(2),
        BARS + (UNIT as f64 * USED_MAX) as usize + 10,
        escape(&told),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const STYLE: &str = "<style>\
text{font:12px system-ui,sans-serif;fill:#24292f}.h{font-size:14px;font-weight:600}.s{fill:#57606a;font-size:11px}\
.y{fill:#2da44e}.n{fill:#cf222e}.c{fill:#8c959f}.g{stroke:#57606a;stroke-dasharray:3 3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.y{fill:#3fb950}.n{fill:#f85149}.g{stroke:#9198a1}}\
</style>";
const WIDTH: usize = 1260;
const EDGE: usize = 12;
const TOP: usize = 44;
const ROW: usize = 22;
const BOTTOM: usize = 40;
/// Where bars begin, and how long one is that uses all of its goal.
const BARS: usize = 480;
const UNIT: usize = 150;
/// Longer ones are cut off.
const USED_MAX: f64 = 2.0;
