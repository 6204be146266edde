//! The recovery window as a ribbon of time: what drills have proven, what is only there, where a gap is,
//! and where each drill went. SVG that needs no script; colours come from the page's classes, and every
//! kind can be told without colour: full height, half height, crossed out.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use crate::evidence::charts::px;
use crate::evidence::proven::{DrillPoint, Part, WindowProof};
use crate::evidence::wording::{second, span};
use crate::units::Timeline;

const LEFT: f64 = 96.0;
const PLOT: f64 = 740.0;
const ROW: f64 = 58.0;
const HEIGHT: f64 = 22.0;

/// Where times stand on the page.
struct Axis {
    from: DateTime<Utc>,
    seconds: f64,
}

impl Axis {
    fn over(windows: &[WindowProof]) -> Option<Self> {
        let from = windows.iter().map(|w| w.from).min()?;
        let to = windows.iter().map(|w| w.to).max()?;
        let seconds = (to - from).as_seconds_f64();
        (seconds > 0.0).then_some(Self { from, seconds })
    }

    fn x(&self, at: DateTime<Utc>) -> f64 {
        LEFT + (at - self.from).as_seconds_f64() / self.seconds * PLOT
    }

    /// Five places with their times, as fine as the axis is long.
    fn ticks(&self) -> Vec<(f64, String, &'static str)> {
        let format = match self.seconds {
            short if short < 900.0 => "%H:%M:%S",
            days if days < 864_000.0 => "%-d %b %H:%M",
            _ => "%-d %b %Y",
        };
        let place = |n: u8| {
            let at = self.from + TimeDelta::milliseconds((self.seconds * 250.0 * f64::from(n)) as i64);
            let anchor = match n {
                0 => "start",
                4 => "end",
                _ => "middle",
            };
            (self.x(at), at.format(format).to_string(), anchor)
        };
        (0..=4).map(place).collect()
    }
}

/// The stretches of one timeline on one line.
struct Row<'a> {
    timeline: Timeline,
    windows: Vec<&'a WindowProof>,
}

impl Row<'_> {
    /// Times between two stretches, the first of which a gap ends.
    fn gaps(&self) -> Vec<Part> {
        let pairs = self.windows.windows(2).filter(|pair| pair[0].gap.is_some() && pair[0].to < pair[1].from);
        pairs.map(|pair| Part { from: pair[0].to, to: pair[1].from }).collect()
    }
}

fn rows(windows: &[WindowProof]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for window in windows {
        match rows.iter_mut().find(|row| row.timeline == window.timeline) {
            Some(row) => row.windows.push(window),
            None => rows.push(Row { timeline: window.timeline, windows: vec![window] }),
        }
    }
    rows.sort_by_key(|row| row.timeline);
    rows
}

/// The ribbon; nothing where there is nothing to show.
pub(crate) fn ribbon(windows: &[WindowProof], drills: &[DrillPoint]) -> Markup {
    let Some(axis) = Axis::over(windows) else { return html! {} };
    let rows = rows(windows);
    let bottom = ROW * rows.len() as f64;
    html! {
        svg.chart.wide viewBox={ "0 0 860 " (px(bottom + 62.0)) } role="img" aria-label=(said(&rows)) {
            @for (x, _, _) in axis.ticks() { line.grid x1=(px(x)) x2=(px(x)) y1="0" y2=(px(bottom)) {} }
            @for (row, top) in rows.iter().zip((0_u32..).map(|n| ROW * f64::from(n))) {
                @let y = top + 24.0;
                text.label x=(px(LEFT - 12.0)) y=(px(y + 15.5)) text-anchor="end" { "timeline " (row.timeline.0) }
                @for window in &row.windows {
                    (bar(&axis, "covered", window.from, window.to, y + HEIGHT / 4.0, HEIGHT / 2.0))
                    @for part in proven(window) { (bar(&axis, "proven", part.from, part.to, y, HEIGHT)) }
                }
                @for gap in row.gaps() {
                    (bar(&axis, "gap", gap.from, gap.to, y, HEIGHT))
                    line.cross x1=(px(axis.x(gap.from))) x2=(px(axis.x(gap.to))) y1=(px(y)) y2=(px(y + HEIGHT)) {}
                    line.cross x1=(px(axis.x(gap.from))) x2=(px(axis.x(gap.to))) y1=(px(y + HEIGHT)) y2=(px(y)) {}
                }
                @for drill in drills { (point(&axis, row, drill, top + 13.0)) }
            }
            @for (x, label, anchor) in axis.ticks() {
                text.small x=(px(x)) y=(px(bottom + 12.0)) text-anchor=(anchor) { (label) }
            }
            (legend(bottom + 40.0))
        }
    }
}

