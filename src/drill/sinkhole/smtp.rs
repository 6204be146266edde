//! A mail server that takes every mail and delivers none: enough of RFC 5321 to hear who writes to whom about what.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Longest line that is read.
const LINE: u64 = 64 << 10;
/// Lines of one session, or of one mail.
const LINES: usize = 1_000_000;
/// Fields of a mail's header that are looked at, and how much of each.
const FIELDS: usize = 200;
const FIELD: usize = 1000;

/// One mail, or a session that brought none.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    sender: String,
    recipients: Vec<String>,
    subject: String,
}

impl Heard {
    fn in_words(&self) -> String {
        format!("mail from {} to {}: {}", self.sender, self.recipients.join(", "), self.subject)
    }
}

/// Talks until the client goes; tells each mail when it is complete. A session without any tells that too.
pub(super) async fn converse<S>(stream: S, mut told: impl FnMut(String)) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read);
    let (mut mails, mut said) = (0, Vec::new());
    let outcome = session(&mut lines, &mut write, &mut said, &mut |mail: &Heard| {
        mails += 1;
        told(mail.in_words());
    })
    .await;
    if mails == 0 {
        told(if said.is_empty() { "nothing was said".to_owned() } else { format!("no mail: {}", said.join(", ")) });
    }
    outcome
}

async fn session(
    lines: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    said: &mut Vec<String>,
    complete: &mut impl FnMut(&Heard),
) -> io::Result<()> {
    write.write_all(b"220 sinkhole ESMTP\r\n").await?;
    let mut mail = Heard::default();
    for _ in 0..LINES {
        let Some(line) = line(lines).await? else { return Ok(()) };
        let upper = line.to_ascii_uppercase();
        let verb = upper.split([' ', ':']).next().unwrap_or_default().to_owned();
        if said.len() < 8 {
            // What follows AUTH is a password.
            said.push(if verb == "AUTH" { "AUTH".to_owned() } else { line.chars().take(80).collect() });
        }
        let answer: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sinkhole\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN LOGIN\r\n",
            "HELO" | "NOOP" | "VRFY" => b"250 sinkhole\r\n",
            "AUTH" if upper.starts_with("AUTH LOGIN") || upper == "AUTH PLAIN" => {
                // User and password, or both at once, are asked for and forgotten.
                let questions = if upper == "AUTH LOGIN" { 2 } else { 1 };
                for _ in 0..questions {
                    write.write_all(b"334 \r\n").await?;
                    if self::line(lines).await?.is_none() {
                        return Ok(());
                    }
                }
                b"235 2.7.0 accepted\r\n"
            }
            "AUTH" => b"235 2.7.0 accepted\r\n",
            "MAIL" => {
                mail = Heard { sender: address(&line), ..Heard::default() };
                b"250 2.1.0 ok\r\n"
            }
            "RCPT" => {
                mail.recipients.push(address(&line));
                b"250 2.1.5 ok\r\n"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                mail.subject = subject(lines).await?;
                complete(&mail);
                mail = Heard::default();
                b"250 2.0.0 kept in the sandbox\r\n"
            }
            "RSET" => {
                mail = Heard::default();
                b"250 2.0.0 ok\r\n"
            }
            "QUIT" => {
                write.write_all(b"221 2.0.0 bye\r\n").await?;
                return write.shutdown().await;
            }
            _ => b"502 5.5.1 not here\r\n",
        };
        write.write_all(answer).await?;
    }
    Ok(())
}

/// Reads a mail to its end; its subject.
async fn subject(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let (mut in_header, mut header) = (true, Vec::<String>::new());
    for _ in 0..LINES {
        let Some(line) = line(lines).await? else { break };
        if line == "." {
            let subject = header.iter().find_map(|field| {
                let (name, value) = field.split_once(':')?;
                name.eq_ignore_ascii_case("subject").then(|| value.trim().to_owned())
            });
            return Ok(subject.unwrap_or_default());
        }
        in_header &= !line.is_empty() && header.len() < FIELDS;
        match (in_header, header.last_mut().filter(|_| line.starts_with([' ', '\t']))) {
            // A folded line goes on where the last one ended.
            (true, Some(field)) if field.len() < FIELD => field.push_str(&line),
            (true, None) => header.push(line),
            _ => {}
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn line(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = lines.take(LINE).read_until(b'\n', &mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes);
    Ok((read > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// What stands between `<` and `>`.
fn address(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(address, _)| address);
    inner.unwrap_or_else(|| line.split_once(':').map_or("", |(_, rest)| rest.trim())).chars().take(120).collect()
}
