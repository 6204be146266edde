//! `show` for people. The order is that of the questions at 3 a.m.: can I restore, to when, what is
//! broken, with which command; and only then the inventory.

use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::text::{Table, age, alarm, caution, counted, good, time, time_and_age};
use crate::repository::window::{Component, Part, Window};
use crate::service::view::{Server, View};
use crate::units::{ByteSize, Span};

/// Base backups listed; older ones are counted.
const LISTED: usize = 10;

/// Everything about one environment.
pub(super) fn describe(view: &View, context: &Context) -> String {
    let mut text = answer(view);
    text += &command(view, context);
    text += &watermark(view);
    text += &exposure(view);
    // Of what could not be read, nothing is claimed.
    if view.unreadable.is_none() {
        text += &inventory(view);
    }
    text += &server(&view.postgres);
    text
}

/// The first lines: oldest, newest, broken.
fn answer(view: &View) -> String {
    let name = &view.environment;
    let now = view.now;
    let mut text = match view.windows.iter().max_by_key(|w| (w.to.time, w.line)) {
        Some(newest) => format!(
            "{name}: {} from {}\n{}  to {}, every second of it\n",
            good("can be restored"),
            time_and_age(now, newest.from.time),
            " ".repeat(name.len() + 17),
            time_and_age(now, newest.to.time),
        ),
        None if view.unreadable.is_some() => format!("{name}: {}\n", alarm("what can be restored is not known")),
        None if view.bases.is_empty() => {
            format!(
                "{name}: {} – there is no base backup\n  take one: `lifeboat backup all -e {name}`\n",
                alarm("nothing can be restored")
            )
        }
        None => {
            format!("{name}: {} – no base backup has all the WAL that it needs\n", alarm("nothing can be restored"))
        }
    };
    let newest = view.windows.iter().map(|w| w.to.time).max();
    let (points, others): (Vec<&Window>, Vec<&Window>) = view
        .windows
        .iter()
        .rev()
        .filter(|w| Some(w.to.time) != newest)
        .partition(|w| w.ended_by.as_ref().is_some_and(|gap| gap.retired));
    if !points.is_empty() {
        let times: Vec<String> = points.iter().take(LISTED).map(|w| time(w.from.time)).collect();
        let more = points.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} older") } else { String::new() };
        text += &format!("  also to the points that retention kept: {}{more}\n", times.join(", "));
    }
    for window in others {
        text += &format!(
            "  also from {} to {}, before a gap or on another branch\n",
            time(window.from.time),
            time(window.to.time)
        );
    }
    match view.broken.is_empty() {
        true if view.windows.is_empty() => {}
        true => text += "  nothing is known to be broken\n",
        false => {
            text += &format!(
                "  {}\n",
                alarm(&format!("{} TO LOOK AT:", counted(view.broken.len() as u64, "THING", "THINGS")))
            );
            for broken in &view.broken {
                text += &format!("  - {}\n", alarm(broken));
            }
        }
    }
    text
}

/// A command that can be copied.
fn command(view: &View, context: &Context) -> String {
    if view.windows.is_empty() {
        return String::new();
    }
    let file = context.estate.file.display();
    format!(
        "\n  see what a restore would do (touches nothing):\n    lifeboat -c {file} restore -e {} --to latest --pgdata /srv/restored/pgdata --plan\n",
        view.environment
    )
}

fn watermark(view: &View) -> String {
    let Some(mark) = &view.watermark else { return String::new() };
    let mut text = match mark.time {
        Some(at) => format!(
            "\nwatermark: {} – database, filestore and configuration are all restorable to here\n",
            time_and_age(view.now, at)
        ),
        None => format!("\nwatermark: {} – a part was never backed up\n", alarm("none")),
    };
    let mut table = Table::new(&["part", "restorable to", ""]);
    for component in &mark.components {
        let limits = if component.limits { "limits it" } else { "" };
        let until = component.time.map_or_else(|| alarm("never backed up"), |at| time_and_age(view.now, at));
        table.row(vec![part(component), until, limits.to_owned()]);
    }
    text += &table.text("  ");
    text
}

fn part(component: &Component) -> String {
    match (component.part, &component.database) {
        (Part::Database, _) => "database".to_owned(),
        (Part::Filestore, Some(database)) => format!("filestore of {database}"),
        (Part::Filestore, None) => "filestore".to_owned(),
        (Part::Configuration, _) => "configuration".to_owned(),
    }
}

