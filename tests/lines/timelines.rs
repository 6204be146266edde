//! Restores along any timeline, however the branches lie.

use super::*;

/// Promotes a restored copy to go on as production, and archives from there.
fn go_on(estate: &Estate, from: &Cluster, copy: &Cluster) {
    estate.reconfigure(&from.dsn(), &copy.dsn());
    receive_all(estate, copy);
}

#[test]
fn every_branch_of_three_timelines_can_be_restored() {
    let scratch = Scratch::new();
    let mut one = cluster(&scratch).start();
    let estate = Estate::builder(&scratch, &one).init();
    estate.backup();
    one.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let first = now(&one);
    switch(&one);
    one.psql("postgres", "INSERT INTO t VALUES (2)");
    let second = now(&one);
    one.psql("postgres", "INSERT INTO t VALUES (3)");
    switch(&one);
    one.psql("postgres", "INSERT INTO t VALUES (4)");
    let fourth = now(&one);
    receive_all(&estate, &one);
    one.stop();
    // Back to before 3, and on from there: timeline 2.
    let mut two = estate.restored(&second, "two", &one);
    assert_eq!(two.psql("postgres", "SELECT count(*) FROM t"), "2");
    two.psql("postgres", "INSERT INTO t VALUES (23)");
    go_on(&estate, &one, &two);
    let on_two = now(&two);
    switch(&two);
    two.psql("postgres", "INSERT INTO t VALUES (24)");
    receive_all(&estate, &two);
    two.stop();
    // Again, from a moment of timeline 2: timeline 3, which gets a base backup of its own.
    let three = estate.restored(&on_two, "three", &one);
    three.psql("postgres", "INSERT INTO t VALUES (35)");
    go_on(&estate, &two, &three);
    let on_three = now(&three);
    switch(&three);
    three.psql("postgres", "INSERT INTO t VALUES (36)");
    receive_all(&estate, &three);
    drop(three);

    for (target, timeline, rows) in [
        ("latest", "", "1,2,23,35,36"),
        (&*on_three, "", "1,2,23,35"),
        (&*on_two, "", "1,2,23"),
        (&*first, "", "1"),
        (&*first, "3", "1"),
        (&*second, "2", "1,2"),
        ("latest", "2", "1,2,23,24"),
        (&*on_two, "2", "1,2,23"),
        ("latest", "1", "1,2,3,4"),
        (&*fourth, "1", "1,2,3,4"),
        (&*second, "1", "1,2"),
    ] {
        let more: &[&str] = if timeline.is_empty() { &[] } else { &["--timeline", timeline] };
        let name = format!("r-{}-{timeline}", rows.replace(',', "_"));
        let name = if target == "latest" { format!("{name}-latest") } else { name };
        assert_eq!(restored_rows(&estate, target, more, &name, &one), rows, "{target} on {timeline}");
    }
    // What lies on another branch only is refused on this one.
    let refused = told(estate.restore(&fourth, &scratch.join("planned"), &["--plan", "--timeline", "9"]), 7);
    assert!(refused.contains("timelines there: 1, 2, 3"), "{refused}");
    estate.run(&["verify", "--deep"]).ok();
}

#[test]
fn a_base_backup_of_a_newer_timeline_leaves_the_older_branches_alone() {
    let scratch = Scratch::new();
    let mut one = cluster(&scratch).start();
    let estate = Estate::builder(&scratch, &one).init();
    let old = estate.backup();
    one.psql("postgres", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let first = now(&one);
    one.psql("postgres", "INSERT INTO t VALUES (2)");
    receive_all(&estate, &one);
    one.stop();
    let two = estate.restored(&first, "two", &one);
    two.psql("postgres", "INSERT INTO t VALUES (22)");
    estate.reconfigure(&one.dsn(), &two.dsn());
    let new = estate.backup();
    two.psql("postgres", "INSERT INTO t VALUES (23)");
    receive_all(&estate, &two);
    drop(two);
    let base = |target: &str, more: &[&str]| {
        let place = scratch.join("planned");
        estate.restore(target, &place, &[&["--plan"], more].concat()).ok().json()["plan"]["base"].clone()
    };
    assert_eq!(base("latest", &[]), *new);
    assert_eq!(base("latest", &["--timeline", "1"]), *old);
    assert_eq!(base(&first, &[]), *old);
    assert_eq!(restored_rows(&estate, "latest", &[], "r1", &one), "1,22,23");
    assert_eq!(restored_rows(&estate, "latest", &["--timeline", "1"], "r2", &one), "1,2");
    assert_eq!(restored_rows(&estate, &format!("backup:{new}"), &[], "r3", &one), "1,22");
}
