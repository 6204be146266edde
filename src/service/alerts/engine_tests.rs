use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Purpose, Smtp, SmtpTls};
use crate::service::alerts::Condition;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn alert(condition: Condition, severity: AlertSeverity) -> Alert {
    let mut alert = Alert::of_service(condition, severity, "something");
    alert.key.environment = Some("production".into());
    alert.owner = Some("erp".into());
    alert.purpose = Some(Purpose::Production);
    alert
}

fn email() -> Receiver {
    let smtp = Smtp { host: "mail".into(), port: 25, tls: SmtpTls::None, login: None, from: "a@b".into() };
    Receiver::Email { to: vec!["x@y".into()], smtp }
}

fn config() -> AlertsConfig {
    AlertsConfig { receivers: [("team".to_owned(), email())].into(), ..AlertsConfig::default() }
}

/// Steps and reports every notification as told.
fn step(engine: &mut Engine, now: i64, wrong: &[Alert], config: &AlertsConfig) -> Vec<Tell> {
    let tells = engine.step(at(now), wrong, &[], config);
    for tell in &tells {
        engine.told(tell, at(now));
    }
    tells
}

#[test]
fn an_alert_is_told_after_the_wait_and_again_after_the_repeat_interval() {
    let (mut engine, config) = (Engine::default(), config());
    let wrong = [alert(Condition::RpoMissed, AlertSeverity::Critical)];
    assert!(step(&mut engine, 0, &wrong, &config).is_empty(), "others may join it");
    let told = step(&mut engine, 30, &wrong, &config);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].firing[0].since, at(0));
    for now in (60..4 * 3600).step_by(60) {
        assert!(step(&mut engine, now, &wrong, &config).is_empty(), "told again after {now} s");
    }
    assert_eq!(step(&mut engine, 4 * 3600 + 30, &wrong, &config).len(), 1);
}

#[test]
fn what_comes_later_waits_for_the_group_interval() {
    let (mut engine, config) = (Engine::default(), config());
    let one = alert(Condition::RpoMissed, AlertSeverity::Critical);
    let two = alert(Condition::WalGap, AlertSeverity::Critical);
    step(&mut engine, 0, std::slice::from_ref(&one), &config);
    step(&mut engine, 30, std::slice::from_ref(&one), &config);
    let both = [one, two];
    assert!(step(&mut engine, 60, &both, &config).is_empty());
    let told = step(&mut engine, 330, &both, &config);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].firing.len(), 2, "told together");
}

#[test]
fn a_clock_that_was_a_year_ahead_for_a_while_silences_nobody() {
    let (mut engine, config, year) = (Engine::default(), config(), 366 * 86_400);
    let one = alert(Condition::RpoMissed, AlertSeverity::Critical);
    let both = [one.clone(), alert(Condition::WalGap, AlertSeverity::Critical)];
    step(&mut engine, year, std::slice::from_ref(&one), &config);
    assert_eq!(step(&mut engine, year + 30, std::slice::from_ref(&one), &config).len(), 1);
    // The clock is set right. What was told is told once more, what is new is told in time.
    assert_eq!(step(&mut engine, 0, std::slice::from_ref(&one), &config).len(), 1);
    assert!(step(&mut engine, 30, &both, &config).is_empty(), "others may join it");
    assert_eq!(step(&mut engine, 330, &both, &config).len(), 1);
    // Nor does a failed notification wait for that year.
    let mut engine = Engine::default();
    step(&mut engine, year, &both, &config);
    let tells = engine.step(at(year + 30), &both, &[], &config);
    engine.failed(&tells[0], at(year + 30));
    assert!(engine.step(at(year + 40), &both, &[], &config).is_empty(), "not at once");
    assert_eq!(engine.step(at(0), &both, &[], &config).len(), 1);
}

#[test]
fn what_is_over_is_told_once_and_flapping_is_not() {
    let (mut engine, config) = (Engine::default(), config());
    let wrong = [alert(Condition::RpoMissed, AlertSeverity::Critical)];
    step(&mut engine, 0, &wrong, &config);
    step(&mut engine, 30, &wrong, &config);
    // Gone for a minute, back, gone: one alert.
    assert!(step(&mut engine, 60, &[], &config).is_empty());
    assert!(step(&mut engine, 90, &wrong, &config).is_empty());
    let mut resolved = Vec::new();
    for now in (120..2000).step_by(30) {
        resolved.extend(step(&mut engine, now, &[], &config));
    }
    assert_eq!(resolved.len(), 1, "{resolved:?}");
    assert!(resolved[0].firing.is_empty());
    assert_eq!(resolved[0].resolved[0].alert.key.condition, Condition::RpoMissed);
    // And when it comes again it is told without waiting for the interval.
    step(&mut engine, 2000, &wrong, &config);
    assert_eq!(step(&mut engine, 2030, &wrong, &config).len(), 1);
}

#[test]
fn what_went_before_anybody_was_told_is_not_told() {
    let (mut engine, config) = (Engine::default(), config());
    step(&mut engine, 0, &[alert(Condition::RpoMissed, AlertSeverity::Critical)], &config);
    for now in (10..1000).step_by(10) {
        let tells = step(&mut engine, now, &[], &config);
        assert!(tells.is_empty(), "after {now} s: {tells:?}");
    }
}

#[test]
fn a_failed_notification_is_tried_again_until_it_is_told() {
    let (mut engine, config) = (Engine::default(), config());
    let wrong = [alert(Condition::RpoMissed, AlertSeverity::Critical)];
    engine.step(at(0), &wrong, &[], &config);
    let mut tries = 0;
    for now in (30..330).step_by(10) {
        for tell in engine.step(at(now), &wrong, &[], &config) {
            tries += 1;
            engine.failed(&tell, at(now));
        }
    }
    assert_eq!(tries, 10, "every 30 s");
    assert_eq!(step(&mut engine, 400, &wrong, &config).len(), 1);
    assert!(step(&mut engine, 430, &wrong, &config).is_empty());
}

