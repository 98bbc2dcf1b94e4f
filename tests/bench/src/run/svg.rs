//! The curves as one SVG: a row for each, throughput, processor time and memory beside each other.

use std::fmt::Write as _;

/// One quantity that was varied.
pub struct Curve {
    pub title: String,
    pub points: Vec<Point>,
}

/// One measurement.
pub struct Point {
    pub x: f64,
    pub pushes_per_second: f64,
    /// Microseconds per push.
    pub cpu: f64,
    pub mebibytes: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Requests that were not answered with 200.
    pub failed: u64,
}

const WIDTH: f64 = 260.0;
const HEIGHT: f64 = 120.0;
const GAP: f64 = 70.0;

type Quantity = (&'static str, fn(&Point) -> f64);
const QUANTITIES: [Quantity; 3] = [
    ("pushes/s", |point| point.pushes_per_second),
    ("CPU µs/push", |point| point.cpu),
    ("RSS MiB", |point| point.mebibytes),
];

/// The picture. Every panel begins at 0; the x axis has equal steps, one for each point.
pub fn plot(curves: &[Curve]) -> String {
    let (columns, rows) = (QUANTITIES.len() as f64, curves.len() as f64);
    let (width, height) = (columns * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, curve) in curves.iter().enumerate() {
        for (column, quantity) in QUANTITIES.iter().enumerate() {
            let (left, top) = (GAP + column as f64 * (WIDTH + GAP), GAP / 2.0 + row as f64 * (HEIGHT + GAP));
            panel(&mut svg, curve, *quantity, left, top);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, curve: &Curve, (name, value): Quantity, left: f64, top: f64) {
    let most = curve.points.iter().map(value).fold(0.0, f64::max).max(1e-9) * 1.1;
    let step = WIDTH / (curve.points.len().max(2) - 1) as f64;
    let bottom = top + HEIGHT;
    let _ =
        writeln!(svg, "<text x=\"{left}\" y=\"{}\">{name} by {}</text>", top - 8.0, escaped(&curve.title));
    let _ =
        writeln!(svg, "<path d=\"M{left} {top}V{bottom}H{}\" fill=\"none\" stroke=\"#888\"/>", left + WIDTH);
    let mut line = String::new();
    for (index, point) in curve.points.iter().enumerate() {
        let (x, y) = (left + index as f64 * step, bottom - value(point) / most * HEIGHT);
        let _ = write!(line, "{x:.1},{y:.1} ");
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#06c\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text>",
            y - 6.0,
            value(point)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            bottom + 14.0,
            point.x
        );
    }
    let _ = writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"1.5\"/>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_every_point() {
        let point = |x| Point { x, pushes_per_second: x, cpu: 1.0, mebibytes: 1.0, p99: 1.0, failed: 0 };
        let curve = Curve { title: "a < b".into(), points: vec![point(1.0), point(10.0)] };
        let svg = plot(&[curve]);
        assert_eq!(svg.matches("<circle").count(), 6);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
    }
}
