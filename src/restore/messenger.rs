//! The messenger: `restore_command` where a file does not lie there yet. It asks the process that restores
//! ([`super::wal_server`]) for one file over a Unix socket, and moves it into place.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::disk::failed;
use crate::error::{self, Error, Result};

/// The command for the server: takes the file where it lies in `ready`, else asks the messenger.
pub(super) fn restore_command(ready: &Path, messenger: &Path, socket: &Path) -> String {
    let [ready, messenger, socket] = [ready, messenger, socket].map(shell_word);
    format!("mv -f {ready}/%f %p 2>/dev/null || exec {messenger} wal-hand-over {socket} %f %p")
}

/// Puts the program where the server's account can run it; a link where possible, else a copy.
pub(crate) fn place_program(program: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_file(to);
    let placed = std::fs::hard_link(program, to).or_else(|_| std::fs::copy(program, to).map(|_| ()));
    placed.map_err(|e| failed("cannot place the program at", to, e))?;
    if std::fs::metadata(to).map_err(|e| failed("cannot look at", to, e))?.permissions().mode() & 0o005 != 0o005 {
        // A link shares its mode with the original, which is not ours to change.
        let _ = std::fs::remove_file(to);
        std::fs::copy(program, to).map_err(|e| failed("cannot place the program at", to, e))?;
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
            .map_err(|e| failed("cannot open", to, e))?;
    }
    Ok(())
}

/// Quotes a path for `/bin/sh`; `%` is special to PostgreSQL.
fn shell_word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "%%"))
}

/// Asks for `name` and moves the file to `destination`.
pub fn hand_over(socket: &Path, name: &str, destination: &Path) -> Result<()> {
    let lost = |e: std::io::Error| -> Error {
        error::repository(format!("the process that restores cannot be asked for {name}")).source(e)
    };
    let mut stream = UnixStream::connect(socket).map_err(lost)?;
    writeln!(stream, "GET {name}").map_err(lost)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(lost)?;
    match answer.trim_end().split_once(' ').unwrap_or((answer.trim_end(), "")) {
        ("OK", path) => std::fs::rename(path, destination).or_else(|_| copy(Path::new(path), destination)),
        ("ABSENT", _) => return Err(error::absent(format!("{name} is not in the archive"))),
        ("FAILED", why) => return Err(error::repository(why.to_owned())),
        _ => return Err(error::repository("the process that restores went away")),
    }
    .map_err(|e| failed("cannot place", destination, e))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    std::fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn paths_survive_the_shell_and_postgresql() {
        assert_eq!(shell_word(Path::new("/a b/it's 100%")), r"'/a b/it'\''s 100%%'");
    }

    #[test]
    fn absence_and_failure_are_told_apart() {
        let folder = tempfile::tempdir().expect("dir");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("bind");
        let place = folder.path().join("file");
        std::fs::write(&place, "wal").expect("write");
        let answers = [format!("OK {}\n", place.display()), "ABSENT\n".into(), "FAILED store down\n".into()];
        let serving = std::thread::spawn(move || {
            for text in answers {
                let (mut stream, _) = listener.accept().expect("accept");
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).expect("request");
                assert_eq!(request, "GET 00000002.history\n");
                stream.write_all(text.as_bytes()).expect("answer");
            }
        });
        let destination = folder.path().join("dest");
        let kinds = [0, 1, 2].map(|_| hand_over(&socket, "00000002.history", &destination).map_err(|e| e.kind()));
        serving.join().expect("all asked");
        assert_eq!(kinds, [Ok(()), Err(ErrorKind::Absent), Err(ErrorKind::Repository)]);
        assert_eq!(std::fs::read(&destination).expect("moved"), b"wal");
    }
}
