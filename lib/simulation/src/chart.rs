//! A picture of a run: how many hosts had everything when, against the time that their links alone take.

use std::fmt::Write as _;

use crate::report::{HostReport, Report};

/// Draws it as SVG: across, the seconds from each host's own start; up, the share of the hosts that had everything.
#[must_use]
pub fn chart(report: &Report) -> String {
    let mut times: Vec<f64> = report.hosts.iter().filter_map(HostReport::seconds).collect();
    times.sort_by(f64::total_cmp);
    let longest = times.last().copied().unwrap_or_default().max(report.bound) * 1.1;
    let scale = Scale { longest: longest.max(f64::MIN_POSITIVE), hosts: report.hosts.len().max(1) };
    let mut picture = head();
    axes(&mut picture, &scale);
    bound(&mut picture, &scale, report.bound);
    curve(&mut picture, &scale, &times);
    caption(&mut picture, report);
    picture.push_str("</svg>\n");
    picture
}

/// From seconds and hosts to places in the picture.
struct Scale {
    longest: f64,
    hosts: usize,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.longest * (WIDTH - LEFT - RIGHT)
    }

    #[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn y(&self, hosts: usize) -> f64 {
        HEIGHT - BOTTOM - hosts as f64 / self.hosts as f64 * (HEIGHT - TOP - BOTTOM)
    }
}

fn head() -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"14\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    )
}

fn axes(picture: &mut String, scale: &Scale) {
    for tenth in 0..=10 {
        let seconds = scale.longest * f64::from(tenth) / 10.0;
        let (x, y) = (scale.x(seconds), HEIGHT - BOTTOM);
        let _ = writeln!(
            picture,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"#e5e5e5\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{seconds:.1} s</text>",
            y + 20.0
        );
    }
    for quarter in 0..=4_usize {
        let y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * [0.0, 0.25, 0.5, 0.75, 1.0][quarter];
        let _ = writeln!(
            picture,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#e5e5e5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 5.0,
            quarter * 25
        );
    }
}

fn bound(picture: &mut String, scale: &Scale, seconds: f64) {
    let x = scale.x(seconds);
    let _ = writeln!(
        picture,
        "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#c0392b\" stroke-width=\"2\" \
         stroke-dasharray=\"6 4\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#c0392b\">what the links alone take: {seconds:.2} s</text>",
        HEIGHT - BOTTOM,
        x - 8.0,
        TOP + 16.0
    );
}

fn curve(picture: &mut String, scale: &Scale, times: &[f64]) {
    let mut points = format!("{:.1},{:.1}", scale.x(0.0), scale.y(0));
    for (before, &seconds) in times.iter().enumerate() {
        let x = scale.x(seconds);
        let _ = write!(points, " {x:.1},{:.1} {x:.1},{:.1}", scale.y(before), scale.y(before + 1));
    }
    let _ = writeln!(
        picture,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"#1f6fb2\" stroke-width=\"2.5\"/>"
    );
}

fn caption(picture: &mut String, report: &Report) {
    let times = report.seconds;
    let _ = writeln!(
        picture,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-size=\"16\">{} hosts: p50 {:.2} s, p99 {:.2} s, p99.9 {:.2} s after their own \
         start; {:.2} copies from the origins</text>",
        TOP - 18.0,
        report.hosts.len(),
        times.p50,
        times.p99,
        times.p999,
        report.origin_copies
    );
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
