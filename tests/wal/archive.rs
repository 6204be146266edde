//! `wal push` and `wal fetch`, as PostgreSQL runs them.

use super::*;

#[test]
fn push_is_idempotent_and_never_replaces() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config("wal_keep_size = 1GB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    let name = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let path = cluster.data_dir().join("pg_wal").join(&name);
    let unfinished = estate.push(&path).expect_code(6);
    assert!(unfinished.stderr.contains("not complete"), "{}", unfinished.stderr);
    switch(&cluster);
    assert!(estate.push(&path).ok().stdout.contains("archived,"));
    assert!(estate.push(&path).ok().stdout.contains("same content"));
    let original = fs::read(&path).expect("there");
    assert!(estate.fetched(&name) == original);
    // Same name, other content: sound or not, it is refused and the first stays.
    let mut damaged = original.clone();
    damaged[100_000] ^= 1;
    let copy = scratch.write(&format!("copy/{name}"), &damaged);
    assert_eq!(estate.push(&copy).code(), Some(6));
    let history = scratch.write("00000002.history", "1\t0/3000000\tno reason\n");
    estate.push(&history).ok();
    estate.push(&history).ok();
    scratch.write("00000002.history", "1\t0/4000000\tno reason\n");
    assert_eq!(estate.push(&history).code(), Some(6));
    assert_eq!(estate.fetched("00000002.history"), b"1\t0/3000000\tno reason\n");
    assert!(estate.fetched(&name) == original);
    // A wrong name for a right file.
    let renamed = scratch.write("copy/00000001000000000000000F", &original);
    assert_eq!(estate.push(&renamed).code(), Some(6));
    assert_eq!(estate.push(&scratch.write("nonsense", "x")).code(), Some(2));
}

#[test]
fn only_a_proven_absence_is_exit_code_1() {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    assert_eq!(estate.fetch(&first).0, 0);
    for absent in ["0000000100000000000000FF", "00000009.history", "0000000100000000000000FF.00000028.backup"] {
        let (code, path) = estate.fetch(absent);
        assert!(code == 1 && !path.exists(), "{absent}: {code}");
    }
    assert_eq!(estate.fetch("nonsense").0, 130);
    assert_eq!(estate.lifeboat.run(&["wal", "fetch", "-e", "production", &first]).code(), Some(130));
    assert_eq!(estate.lifeboat.run(&["wal", "fetch", "-e", "nobody", &first, "x"]).code(), Some(130));
    // Damage.
    let stored = scratch.join("repository/production/wal/00000001").join(&first);
    let mut bytes = fs::read(&stored).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&stored).expect("there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&stored, permissions).expect("own file");
    fs::write(&stored, bytes).expect("own file");
    fs::remove_file(scratch.join(format!("fetched-{first}"))).expect("fetched before");
    let (code, path) = estate.fetch(&first);
    assert!(code == 134 && !path.exists(), "{code}");
    // A key of somebody else.
    let key = scratch.join("recovery.key");
    let right = fs::read(&key).expect("there");
    fs::remove_file(&key).expect("there");
    estate.lifeboat.run(&["keygen", "-o", key.to_str().expect("UTF-8")]).ok();
    assert_eq!(estate.fetch("00000009.history").0, 138);
    fs::write(&key, right).expect("own file");
    // The folder is gone, as an unmounted disk.
    fs::rename(scratch.join("repository"), scratch.join("elsewhere")).expect("a folder");
    let (code, _) = estate.fetch("00000009.history");
    assert!(code > 125, "{code}");
}

#[test]
fn postgresql_recovers_through_wal_fetch() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 1);
    let Some(basebackup) = tool(cluster.major(), "pg_basebackup") else { skip!("no pg_basebackup") };
    let estate = Estate::in_folder(&scratch, &cluster);
    let home = scratch.server_dir("recovered");
    let data = home.join("data");
    let arguments = ["-X", "none", "-c", "fast", "-d", &cluster.dsn()];
    let copied = Command::new(basebackup).arg("-D").arg(&data).args(arguments).status().expect("pg_basebackup");
    assert!(copied.success());
    let receiver = estate.receive();
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(200);
    let journal = journal.stop();
    wait_flushed(&cluster, &current(&cluster));
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    // The server's account runs the program: everything it needs must be its own.
    let program = scratch.join("lifeboat");
    fs::copy(Lifeboat::program(), &program).expect("a copy of the program");
    for path in ["repository", "state", "recovery.key", "recovered", "lifeboat.toml"] {
        own(&scratch.join(path));
    }
    let conf = data.join("postgresql.auto.conf");
    let fetch =
        format!("{} -c {} wal fetch -e production %f %p", program.display(), scratch.join("lifeboat.toml").display());
    fs::write(
        &conf,
        format!(
            "restore_command = '{fetch}'\nunix_socket_directories = '{}'\nrecovery_target_timeline = 'latest'\n",
            home.display()
        ),
    )
    .expect("own file");
    fs::write(data.join("recovery.signal"), "").expect("own file");
    own(&data);
    let recovered = Cluster::adopt(&scratch, &data, cluster.major());
    wait_until("recovery ends", PATIENCE, || recovered.psql("postgres", "SELECT pg_is_in_recovery()") == "f");
    let rows = recovered.psql("postgres", "SELECT count(*) FROM journal").parse::<usize>().expect("a number");
    assert_eq!(rows, journal.acknowledged.len(), "every acknowledged commit");
}