fn exposure(view: &View) -> String {
    let exposure = &view.exposure;
    let Some(seconds) = exposure.seconds else { return String::new() };
    let lost = Span(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let objective = Span(Duration::try_from_secs_f64(exposure.objective_seconds).unwrap_or_default());
    let verdict = match exposure.met {
        true => good(&format!("within the objective of {objective}")),
        false => alarm(&format!("over the objective of {objective}")),
    };
    let words = match exposure.bytes {
        Some(0) => "nothing: all WAL that the server has written is in the repository".to_owned(),
        Some(bytes) => format!("at most the last {lost} ({} of WAL)", ByteSize(bytes)),
        None => format!("at most the last {lost}"),
    };
    let commit =
        exposure.last_commit.map(|at| format!("; newest commit in the repository {}", time_and_age(view.now, at)));
    format!("would be lost now: {words}, {verdict}{}\n", commit.unwrap_or_default())
}

fn inventory(view: &View) -> String {
    let now = view.now;
    let mut text = String::new();
    if !view.bases.is_empty() {
        text += "\nbase backups\n";
        let mut table = Table::new(&["id", "taken", ">size", ">stored", "WAL needed", "restorable"]);
        for base in view.bases.iter().rev().take(LISTED) {
            let backup = &base.backup;
            table.row(vec![
                backup.id.clone(),
                age(now, backup.stop_time),
                ByteSize(backup.logical_bytes).to_string(),
                ByteSize(backup.stored_bytes).to_string(),
                format!("{} to {}", backup.wal.first, backup.wal.last),
                match &base.why_not {
                    None => "yes".to_owned(),
                    Some(why) => alarm(&format!("NO: {why}")),
                },
            ]);
        }
        text += &table.text("  ");
        if let Some(older) = view.bases.len().checked_sub(LISTED).filter(|n| *n > 0) {
            text += &format!("  and {} older\n", older);
        }
    }
    if !view.filestores.is_empty() {
        text += "\nfilestore captures\n";
        let mut table = Table::new(&["database", "captured", ">files", ">new", ">referenced", "state"]);
        for filestore in &view.filestores {
            let capture = &filestore.capture;
            let state = match (capture.complete, capture.suspects.len(), capture.missing_at_source.len()) {
                (true, 0, 0) => "complete".to_owned(),
                (complete, suspects, missing) => alarm(&format!(
                    "{}, {suspects} unsound, {missing} missing at the source",
                    if complete { "complete" } else { "INCOMPLETE" }
                )),
            };
            table.row(vec![
                filestore.database.clone(),
                time_and_age(now, capture.restore_point.time),
                capture.files_present.to_string(),
                capture.files_new.to_string(),
                capture.referenced.to_string(),
                state,
            ]);
        }
        text += &table.text("  ");
        for filestore in &view.filestores {
            for elsewhere in &filestore.capture.not_covered {
                let words = format!("not covered by any backup: {elsewhere}, referred to by {}", filestore.database);
                text += &format!("  {}\n", caution(&words));
            }
        }
        for mark in &view.watched {
            text += &format!("  {} is watched: complete to {}\n", mark.database, time_and_age(now, mark.time));
        }
    }
    if let Some(configuration) = &view.configuration {
        let export = &configuration.export;
        let changed = match export.changed.len() {
            0 => "unchanged".to_owned(),
            _ => format!("changed: {}", export.changed.join(", ")),
        };
        text += &format!("\nconfiguration export {}: {}, {changed}\n", export.id, time_and_age(now, export.taken_at));
        for unreadable in &export.unreadable {
            text += &format!("  {}\n", caution(&format!("not exported: {} ({})", unreadable.name, unreadable.reason)));
        }
    }
    text += &wal(view);
    match &view.last_drill {
        Some(drill) => {
            let words = format!("{}, {}", drill.summary, age(now, drill.recorded_at));
            text += &format!("\nlast drill: {}\n", if drill.bad { alarm(&words) } else { words });
        }
        None => {
            text += &format!("\nlast drill: {}\n", caution("never – `lifeboat drill run` proves that a restore works"))
        }
    }
    for failure in &view.failures {
        text += &format!("failed {}: {}\n", age(now, failure.recorded_at), caution(&failure.summary));
    }
    text
}

fn wal(view: &View) -> String {
    if view.wal.is_empty() && view.live.is_none() {
        return "\nWAL: none is archived\n".to_owned();
    }
    let mut text = "\nWAL\n".to_owned();
    for run in &view.wal {
        let segments = counted(run.segments, "segment", "segments");
        text += &format!("  timeline {}: {} to {}, {segments}\n", run.timeline.0, run.first, run.last);
        for gap in view.gaps.iter().filter(|g| g.timeline == run.timeline && run.last < g.first) {
            let next = view.wal.iter().find(|r| r.timeline == run.timeline && r.first > run.last);
            if next.is_none_or(|next| gap.first < next.first) {
                let missing = match gap.segments {
                    1 => format!("MISSING: {}", gap.first),
                    n => format!("MISSING: {} to {}, {n} segments", gap.first, gap.last),
                };
                text += &format!("  {}\n", alarm(&missing));
            }
        }
    }
    if let Some(live) = &view.live {
        text += &format!("  being written: {}, in the repository up to {}\n", live.segment, live.end_lsn);
    }
    text
}

fn server(server: &Server) -> String {
    let name = &server.slot_name;
    let Some(current) = server.current_lsn else {
        let why = server.error.as_deref().unwrap_or_default();
        return format!(
            "\nPostgreSQL: {}\n",
            caution(&format!("not reachable, so its slot and its WAL are not known: {why}"))
        );
    };
    let mut text = format!("\nPostgreSQL: {}, at {current}\n", if server.standby { "a standby" } else { "running" });
    match &server.slot {
        None => text += &format!("  slot {name}: {}\n", caution("does not exist; `lifeboat wal receive` creates it")),
        Some(slot) => {
            let reading = if slot.active { "WAL is being received".to_owned() } else { caution("NOBODY RECEIVES WAL") };
            let status = slot.wal_status.as_deref().unwrap_or("nothing reserved");
            text +=
                &format!("  slot {name}: {reading}; {status}, PostgreSQL keeps {} for it", ByteSize(slot.held_bytes));
            if let Some(safe) = slot.safe_bytes {
                text += &format!(", {} more before it gives WAL up", ByteSize(safe.max(0).unsigned_abs()));
            }
            text.push('\n');
        }
    }
    text
}