#[test]
fn a_silence_keeps_an_alert_from_being_told_until_it_ends() {
    let (mut engine, config) = (Engine::default(), config());
    let wrong = [alert(Condition::WalGap, AlertSeverity::Critical)];
    let silence = Silence {
        id: "s1".into(),
        environment: "production".into(),
        condition: Some(Condition::WalGap),
        subject: None,
        until: at(3600),
        author: "anna".into(),
        reason: "the old disk is being read".into(),
    };
    for now in (0..3600).step_by(30) {
        let tells = engine.step(at(now), &wrong, std::slice::from_ref(&silence), &config);
        assert!(tells.is_empty(), "after {now} s");
    }
    assert_eq!(engine.firing()[0].silenced_by.as_deref(), Some("s1"), "seen all the same");
    engine.step(at(3600), &wrong, std::slice::from_ref(&silence), &config);
    assert_eq!(engine.step(at(3630), &wrong, &[silence], &config).len(), 1);
}

#[test]
fn routes_choose_who_is_told_and_nobody_is_never() {
    let mut config = config();
    config.receivers.insert("night".into(), email());
    let route = |receiver: &str, severity| Route {
        receiver: receiver.into(),
        environments: None,
        purposes: Some(vec![Purpose::Production]),
        owners: None,
        severity,
    };
    config.routes = vec![route("night", AlertSeverity::Critical), route("team", AlertSeverity::Warning)];
    let told = |alert: &Alert| receivers(&config, alert).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(told(&alert(Condition::RpoMissed, AlertSeverity::Critical)), ["night", "team"]);
    assert_eq!(told(&alert(Condition::SizeChange, AlertSeverity::Warning)), ["team"]);
    let unrouted = Alert::of_service(Condition::ConfigurationRefused, AlertSeverity::Warning, "x");
    assert_eq!(told(&unrouted), ["night", "team"], "no route matches: everybody");
    let failed = Alert::of_service(Condition::NotificationFailed, AlertSeverity::Critical, "x").about("night");
    assert_eq!(told(&failed), ["team"], "not by the one that fails");
}

#[test]
fn an_alertmanager_is_sent_what_fires_every_minute() {
    let url = "http://alertmanager:9093".parse().expect("an address");
    let receivers = [("am".to_owned(), Receiver::Alertmanager { url, token: None })].into();
    let config = AlertsConfig { receivers, ..AlertsConfig::default() };
    let mut engine = Engine::default();
    let wrong = [alert(Condition::RpoMissed, AlertSeverity::Critical)];
    let sent: Vec<i64> =
        (0..300).step_by(10).filter(|now| !step(&mut engine, *now, &wrong, &config).is_empty()).collect();
    assert_eq!(sent, [0, 60, 120, 180, 240]);
    let over: Vec<Tell> = (300..600).step_by(10).flat_map(|now| step(&mut engine, now, &[], &config)).collect();
    assert!(over.iter().any(|tell| tell.firing.is_empty() && tell.resolved.len() == 1));
}

#[test]
fn what_was_told_survives_a_restart() {
    let (mut engine, config) = (Engine::default(), config());
    let wrong = [alert(Condition::RpoMissed, AlertSeverity::Critical)];
    step(&mut engine, 0, &wrong, &config);
    step(&mut engine, 30, &wrong, &config);
    let kept = serde_json::to_string(&engine).expect("JSON");
    let mut again: Engine = serde_json::from_str(&kept).expect("the same");
    assert_eq!(again, engine);
    assert!(step(&mut again, 90, &wrong, &config).is_empty(), "not told again because of a restart");
}

proptest! {
    /// Whatever comes and goes, and whatever fails: everything that stays wrong is told within the waits, and nobody is told
    /// that something is over who was not told that it began.
    #[test]
    fn nothing_that_stays_is_kept_back(script in proptest::collection::vec((0u8..8, any::<bool>()), 1..60)) {
        let config = config();
        let mut engine = Engine::default();
        let all = [
            alert(Condition::RpoMissed, AlertSeverity::Critical),
            alert(Condition::WalGap, AlertSeverity::Critical),
            alert(Condition::SizeChange, AlertSeverity::Warning),
        ];
        let mut told: BTreeSet<AlertKey> = BTreeSet::new();
        let mut now = 0;
        for (which, works) in script {
            let wrong: Vec<Alert> = all.iter().enumerate().filter(|(i, _)| which & (1 << i) != 0).map(|(_, a)| a.clone()).collect();
            for tell in engine.step(at(now), &wrong, &[], &config) {
                if works {
                    for over in &tell.resolved {
                        prop_assert!(told.remove(&over.alert.key), "over, but never told: {:?}", over.alert.key);
                    }
                    told.extend(tell.firing.iter().map(|f| f.alert.key.clone()));
                    engine.told(&tell, at(now));
                } else {
                    engine.failed(&tell, at(now));
                }
            }
            now += 45;
        }
        // From now on everything is wrong and the receiver works.
        let longest = Duration::from_secs(600).max(config.group_interval + config.group_wait);
        let until = now + i64::try_from(longest.as_secs()).expect("small") + 60;
        while now < until {
            for tell in engine.step(at(now), &all, &[], &config) {
                told.extend(tell.firing.iter().map(|f| f.alert.key.clone()));
                engine.told(&tell, at(now));
            }
            now += 15;
        }
        prop_assert_eq!(told.len(), 3);
    }
}