fn bar(axis: &Axis, class: &str, from: DateTime<Utc>, to: DateTime<Utc>, y: f64, height: f64) -> Markup {
    let width = (axis.x(to) - axis.x(from)).max(1.5);
    html! { rect class=(class) x=(px(axis.x(from))) y=(px(y)) width=(px(width)) height=(px(height)) {} }
}

/// What is left of a window without what was never proven.
fn proven(window: &WindowProof) -> Vec<Part> {
    let starts = std::iter::once(window.from).chain(window.unproven.iter().map(|part| part.to));
    let ends = window.unproven.iter().map(|part| part.from).chain(std::iter::once(window.to));
    let parts = starts.zip(ends).map(|(from, to)| Part { from, to });
    parts.filter(|part| part.from < part.to).collect()
}

/// A mark where a drill went: filled where the moment was drawn at random, a cross where it failed.
fn point(axis: &Axis, row: &Row<'_>, drill: &DrillPoint, y: f64) -> Markup {
    let here = drill.target.filter(|at| row.windows.iter().any(|w| (w.from..=w.to).contains(at)));
    html! {
        @if let Some(at) = here {
            @let x = axis.x(at);
            @if drill.sound {
                circle class={ "point" (if drill.random { " random" } else { "" }) } cx=(px(x)) cy=(px(y)) r="4" {}
            } @else {
                path.failed-point d={ "M" (px(x - 4.0)) " " (px(y - 4.0)) " l8 8 m0 -8 l-8 8" } {}
            }
        }
    }
}

fn legend(y: f64) -> Markup {
    let entry = |x: f64, width: f64, label: &str, mark: Markup| {
        html! { (mark) text.small x=(px(x + width)) y=(px(y + 4.0)) { (label) } }
    };
    let square = |x: f64, class: &str, height: f64| {
        html! { rect class=(class) x=(px(x)) y=(px(y - height / 2.0)) width="18" height=(px(height)) {} }
    };
    html! {
        (entry(LEFT, 24.0, "proven by a drill", square(LEFT, "proven", 14.0)))
        (entry(LEFT + 135.0, 24.0, "there, not proven", square(LEFT + 135.0, "covered", 7.0)))
        (entry(LEFT + 275.0, 24.0, "gap", html! {
            (square(LEFT + 275.0, "gap", 14.0))
            line.cross x1=(px(LEFT + 275.0)) x2=(px(LEFT + 293.0)) y1=(px(y - 7.0)) y2=(px(y + 7.0)) {}
        }))
        (entry(LEFT + 350.0, 12.0, "random drill", html! { circle.point.random cx=(px(LEFT + 354.0)) cy=(px(y)) r="4" {} }))
        (entry(LEFT + 455.0, 12.0, "other drill", html! { circle.point cx=(px(LEFT + 459.0)) cy=(px(y)) r="4" {} }))
        (entry(LEFT + 550.0, 14.0, "drill that failed", html! {
            path.failed-point d={ "M" (px(LEFT + 552.0)) " " (px(y - 4.0)) " l8 8 m0 -8 l-8 8" } {}
        }))
    }
}

/// The ribbon in words.
fn said(rows: &[Row<'_>]) -> String {
    let mut parts = Vec::new();
    for row in rows {
        for window in &row.windows {
            let share = if window.seconds > 0.0 { window.proven_seconds / window.seconds * 100.0 } else { 0.0 };
            let ended = if window.gap.is_some() { ", ended by a gap" } else { "" };
            parts.push(format!(
                "timeline {}, {} to {} ({}): {share:.0} % proven{ended}",
                row.timeline.0,
                second(window.from),
                second(window.to),
                span(window.seconds)
            ));
        }
    }
    format!("What can be restored, and what drills have proven of it: {}.", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples_outlook;

    #[test]
    fn the_ribbon_shows_and_says_proofs_gaps_and_drills() {
        let coverage = examples_outlook::outlook().coverage;
        let svg = ribbon(&coverage.windows, &coverage.drills).into_string();
        // A legend entry and as many as there are of each.
        assert_eq!(svg.matches("class=\"gap\"").count(), 2);
        assert_eq!(svg.matches("class=\"covered\"").count(), 3);
        assert_eq!(svg.matches("class=\"proven\"").count(), 3);
        assert_eq!(svg.matches("failed-point").count(), 2);
        assert_eq!(svg.matches("point random").count(), 3);
        assert!(svg.contains("ended by a gap") && svg.contains("% proven"), "{svg}");
        assert_eq!(ribbon(&[], &[]).into_string(), "");
    }

    #[test]
    fn nothing_is_drawn_outside_the_plot() {
        let coverage = examples_outlook::outlook().coverage;
        let axis = Axis::over(&coverage.windows).expect("windows");
        for window in &coverage.windows {
            for at in [window.from, window.to] {
                assert!((LEFT..=LEFT + PLOT + 0.1).contains(&axis.x(at)));
            }
        }
        assert_eq!(axis.ticks().len(), 5);
    }
}
