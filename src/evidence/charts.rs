//! The two charts of a drill report, as SVG that needs no script: a figure held against its
//! objective, and where the time went. Colours come from the page's classes.

use maud::{Markup, html};

use crate::evidence::drill_record::{Basis, Phase};
use crate::evidence::wording::span;

/// A measured figure as a bar, with the objective as a mark; `assumed` is added in a hatched bar. `met`
/// is `None` where the figure is worth nothing.
pub(crate) fn objective_bar(title: &str, measured: f64, assumed: f64, objective: f64, met: Option<bool>) -> Markup {
    const WIDTH: f64 = 400.0;
    let scale = WIDTH / ((measured + assumed).max(objective).max(f64::MIN_POSITIVE) * 1.12);
    let (solid, hatched, mark) = (shown(measured * scale), assumed * scale, objective * scale);
    let anchor = if mark > WIDTH * 0.7 { "end" } else { "start" };
    let label = if anchor == "end" { mark - 6.0 } else { mark + 6.0 };
    let said = format!(
        "{title}: {} against an objective of {}; {}.",
        span(measured + assumed),
        span(objective),
        match met {
            Some(true) => "the objective is met",
            Some(false) => "the objective is missed",
            None => "this counts for nothing, because the drill failed",
        }
    );
    let class = met.map_or("void", |met| if met { "good" } else { "bad" });
    html! {
        svg.chart viewBox="0 0 400 44" role="img" aria-label=(said) {
            rect.track x="0" y="18" width="400" height="16" rx="3" {}
            rect class=(class) x="0" y="18" width=(px(solid)) height="16" rx="3" {}
            @if assumed > 0.0 { rect class={ (class) " assumed" } x=(px(solid)) y="18" width=(px(hatched)) height="16" {} }
            line.mark x1=(px(mark)) x2=(px(mark)) y1="8" y2="40" {}
            text.small x=(px(label)) y="13" text-anchor=(anchor) { "objective " (span(objective)) }
        }
    }
}

/// Where the time went: one bar for each phase, on one axis that covers what was measured. Assumed
/// phases are hatched stubs before it: to scale they would often leave no room for the rest.
pub(crate) fn waterfall(phases: &[Phase], objective: f64) -> Markup {
    const LEFT: f64 = 190.0;
    const PLOT: f64 = 560.0;
    const ROW: f64 = 26.0;
    let bars = place(phases);
    let total = bars.iter().flatten().map(|bar| bar.start + bar.seconds).fold(0.0, f64::max);
    if total <= 0.0 {
        return html! {};
    }
    let assumed: f64 = phases.iter().zip(&bars).filter(|(_, bar)| bar.is_none()).map(|(phase, _)| phase.seconds).sum();
    let left = objective - assumed;
    let fits = (0.0..=total * 2.5).contains(&left);
    let longest = if fits { total.max(left) } else { total } * 1.02;
    let scale = PLOT / longest;
    let bottom = ROW * bars.len() as f64 + 8.0;
    let said = format!("Where the time went, {} measured: {}.", span(total), listed(phases));
    html! {
        svg.chart.wide viewBox={ "0 0 860 " (px(bottom + 40.0)) } role="img" aria-label=(said) {
            @for tick in ticks(longest) {
                line.grid x1=(px(LEFT + tick * scale)) x2=(px(LEFT + tick * scale)) y1="0" y2=(px(bottom)) {}
                text.small x=(px(LEFT + tick * scale)) y=(px(bottom + 16.0)) text-anchor="middle" { (span(tick)) }
            }
            @for (row, (bar, phase)) in (0u8..).zip(bars.iter().zip(phases)) {
                @let y = ROW * f64::from(row) + 6.0;
                text.label x=(px(LEFT - 12.0)) y=(px(y + 12.5)) text-anchor="end" { (phase.name) }
                @if let Some(bar) = bar {
                    @let x = LEFT + bar.start * scale;
                    @let width = shown(bar.seconds * scale);
                    rect class="bar" x=(px(x)) y=(px(y)) width=(px(width)) height="16" rx="2" {}
                    text.value x=(px(x + width + 6.0)) y=(px(y + 12.5)) { (span(phase.seconds)) }
                } @else {
                    rect class="bar assumed" x=(px(LEFT)) y=(px(y)) width="26" height="16" rx="2" {}
                    text.value x=(px(LEFT + 32.0)) y=(px(y + 12.5)) { (span(phase.seconds)) " assumed, not drawn to scale" }
                }
            }
            @if fits {
                line.mark x1=(px(LEFT + left * scale)) x2=(px(LEFT + left * scale)) y1="0" y2=(px(bottom)) {}
                text.small x=(px(LEFT + left * scale)) y=(px(bottom + 32.0)) text-anchor="middle" { "objective" }
            } @else {
                text.small x=(px(LEFT + PLOT)) y=(px(bottom + 32.0)) text-anchor="end" {
                    @if left > 0.0 {
                        "The objective leaves " (span(left)) " for this, far to the right of the chart."
                    } @else {
                        "The assumed phases alone take longer than the objective of " (span(objective)) "."
                    }
                }
            }
        }
    }
}

/// A measured bar on the time axis, in seconds from the first one's beginning.
#[derive(Debug, PartialEq)]
struct Bar {
    start: f64,
    seconds: f64,
}

/// Where each phase stands on the axis; `None` for assumed ones.
fn place(phases: &[Phase]) -> Vec<Option<Bar>> {
    let first = phases.iter().filter_map(|p| p.started_at).min();
    let bar = |phase: &Phase| match (phase.basis, phase.started_at, first) {
        (Basis::Measured, Some(started), Some(first)) => {
            Some(Bar { start: (started - first).as_seconds_f64(), seconds: phase.seconds })
        }
        _ => None,
    };
    phases.iter().map(bar).collect()
}

fn listed(phases: &[Phase]) -> String {
    let said = |p: &Phase| {
        let assumed = if p.basis == Basis::Assumed { " (assumed)" } else { "" };
        format!("{} {}{assumed}", p.name, span(p.seconds))
    };
    phases.iter().map(said).collect::<Vec<_>>().join(", ")
}

/// Round places on an axis of `longest` seconds; 4 to 9 of them, from 0.
fn ticks(longest: f64) -> Vec<f64> {
    const STEPS: [f64; 18] = [
        0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
    ];
    let fitting = STEPS.iter().copied().find(|step| longest / step <= 8.0);
    let step = fitting.unwrap_or_else(|| (longest / 8.0 / 14_400.0).ceil() * 14_400.0);
    let count = (longest / step).floor() as u32;
    (0..=count).map(|n| f64::from(n) * step).collect()
}

/// Wide enough to be seen.
fn shown(width: f64) -> f64 {
    width.max(2.5)
}

/// A coordinate with as many digits as a screen can show.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples;

    #[test]
    fn measured_phases_stand_where_they_began_and_assumed_ones_beside_the_axis() {
        let bars = place(&examples::passed().phases);
        assert_eq!(bars[0], None);
        let starts: Vec<f64> = bars.iter().flatten().map(|b| (b.start * 10.0).round() / 10.0).collect();
        assert_eq!(starts, [0.0, 0.6, 23.0, 27.5, 34.3, 39.5]);
    }

    #[test]
    fn the_objective_is_drawn_less_what_is_assumed_or_said_in_words() {
        let phases = examples::passed().phases;
        let chart = |objective| waterfall(&phases, objective).into_string();
        assert!(chart(960.0).contains(">objective<"));
        assert!(chart(3600.0).contains("The objective leaves 45 min"));
        assert!(chart(600.0).contains("assumed phases alone take longer"));
    }

    #[test]
    fn axes_are_round_for_any_length() {
        assert_eq!(ticks(47.3), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(ticks(3600.0), [0.0, 600.0, 1200.0, 1800.0, 2400.0, 3000.0, 3600.0]);
        for longest in [0.004, 0.3, 7.0, 100.0, 5000.0, 90_000.0, 4e6] {
            let count = ticks(longest).len();
            assert!((1..=9).contains(&count), "{count} ticks for {longest} s");
        }
    }

    #[test]
    fn charts_say_in_words_what_they_show() {
        let bar = objective_bar("Loss", 90.0, 0.0, 60.0, Some(false)).into_string();
        assert!(bar.contains("Loss: 1 min 30 s against an objective of 1 min; the objective is missed."), "{bar}");
        let chart = waterfall(&examples::passed().phases, 3600.0).into_string();
        assert!(chart.contains("detect and decide 15 min (assumed)"), "{chart}");
        assert_eq!(waterfall(&[], 60.0).into_string(), "");
    }
}
